/** Making elements; texts of others are always texts in them. */

import { say } from "./strings.js";

const LONGEST_WORD = 250; // characters; browsers take seconds to lay out some ten thousand that have no place to break

/** @param {string} address */
export function picture(address) {
  const made = element("img", undefined, "photo");
  made.alt = say("photo");
  made.src = address;
  return made;
}

export function element(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined) write(made, text);
  if (name) made.className = name;
  return made;
}

/**
 * Add text to an element, with places to break in words that go on and on.
 *
 * @param {Element} place
 * @param {string} text
 * @param {number} [run] characters since the last such place, of what stands there already
 * @returns {number} the same, with the text
 */
export function write(place, text, run = 0) {
  let begun = 0;
  for (let at = 0; at < text.length; at += 1) {
    run = /\s/.test(text[at]) ? 0 : run + 1;
    const half = (text.charCodeAt(at) & 0xfc00) === 0xd800; // of a character
    if (run < LONGEST_WORD || half) continue;
    place.append(text.slice(begun, at + 1), document.createElement("wbr"));
    begun = at + 1;
    run = 0;
  }
  place.append(text.slice(begun));
  return run;
}
