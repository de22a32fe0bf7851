/**
 * Calls of functions in answers, as the device runtime's `tool_format` reads them.  The engine's grammars hold no calls
 * here, and its text has no control tokens: only forms of JSON between words are read.
 */

import { EdgekitError } from "./errors.js";
import { isObject, readJson } from "./json.js";

const OBJECT = "object";
const TAGS = [
  ["<think>", "</think>"],
  ["[THINK]", "[/THINK]"],
  ["<seed:think>", "</seed:think>"],
];

/**
 * @typedef {import("./tool-messages.js").CallForm} CallForm
 * @typedef {import("./index.js").ToolCall} ToolCall
 */

/**
 * Throw where calls of this form can't be read in a page.
 *
 * @param {CallForm} form
 * @param {(text: string) => boolean} spellsControl whether a text has control tokens
 */
export function checkForm(form, spellsControl) {
  const { syntax } = form;
  const parts = [
    form.opening,
    form.closing,
    form.between,
    syntax?.head ?? "",
    syntax?.middle ?? "",
    syntax?.foot ?? "",
  ];
  if (syntax?.kind === OBJECT && form.opening.trim() && !parts.some(spellsControl)) return;
  throw new EdgekitError(
    "unsupported",
    syntax ? "calls of this base can't be read in a browser" : form.why,
    "ask with tool_choice none or text, or run the bundle on another device",
  );
}

/**
 * An answer's text without its calls, and the calls.
 *
 * @param {CallForm} form
 * @param {string} text
 * @returns {{text: string, calls: ToolCall[]}}
 */
export function readCalls(form, text) {
  const needle = form.opening.trim();
  /** @type {ToolCall[]} */
  const calls = [];
  let said = "";
  let done = 0;
  let at = text.indexOf(needle, reasoningEnd(text));
  while (at >= 0) {
    const found = callsAt(form, text, at + needle.length);
    if (found) {
      calls.push(...found.calls);
      const before = text.slice(done, at);
      said += spoken(form.gap && before.endsWith(form.gap) ? before.slice(0, -form.gap.length) : before);
      done = found.end;
    }
    at = text.indexOf(needle, found ? done : at + 1);
  }
  return calls.length ? { text: said + spoken(text.slice(done)), calls } : { text, calls };
}

/** White space alone between calls, before or behind them, is no text. */
function spoken(text) {
  return text.trim() ? text : "";
}

/** @param {CallForm} form @param {string} text @param {number} start */
function callsAt(form, text, start) {
  const calls = [];
  let end = start;
  for (let next = /** @type {number | undefined} */ (start); next !== undefined;) {
    const begun = skip(text, next);
    const stop = objectEnd(text, begun);
    const call = stop === undefined ? undefined : callOf(form, text.slice(begun, stop));
    if (stop === undefined || !call) break;
    calls.push(call);
    const closed = after(text, stop, form.closing);
    if (form.blocks) {
      end = closed ?? stop;
      next = closed === undefined ? undefined : after(text, closed, form.opening);
    } else {
      next = after(text, stop, form.between);
      end = next === undefined ? (closed ?? stop) : stop;
    }
  }
  return calls.length ? { calls, end } : undefined;
}

/** @param {CallForm} form @param {string} text @returns {ToolCall | undefined} */
function callOf({ syntax }, text) {
  let value;
  try {
    value = readJson(text);
  } catch {
    return undefined;
  }
  const [nameKey, argumentsKey, idKey] = syntax?.keys ?? [];
  const { [nameKey]: name, [argumentsKey]: given = {}, ...rest } = value;
  const id = idKey === undefined ? undefined : rest[idKey];
  if (idKey !== undefined) delete rest[idKey];
  const constants = /** @type {Record<string, any>} */ (syntax?.constants ?? {});
  const known = Object.entries(rest).every(([key, each]) => JSON.stringify(each) === JSON.stringify(constants[key]));
  if (typeof name !== "string" || !name || !isObject(given) || !known) return undefined;
  return { id: typeof id === "string" && id ? id : newId(), type: "function", function: { name, arguments: given } };
}

/** Where the JSON object ends that begins at `at`; undefined where none does. */
function objectEnd(text, at) {
  if (text[at] !== "{") return undefined;
  let depth = 0;
  for (let place = at; place < text.length; place++) {
    const sign = text[place];
    if (sign === '"') {
      place = stringEnd(text, place);
    } else if (sign === "{" || sign === "[") {
      depth += 1;
    } else if (sign === "}" || sign === "]") {
      depth -= 1;
      if (!depth) return place + 1;
    }
  }
  return undefined;
}

function stringEnd(text, at) {
  let place = at + 1;
  while (place < text.length && text[place] !== '"') place += text[place] === "\\" ? 2 : 1;
  return place;
}

/** Behind a sign and the white space before it; undefined where it isn't there. */
function after(text, at, sign) {
  const bare = sign.trim();
  const begun = skip(text, at);
  return text.startsWith(bare, begun) ? begun + bare.length : undefined;
}

function skip(text, at) {
  return text.length - text.slice(at).trimStart().length;
}

/** Where an answer goes on behind its reasoning. */
function reasoningEnd(text) {
  for (const [start, end] of TAGS) {
    const at = text.indexOf(end);
    if (text.trimStart().startsWith(start)) return at < 0 ? text.length : at + end.length;
    if (at >= 0 && !text.slice(0, at).includes(start) && (at === 0 || text[at - 1] === "\n")) return at + end.length;
  }
  return 0;
}

/** An id of nine letters and digits, which every chat template takes. */
function newId() {
  const signs = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  return Array.from(crypto.getRandomValues(new Uint8Array(9)), (each) => signs[each % signs.length]).join("");
}
