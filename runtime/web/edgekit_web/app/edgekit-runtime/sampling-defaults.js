/** `generation` of a base or an adapter, checked where it is read: the same rules as edgekit_runtime.formats.sampling_defaults. */

import { EdgekitError, shown } from "./errors.js";
import { inWords } from "./json.js";

const MOST = 2 ** 31 - 1;
const HOTTEST = 1000; // far beyond where all tokens are as likely
/** Name -> whether it is a whole number, least, most. */
const RULES = new Map([
  ["max_tokens", [true, 1, MOST]],
  ["temperature", [false, 0, HOTTEST]],
  ["top_k", [true, 0, MOST]],
  ["top_p", [false, 0, 1]],
]);

/**
 * Check sampling defaults; names that a later version may add are left alone.
 *
 * @param {object | null | undefined} generation from a manifest or an adapter's metadata; none is good
 * @param {string} where names it in errors
 */
export function checkGeneration(generation, where) {
  for (const [name, value] of Object.entries(generation ?? {})) {
    if (!RULES.has(name) || value === null) continue;
    const [whole, least, most] = RULES.get(name);
    if ((whole ? Number.isInteger(value) : typeof value === "number") && value >= least && value <= most) continue;
    throw new EdgekitError(
      "damaged",
      `${where}: generation.${name} is ${shown(inWords(value))}`,
      `export it with ${whole ? "a whole number" : "a number"} from ${least} to ${most}`,
      { label: where },
    );
  }
}
