/**
 * Control tokens come from the chat template, never from what somebody writes into a conversation: the same rules as
 * in the device runtime's `specials`.
 *
 * The engine takes a prompt as one text, and has no switch for control tokens.  So each one that a message spells gets an
 * invisible sign behind its first one: the model reads it as text, with that sign in it.
 */

import { EdgekitError } from "./errors.js";

const UNKNOWN = 2; // llama.cpp's kinds of tokens
const CONTROL = 3;
const PLANES = [0xf0000, 0x100000]; // Unicode's private ones: where a sign's other one is
const JOINER = "\u2060"; // Unicode's word joiner, which has no width
const TAGS = ["<think>", "</think>", "[THINK]", "[/THINK]", "<seed:think>", "</seed:think>"];

/** Control tokens of a GGUF's vocabulary.  @param {Map<string, any>} metadata */
export function controlTokens(metadata) {
  const [texts, kinds] = ["tokens", "token_type"].map((name) => metadata.get(`tokenizer.ggml.${name}`) ?? []);
  const found = [];
  for (let id = 0; id < texts.length; id++) {
    const text = texts.at(id);
    const looks = /^<[|｜].*[|｜]>$/s.test(text);
    if (text && (looks || kinds.at(id) === UNKNOWN || kinds.at(id) === CONTROL)) found.push(text);
  }
  return found;
}

export class Specials {
  /**
   * @param {string[]} tokens their texts
   * @param {string[]} literals what the chat template looks for in messages
   */
  constructor(tokens, literals) {
    this.pattern = anyOf(tokens);
    this.words = tokens.filter((text) => /^[\p{L}\p{N}\s]/u.test(text));
    const others = tokens.filter((text) => !this.words.includes(text));
    this.signs = [...new Set(others.map(firstSign))];
    this.firsts = [...new Set([...this.signs, ...this.words.map(firstSign)])];
    this.trigger = anyOf([...this.signs, ...this.words]);
    this.literals = literals.filter(
      (text) => this.signs.some((sign) => text.includes(sign)) && !this.spans(text).length,
    );
  }

  /** Where control tokens stand in a text.  @returns {[number, number][]} */
  spans(text) {
    return [...text.matchAll(this.pattern)].map(({ index, 0: found }) => [index, index + found.length]);
  }

  /**
   * A conversation's text, with other signs where it has some that begin control tokens.
   *
   * @param {object} asked what the template renders
   * @param {(asked: any) => string[]} render
   * @returns {{texts: string[], disguise?: Disguise}}
   */
  rendered(asked, render) {
    const said = [...textsIn(asked)];
    if (!said.some((text) => text.search(this.trigger) >= 0)) return { texts: render(asked) };
    const plane = PLANES.find((each) => !this.others(each).some((other) => said.some((text) => spells(text, other))));
    if (plane === undefined) {
      throw new EdgekitError("input", "a message has private characters of Unicode's last planes", "leave them out");
    }
    const plain = render(asked);
    const every = new Disguise(this, plane, []);
    const hidden = every.rendered(asked, render);
    if (
      same(
        hidden.map((text) => every.shown(text)),
        plain,
      )
    )
      return { texts: hidden, disguise: every };
    const most = new Disguise(this, plane, this.literals); // the template looks for something in the texts
    const less = most.rendered(asked, render);
    const sequence = (texts) => texts.map((text) => text.match(this.pattern) ?? []);
    if (!same(sequence(less), sequence(hidden))) {
      throw new EdgekitError(
        "input",
        "the base's chat template makes a control token of what is in a message",
        "leave it out",
      );
    }
    return { texts: less, disguise: most };
  }

  others(plane) {
    return this.firsts.map((sign) => String.fromCodePoint(plane + sign.codePointAt(0)));
  }

  /**
   * A rendered text as the engine takes it: as it is where it spells no control token but the template's own.
   *
   * @param {string} text
   * @param {Disguise | undefined} disguise
   */
  prompt(text, disguise) {
    if (!disguise) return text;
    let prompt = "";
    let begun = 0;
    for (const [start, end] of [...this.spans(text), [text.length, text.length]]) {
      prompt += this.broken(disguise.shown(text.slice(begun, start))) + text.slice(start, end);
      begun = end;
    }
    return prompt;
  }

  /** With a joiner behind the first sign of each control token that a text spells. */
  broken(text) {
    return text.replace(this.pattern, broken);
  }
}

/** Other signs in the places of those that begin control tokens, one for one. */
export class Disguise {
  constructor(specials, plane, kept) {
    const others = specials.others(plane);
    this.back = new Map(specials.firsts.map((sign, index) => [others[index], sign]));
    this.ahead = new Map(specials.firsts.map((sign, index) => [sign, others[index]]));
    this.specials = specials;
    this.kept = [kept, [...kept, ...TAGS]].map((each) => ({
      texts: new Set(each),
      pattern: anyOf([...each, ...specials.words, ...specials.signs]),
    }));
    this.other = anyOf(others);
  }

  /** A conversation's text with other signs. */
  rendered(asked, render) {
    const { messages, ...rest } = asked;
    const hidden = messages.map((message) => this.hidden(message, this.kept[message.role === "assistant" ? 1 : 0]));
    const texts = render({ messages: hidden, ...this.hidden(rest, this.kept[0]) });
    return texts.map((text) => text.replace(/\\u[0-9a-f]{4}\\u[0-9a-f]{4}/g, (spelt) => this.unspelt(spelt)));
  }

  /** Another sign that JSON has spelt in ASCII. */
  unspelt(spelt) {
    const sign = JSON.parse(`"${spelt}"`);
    return this.back.has(sign) ? sign : spelt;
  }

  hidden(value, kept) {
    if (typeof value === "string") return this.hide(value, kept);
    if (Array.isArray(value)) return value.map((each) => this.hidden(each, kept));
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(
      Object.entries(value).map(([key, each]) => [this.hide(key, kept), this.hidden(each, kept)]),
    );
  }

  hide(text, { texts, pattern }) {
    return text.replace(pattern, (found) => {
      if (texts.has(found)) return found;
      const sign = firstSign(found);
      return this.ahead.get(sign) + found.slice(sign.length);
    });
  }

  /** The text with its own signs. */
  shown(text) {
    return text.replace(this.other, (sign) => this.back.get(sign));
  }
}

/**
 * A text in which a word that the engine takes for more than text is text: the mark of an image, say.
 *
 * @param {string} text
 * @param {string} word
 */
export function asText(text, word) {
  return text.replaceAll(word, broken);
}

function broken(word) {
  const sign = firstSign(word);
  return sign + JOINER + word.slice(sign.length);
}

function firstSign(text) {
  return String.fromCodePoint(text.codePointAt(0));
}

/** Any of these, the longest first; nothing where there are none. */
function anyOf(texts) {
  const longest = [...new Set(texts)].sort((one, other) => other.length - one.length);
  const escaped = longest.map((text) => text.replace(/[.*+?^${}()|[\]\\\/]/g, "\\$&"));
  return new RegExp(escaped.length ? escaped.join("|") : "(?!)", "gu");
}

function spells(text, sign) {
  const spelt = [...Array(sign.length).keys()].map((at) => `\\u${sign.charCodeAt(at).toString(16)}`).join("");
  return text.includes(sign) || text.toLowerCase().includes(spelt);
}

function same(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}

function* textsIn(value) {
  const waiting = [value];
  while (waiting.length) {
    const each = waiting.pop();
    if (typeof each === "string") yield each;
    else if (Array.isArray(each)) for (const item of each) waiting.push(item);
    else if (typeof each === "object" && each !== null) for (const pair of Object.entries(each)) waiting.push(...pair);
  }
}
