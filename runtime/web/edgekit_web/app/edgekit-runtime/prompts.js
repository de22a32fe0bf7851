/** From messages to the text that a base continues: its own chat template, rendered as on every other device. */

import { strftime } from "./clock.js";
import { EdgekitError } from "./errors.js";
import { isObject, readJson } from "./json.js";
import { Specials, controlTokens } from "./specials.js";
import { folded, takesSystem } from "./system.js";
import { Template } from "./template.js";
import { given as givenTools } from "./tool-messages.js";

const ROLES = ["system", "user", "assistant", "tool"];

/**
 * @typedef {import("./index.js").Message} Message
 * @typedef {object} TemplateFacts what the site knows of the base's template
 * @property {{placeholder: string, parts: boolean} | null} image what it writes for an image, and whether it takes
 *   messages in parts; null for bases that read none
 * @property {{messages: Message[], tools?: object[], arguments?: object, texts: string[] | null}[]} probes
 *   conversations and what the template makes of them where adapters are trained
 * @property {import("./tool-messages.js").ToolFacts} [tools] what it does with tools and calls
 * @property {string} [moment] what templates that read the clock saw there, local time
 */

/** Names of a message's reasoning: the standard one, and those that some templates read. */
const REASONING = ["reasoning_content", "thinking", "reasoning"];
const TOKENS = {
  bos: "bos_token",
  eos: "eos_token",
  unknown: "unk_token",
  seperator: "sep_token",
  padding: "pad_token",
  cls: "cls_token",
  mask: "mask_token",
};

export class Prompts {
  /**
   * @param {import("./gguf.js").GgufHeader} base
   * @param {TemplateFacts} facts
   */
  constructor(base, { image, probes, moment, tools }) {
    const { metadata } = base;
    const source = metadata.get("tokenizer.chat_template");
    if (typeof source !== "string") {
      throw new EdgekitError("input", "the base has no chat template", "export an instruct or chat model");
    }
    this.tokens = specialTokens(metadata);
    this.bos = this.tokens.bos_token ?? "";
    this.image = image;
    this.tools = tools;
    this.knowsTools = true;
    this.template = compiled(source);
    const forTools =
      metadata.get("tokenizer.chat_templates")?.includes("tool_use") &&
      metadata.get("tokenizer.chat_template.tool_use");
    this.withTools = typeof forTools === "string" ? compiled(forTools) : this.template;
    this.specials = new Specials(controlTokens(metadata), [...this.template.literals, ...this.withTools.literals]);
    this.takesSystem = true;
    this.takesSystem = takesSystem((messages) => this.render(messages).join(""));
    const then = moment ? new Date(moment) : undefined;
    for (const { messages, texts, ...asking } of probes) {
      let rendered = null;
      try {
        rendered = this.render(messages, asking, then);
      } catch {
        // then it has to refuse where adapters are trained too
      }
      if (JSON.stringify(rendered) === JSON.stringify(texts)) continue;
      if (asking.tools) {
        this.knowsTools = false; // what asks without them is the same
      } else {
        throw new EdgekitError(
          "unsupported",
          "this browser renders the base's chat template differently from the device runtime",
          "report the base: its template needs a newer @huggingface/jinja",
        );
      }
    }
  }

  /**
   * @param {Message[]} messages
   * @param {{tools?: object[], arguments?: object}} [asking] functions that the model may call, and more variables of
   *   the template
   * @param {Date} [moment] what templates that read the clock see
   * @returns {string[]} the text before, between and after the images: one more than there are images
   */
  render(messages, asking = {}, moment) {
    const taken = this.tools ? givenTools(this.tools, messages, asking.tools) : { messages, tools: asking.tools };
    const { tools } = taken;
    const given = this.takesSystem ? taken.messages : folded(taken.messages);
    const text = (tools?.length ? this.withTools : this.template).render({
      ...this.tokens,
      ...asking.arguments,
      messages: given.map((message) => this.taken(message)),
      tools: tools?.length ? tools : null,
      documents: null,
      add_generation_prompt: true,
      [CLOCK]: (layout) => strftime(moment ?? new Date(), layout),
    });
    const texts = this.image ? text.split(this.image.placeholder) : [text];
    const images = imagesIn(messages);
    if (texts.length !== images + 1) {
      throw new EdgekitError(
        "input",
        `the prompt has ${texts.length - 1} places for ${images} images`,
        `leave ${this.image?.placeholder} out of texts`,
      );
    }
    return texts;
  }

  /** A message as the template takes it: no empty keys, reasoning under every name.  @param {Message} message */
  taken(message) {
    const given = Object.fromEntries(Object.entries(message).filter(([, value]) => value != null));
    if ("content" in given) given.content = this.content(message);
    const name = REASONING.find((each) => each in given);
    return name ? { thinking: given[name], ...given, [REASONING[0]]: given[name] } : given;
  }

  /** A message's content as the template takes it.  @param {Message} message */
  content(message) {
    const parts = partsOf(message);
    if (this.image?.parts) return parts;
    return parts.map((part) => (isImage(part) ? `${this.image?.placeholder}\n` : part.text)).join("");
  }

  /**
   * The text of a conversation, with an adapter's system prompt unless the conversation brings one.
   *
   * @param {Message[]} messages
   * @param {string | undefined | null} system
   * @param {number} [images] how many come along; without parts for them they come before the last question
   * @param {{tools?: object[], arguments?: object}} [asking] see {@link Prompts.render}
   * @returns {string[]} see {@link Prompts.render}; what messages spell is no control token in them
   */
  chat(messages, system, images = 0, asking = {}) {
    if (asking.tools?.length && !this.knowsTools) {
      throw new EdgekitError(
        "unsupported",
        "this browser renders tools in the base's chat template differently from the device runtime",
        "ask without tools",
      );
    }
    const asked = placed(checked(messages), images);
    const all = system == null || asked[0].role === "system" ? asked : [{ role: "system", content: system }, ...asked];
    try {
      const render = ({ messages: each, ...rest }) => this.render(each, rest);
      const { texts, disguise } = this.specials.rendered({ messages: all, ...asking }, render);
      return texts.map((text) => this.specials.prompt(text, disguise));
    } catch (error) {
      if (error instanceof EdgekitError) throw error;
      throw new EdgekitError(
        "input",
        `the base's chat template refuses these messages (${error.message})`,
        "change the order or roles of the messages",
      );
    }
  }
}

/** `{% generation %}` marks for trainers what the assistant says: here its body is all that matters. */
function compiled(source) {
  const plain = source.replace(
    GENERATION,
    (_, open, end, close) => `{%${open} ${end ? "endif" : "if true"} ${close}%}`,
  );
  return new Template(plain.replace(/\bstrftime_now\b/g, CLOCK));
}

const CLOCK = "edgekit_now"; // jinja.js has a clock of its own, which can't be stopped

const GENERATION = /\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}/g;

/** Special tokens by the name of their variable: as edgekit wrote them, in other files by llama.cpp's numbers. */
function specialTokens(metadata) {
  const written = metadata.get("edgekit.template_tokens");
  if (written !== undefined) return textsOf(written);
  const texts = metadata.get("tokenizer.ggml.tokens") ?? [];
  const named = Object.entries(TOKENS).map(([kind, name]) => [
    name,
    texts.at(metadata.get(`tokenizer.ggml.${kind}_token_id`) ?? Infinity),
  ]);
  return Object.fromEntries(named.filter(([, text]) => text !== undefined));
}

function textsOf(written) {
  try {
    const found = readJson(written);
    if (isObject(found) && Object.values(found).every((text) => typeof text === "string")) return found;
  } catch {
    // told below
  }
  throw new EdgekitError(
    "damaged",
    "edgekit.template_tokens is no JSON object of texts",
    "copy or export the base again",
  );
}

function checked(messages) {
  if (!messages?.length) throw new EdgekitError("usage", "there are no messages", "give at least one with role user");
  messages.forEach((message, index) => {
    if (!ROLES.includes(message?.role)) {
      throw new EdgekitError("usage", `message ${index + 1} has no known role`, `use one of ${ROLES.join(", ")}`);
    }
    const { content } = message;
    if (content == null && message.role === "assistant" && message.tool_calls?.length) return;
    const sound = Array.isArray(content) ? content.length && content.every(isPart) : typeof content === "string";
    if (!sound) throw new EdgekitError("usage", `message ${index + 1} has no text`, 'give it as "content"');
  });
  return messages;
}

/** Messages with a part for each image. */
function placed(messages, images) {
  const named = imagesIn(messages);
  if (named === images) return messages;
  if (named) {
    throw new EdgekitError(
      "input",
      `the messages speak of ${named} images and ${images} came along`,
      "send one for each",
    );
  }
  const last = messages.findLast((message) => message.role === "user") ?? messages.at(-1);
  const parts = Array.from({ length: images }, () => ({ type: "image" }));
  return messages.map((message) =>
    message === last ? { ...message, content: [...parts, ...partsOf(message)] } : message,
  );
}

function imagesIn(messages) {
  return messages.flatMap(partsOf).filter(isImage).length;
}

/** @param {{content?: any}} message */
function partsOf({ content }) {
  if (content == null) return [];
  return Array.isArray(content) ? content : [{ type: "text", text: content }];
}

function isImage(part) {
  return part.type === "image";
}

function isPart(part) {
  return part?.type === "image" || (part?.type === "text" && typeof part.text === "string");
}
