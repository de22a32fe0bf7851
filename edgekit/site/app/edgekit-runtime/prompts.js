/** From messages to the text that a base continues: its own chat template, rendered as on every other device. */

import { Template } from "../vendor/jinja/jinja.js";
import { EdgekitError } from "./errors.js";

const ROLES = ["system", "user", "assistant", "tool"];

export class Prompts {
  /**
   * @param {import("./gguf.js").GgufHeader} base
   * @param {{messages: Message[], text: string | null}[]} probes conversations and what the template makes of them
   *   where adapters are trained
   * @typedef {{role: string, content: string}} Message
   */
  constructor(base, probes) {
    const { metadata } = base;
    const source = metadata.get("tokenizer.chat_template");
    if (typeof source !== "string") {
      throw new EdgekitError("input", "the base has no chat template", "export an instruct or chat model");
    }
    const special = (kind) => metadata.get("tokenizer.ggml.tokens")?.at(metadata.get(`tokenizer.ggml.${kind}_token_id`)) ?? "";
    this.bos = special("bos");
    this.eos = special("eos");
    this.template = new Template(source);
    for (const { messages, text } of probes) {
      let rendered = null;
      try {
        rendered = this.render(messages);
      } catch {
        // then it has to refuse where adapters are trained too
      }
      if (rendered !== text) {
        throw new EdgekitError(
          "unsupported", "this browser renders the base's chat template differently from the device runtime",
          "report the base: its template needs a newer @huggingface/jinja",
        );
      }
    }
  }

  /** @param {Message[]} messages @returns {string} */
  render(messages) {
    return this.template.render({
      messages,
      add_generation_prompt: true,
      bos_token: this.bos,
      eos_token: this.eos,
    });
  }

  /**
   * The text of a conversation, with an adapter's system prompt unless the conversation brings one.
   *
   * @param {Message[]} messages
   * @param {string | undefined | null} system
   */
  chat(messages, system) {
    checkMessages(messages);
    const all = system == null || messages[0].role === "system" ? messages : [{ role: "system", content: system }, ...messages];
    try {
      return this.render(all);
    } catch (error) {
      throw new EdgekitError(
        "input", `the base's chat template refuses these messages (${error.message})`,
        "change the order or roles of the messages",
      );
    }
  }
}

function checkMessages(messages) {
  if (!messages?.length) throw new EdgekitError("usage", "there are no messages", "give at least one with role user");
  messages.forEach((message, index) => {
    if (!ROLES.includes(message?.role)) {
      throw new EdgekitError("usage", `message ${index + 1} has no known role`, `use one of ${ROLES.join(", ")}`);
    }
    if (typeof message.content !== "string") {
      throw new EdgekitError("usage", `message ${index + 1} has no text`, 'give it as "content"');
    }
  });
}
