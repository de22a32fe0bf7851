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
  ["min_p", [false, 0, 1]],
  ["repetition_penalty", [false, 0.01, 100]],
  ["frequency_penalty", [false, -2, 2]],
  ["presence_penalty", [false, -2, 2]],
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

/** The penalties, and with which value each changes nothing. */
const PENALTIES = { repetition_penalty: 1, frequency_penalty: 0, presence_penalty: 0 };

/**
 * Refuse defaults that a page's engine can't sample with as devices do: it counts tokens of prompt and answer alike.
 *
 * @param {object | null | undefined} generation
 * @param {string} who has them
 */
export function checkPenalties(generation, who) {
  for (const [name, neutral] of Object.entries(PENALTIES)) {
    if ((generation?.[name] ?? neutral) === neutral) continue;
    throw new EdgekitError(
      "unsupported",
      `${who} is sampled with ${name}, which a page's engine counts in another way`,
      "export it without",
    );
  }
}
