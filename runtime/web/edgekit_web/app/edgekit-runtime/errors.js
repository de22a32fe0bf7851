/**
 * @typedef {"usage" | "input" | "network" | "storage" | "quota" | "memory" | "unsupported" | "signature" | "family" |
 *   "damaged" | "context" | "engine"} ErrorCode
 */

const SHOWN = 60; // signs of what somebody else has named, in an error
const MAX_LINE = 4000;
const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/gu;

/** What went wrong, and how to mend it.  `code` is for programs, `problem` and `mend` are for people. */
export class EdgekitError extends Error {
  /**
   * @param {ErrorCode} code
   * @param {string} problem
   * @param {string} [mend]
   * @param {Record<string, string | number>} [facts] figures and names in the message, for translations
   */
  constructor(code, problem, mend, facts = {}) {
    super(mend ? `${problem}: ${mend}` : problem);
    this.name = "EdgekitError";
    this.code = code;
    this.problem = problem;
    this.mend = mend;
    this.facts = facts;
  }
}

/** A text as one line that can be seen whole: control signs written out, and not without end.  @param {string} text */
export function oneLine(text) {
  const short = text.length > MAX_LINE ? `${text.slice(0, MAX_LINE)}…` : text;
  return short.replace(/\r\n|[\n-\r\x1c-\x1e\x85\u2028\u2029]/g, " ").replace(UNPRINTABLE, escaped);
}

/** What somebody else has named something, in quotes, for an error: as other devices show it.  @param {string} name */
export function shown(name) {
  const signs = [...name.slice(0, 2 * SHOWN + 2)];
  const text = signs.length > SHOWN ? `${signs.slice(0, SHOWN).join("")}...` : name;
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  return (
    quote + text.replace(/[^ -&(-[\]-~]/gu, (sign) => (sign === "'" && quote === '"' ? sign : escaped(sign))) + quote
  );
}

/** Whether each sign of a text can be seen; no line ends in it.  @param {string} text */
export function isPrintable(text) {
  return text.search(UNPRINTABLE) < 0;
}

function escaped(sign) {
  const short = { "\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\", "'": "\\'" }[sign];
  const code = sign.codePointAt(0);
  const digits = (letter, count) => `\\${letter}${code.toString(16).padStart(count, "0")}`;
  return short ?? (code < 0x100 ? digits("x", 2) : code < 0x10000 ? digits("u", 4) : digits("U", 8));
}
