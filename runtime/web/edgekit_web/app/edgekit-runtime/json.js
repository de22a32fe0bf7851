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

/** @param {any} value */
export function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A value of any kind, for an error: a text as it is.  @param {any} value */
export function inWords(value) {
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
