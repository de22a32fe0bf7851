/** From messages to the text that a base continues: its own chat template, rendered as on every other device. */

import { Template } from "../vendor/jinja/jinja.js";
import { EdgekitError } from "./errors.js";

const ROLES = ["system", "user", "assistant", "tool"];

/**
 * @typedef {import("./index.js").Message} Message
 * @typedef {object} TemplateFacts what the site knows of the base's template
 * @property {{placeholder: string, parts: boolean} | null} image what it writes for an image, and whether it takes
 *   messages in parts; null for bases that read none
 * @property {{messages: Message[], texts: string[] | null}[]} probes conversations and what the template makes of them
 *   where adapters are trained
 */

export class Prompts {
  /**
   * @param {import("./gguf.js").GgufHeader} base
   * @param {TemplateFacts} facts
   */
  constructor(base, { image, probes }) {
    const { metadata } = base;
    const source = metadata.get("tokenizer.chat_template");
    if (typeof source !== "string") {
      throw new EdgekitError("input", "the base has no chat template", "export an instruct or chat model");
    }
    const special = (kind) => metadata.get("tokenizer.ggml.tokens")?.at(metadata.get(`tokenizer.ggml.${kind}_token_id`)) ?? "";
    this.bos = special("bos");
    this.eos = special("eos");
    this.image = image;
    this.template = new Template(source);
    for (const { messages, texts } of probes) {
      let rendered = null;
      try {
        rendered = this.render(messages);
      } catch {
        // then it has to refuse where adapters are trained too
      }
      if (JSON.stringify(rendered) !== JSON.stringify(texts)) {
        throw new EdgekitError(
          "unsupported", "this browser renders the base's chat template differently from the device runtime",
          "report the base: its template needs a newer @huggingface/jinja",
        );
      }
    }
  }

  /**
   * @param {Message[]} messages
   * @returns {string[]} the text before, between and after the images: one more than there are images
   */
  render(messages) {
    const text = this.template.render({
      messages: messages.map((message) => ({ ...message, content: this.content(message) })),
      add_generation_prompt: true,
      bos_token: this.bos,
      eos_token: this.eos,
    });
    const texts = this.image ? text.split(this.image.placeholder) : [text];
    const images = imagesIn(messages);
    if (texts.length !== images + 1) {
      throw new EdgekitError(
        "input", `the prompt has ${texts.length - 1} places for ${images} images`,
        `leave ${this.image?.placeholder} out of texts`,
      );
    }
    return texts;
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
   * @returns {string[]} see {@link Prompts.render}
   */
  chat(messages, system, images = 0) {
    const asked = placed(checked(messages), images);
    const all = system == null || asked[0].role === "system" ? asked : [{ role: "system", content: system }, ...asked];
    try {
      return this.render(all);
    } catch (error) {
      if (error instanceof EdgekitError) throw error;
      throw new EdgekitError(
        "input", `the base's chat template refuses these messages (${error.message})`,
        "change the order or roles of the messages",
      );
    }
  }
}

function checked(messages) {
  if (!messages?.length) throw new EdgekitError("usage", "there are no messages", "give at least one with role user");
  messages.forEach((message, index) => {
    if (!ROLES.includes(message?.role)) {
      throw new EdgekitError("usage", `message ${index + 1} has no known role`, `use one of ${ROLES.join(", ")}`);
    }
    const { content } = message;
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
    throw new EdgekitError("input", `the messages speak of ${named} images and ${images} came along`, "send one for each");
  }
  const last = messages.findLast((message) => message.role === "user") ?? messages.at(-1);
  const parts = Array.from({ length: images }, () => ({ type: "image" }));
  return messages.map((message) => (message === last ? { ...message, content: [...parts, ...partsOf(message)] } : message));
}

function imagesIn(messages) {
  return messages.flatMap(partsOf).filter(isImage).length;
}

function partsOf({ content }) {
  return Array.isArray(content) ? content : [{ type: "text", text: content }];
}

function isImage(part) {
  return part.type === "image";
}

function isPart(part) {
  return part?.type === "image" || (part?.type === "text" && typeof part.text === "string");
}
