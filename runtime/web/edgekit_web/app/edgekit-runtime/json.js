/** JSON that comes from outside. */

/**
 * Parse it; half a character is JSON, but no text, and what is nested without end overflows somewhere later.
 *
 * @param {string} text
 * @throws SyntaxError | RangeError
 */
export function readJson(text) {
  return JSON.parse(text, (key, value) => {
    if (!key.isWellFormed() || (typeof value === "string" && !value.isWellFormed())) {
      throw new SyntaxError("half a character is in it");
    }
    return value;
  });
}

export const MOST_DEPTH = 200; // of objects and lists in each other: devices can't write more again

/** Whether more than that many are in each other.  @param {any} document */
export function tooDeep(document) {
  let level = [document];
  for (let depth = 0; depth <= MOST_DEPTH; depth++) {
    level = level.filter((each) => typeof each === "object" && each !== null);
    if (!level.length) return false;
    level = level.flatMap((each) => Object.values(each));
  }
  return true;
}

/** @param {any} value */
export function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A value of any kind, for an error: a text as it is.  @param {any} value */
export function inWords(value) {
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
