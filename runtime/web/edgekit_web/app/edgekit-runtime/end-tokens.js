/** Tokens that end an answer beside those that llama.cpp finds by itself: as in the device runtime's `end_tokens`. */

import { EdgekitError } from "./errors.js";
import { readJson } from "./json.js";

/**
 * Texts of a base's end tokens.
 *
 * @param {Map<string, any>} metadata
 * @returns {string[]}
 */
export function endTokens(metadata) {
  const written = metadata.get("edgekit.end_tokens");
  if (written === undefined) return [];
  const tokens = metadata.get("tokenizer.ggml.tokens");
  const ids = list(written);
  if (!ids?.every((id) => Number.isInteger(id) && id >= 0 && id < (tokens?.length ?? 0))) {
    throw new EdgekitError("damaged", "edgekit.end_tokens is no list of token ids", "copy or export the base again");
  }
  return ids.map((id) => tokens.at(id));
}

function list(written) {
  try {
    const found = readJson(written);
    return Array.isArray(found) ? found : null;
  } catch {
    return null;
  }
}
