/** The one way in for adapter files: the same rules as edgekit_runtime.intake.adapters. */

import { EMBEDDING, readAdapter } from "./adapter.js";
import { EdgekitError } from "./errors.js";
import { checkValues } from "./matrix-values.js";
import { checkPenalties } from "./sampling-defaults.js";

const OUTPUT = "output.weight"; // a base without it uses the embedding in its place

/**
 * Read an adapter file that comes new, and check all that can be known of it without an engine.
 *
 * @param {Blob} file
 * @param {string} label for messages
 * @param {import("./gguf.js").GgufHeader} base
 * @param {string} family of the base
 * @returns {Promise<import("./adapter.js").AdapterFacts>}
 */
export async function takeIn(file, label, base, family) {
  const facts = await readAdapter(file, label);
  checkFits(facts, label, base, family);
  await checkValues(file, label, facts.matrices.values());
  return facts;
}

/**
 * Check that an adapter belongs to a base.
 *
 * @param {import("./adapter.js").AdapterFacts} facts
 * @param {string} label of the adapter, for messages
 * @param {import("./gguf.js").GgufHeader} base
 * @param {string} family of the base
 */
function checkFits(facts, label, base, family) {
  const mend = "use the adapter with its own base";
  if (facts.family && facts.family !== family) {
    throw new EdgekitError(
      "family",
      `${label} was trained for the base ${facts.family}, and this base is ${family}`,
      mend,
      { label, theirs: facts.family, ours: family },
    );
  }
  const architecture = base.metadata.get("general.architecture");
  if (facts.architecture !== architecture) {
    throw new EdgekitError(
      "family",
      `${label} is for the architecture ${facts.architecture}, and the base is ${architecture}`,
      mend,
      { label, theirs: facts.architecture, ours: architecture },
    );
  }
  for (const [name, [inputs, outputs]] of facts.pairs) {
    const shape = base.tensors.get(name)?.shape ?? [];
    const wanted = [inputs, outputs, ...facts.matrices.get(name)[0].shape.slice(2)];
    if (String(shape) !== String(wanted)) {
      throw new EdgekitError(
        "family",
        `${label} changes ${name} as [${wanted}], which the base has as [${shape}]`,
        mend,
        { label, theirs: `${name} [${wanted}]`, ours: `[${shape}]` },
      );
    }
  }
  checkPenalties(facts.generation, label);
  if (facts.pairs.has(EMBEDDING) && !base.tensors.has(OUTPUT)) {
    throw new EdgekitError(
      "unsupported",
      `${label} changes ${EMBEDDING}, which is this base's output matrix too, and llama.cpp can't do that`,
      "train it without embed_tokens, or merge it into the base",
    );
  }
}
