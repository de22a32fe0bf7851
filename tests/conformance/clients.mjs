// npm's clients against the service at SERVICE: node --test clients.mjs
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateObject, generateText, jsonSchema, streamText, tool } from "ai";
import { z } from "zod";

const url = process.env.SERVICE;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "Is there a scratch on part 7? Report it." }];
const asked = { model: "one", messages, max_tokens: 12, temperature: 0 };
const schema = {
  type: "object",
  properties: { part: { type: "integer" }, verdict: { enum: ["good", "scratch", "dent"] } },
  required: ["part", "verdict"],
  additionalProperties: false,
};
const tools = [{ type: "function", function: { name: "report", description: "Report a part.", parameters: schema } }];

/** Whether a value follows the schema. */
function isReport(value) {
  return Number.isInteger(value.part) && ["good", "scratch", "dent"].includes(value.verdict);
}

/** Wait until nobody is answered any more. */
async function idle() {
  while ((await (await fetch(`${url}/status`)).json()).busy) await new Promise((done) => setTimeout(done, 50));
}

test("openai: whole and in pieces", async () => {
  const whole = await client.chat.completions.create({ ...asked, logprobs: true, top_logprobs: 2 });
  assert.ok(whole.choices[0].message.content);
  assert.equal(whole.choices[0].logprobs.content.length, 12);
  const stream = client.chat.completions.stream({ ...asked, stream_options: { include_usage: true } });
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
  assert.equal(text, whole.choices[0].message.content);
  assert.deepEqual((await stream.finalChatCompletion()).usage.total_tokens, whole.usage.total_tokens);
});

test("openai: tools and a schema", async () => {
  const called = { ...asked, max_tokens: 200, tools, tool_choice: "required", parallel_tool_calls: false };
  const { message } = (await client.chat.completions.create(called)).choices[0];
  const { arguments: text } = message.tool_calls[0].function;
  assert.ok(isReport(JSON.parse(text)));
  const streamed = await client.chat.completions.stream(called).finalMessage();
  assert.equal(streamed.tool_calls[0].function.arguments, text);
  const format = { type: "json_schema", json_schema: { name: "report", strict: true, schema } };
  const parsed = await client.chat.completions.parse({ ...asked, max_tokens: 200, response_format: format });
  assert.ok(isReport(JSON.parse(parsed.choices[0].message.content)));
});

test("openai: errors, leaving, texts", async () => {
  await assert.rejects(client.chat.completions.create({ ...asked, model: "nobody" }), OpenAI.NotFoundError);
  const long = [{ role: "user", content: "scratch ".repeat(3000) }];
  await assert.rejects(client.chat.completions.create({ ...asked, messages: long }), {
    code: "context_length_exceeded",
  });
  const stream = await client.chat.completions.create({ ...asked, max_tokens: 900, stream: true, ignore_eos: true });
  for await (const _ of stream) break; // which aborts it
  await idle();
  assert.equal((await client.models.list()).data.length, 2);
  const { data } = await client.embeddings.create({ model: "one", input: ["scratch", "dent"] });
  assert.deepEqual(
    data.map((each) => each.embedding.length),
    [576, 576],
  );
});

const service = createOpenAICompatible({
  name: "edgekit",
  baseURL: `${url}/v1`,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const model = service("one");
const prompt = messages[0].content;

test("ai: texts, whole and in pieces", async () => {
  const whole = await generateText({ model, prompt, maxOutputTokens: 12, temperature: 0 });
  assert.ok(whole.text);
  assert.equal(whole.finishReason, "length");
  const streamed = streamText({ model, prompt, maxOutputTokens: 12, temperature: 0 });
  let text = "";
  for await (const part of streamed.textStream) text += part;
  assert.equal(text, whole.text);
  assert.equal((await streamed.usage).outputTokens, whole.usage.outputTokens);
});

test("ai: tools that run, and objects", async () => {
  const told = [];
  const report = tool({
    description: "Report a part.",
    inputSchema: z.object({ part: z.number().int(), verdict: z.enum(["good", "scratch", "dent"]) }),
    execute: async (input) => {
      told.push(input);
      return { ok: true };
    },
  });
  const options = { model, prompt, tools: { report }, toolChoice: "required", maxOutputTokens: 200, temperature: 0 };
  await generateText({ ...options, providerOptions: { edgekit: { parallel_tool_calls: false } } });
  const streamed = streamText({ ...options, providerOptions: { edgekit: { parallel_tool_calls: false } } });
  await streamed.consumeStream();
  assert.ok(told.length >= 2 && told.every(isReport), JSON.stringify(told));
  const { object } = await generateObject({ model, prompt, schema: jsonSchema(schema), maxOutputTokens: 200 });
  assert.ok(isReport(object));
});

test("ai: errors, leaving, texts", async () => {
  await assert.rejects(generateText({ model: service("nobody"), prompt, maxRetries: 0 }), { statusCode: 404 });
  const leaving = new AbortController();
  const streamed = streamText({ model, prompt, maxOutputTokens: 900, abortSignal: leaving.signal });
  for await (const _ of streamed.textStream) leaving.abort();
  await idle();
  const { embeddings } = await embedMany({ model: service.textEmbeddingModel("one"), values: ["scratch", "dent"] });
  assert.deepEqual(
    embeddings.map((each) => each.length),
    [576, 576],
  );
});
