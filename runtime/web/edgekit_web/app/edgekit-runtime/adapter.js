/** What a LoRA GGUF says of itself: the same rules as edgekit_runtime.formats.adapter. */

import { checkVersion } from "./changes.js";
import { EdgekitError, shown } from "./errors.js";
import { ADAPTER_METADATA, readGguf } from "./gguf.js";
import { isObject, readJson, tooDeep } from "./json.js";
import { MATRIX_TYPES } from "./matrix-values.js";
import { checkGeneration } from "./sampling-defaults.js";

const NAME = /^[a-z0-9][a-z0-9._-]{0,99}$/;
const ONNX_IDENTIFIER = "TORT";
const ALPHA = "adapter.lora.alpha";
const MAX_ALPHA = 1e6;
const RANK = "edgekit.rank";
const SUFFIX_A = ".lora_a";
const SUFFIX_B = ".lora_b";
export const EMBEDDING = "token_embd.weight";

/**
 * @typedef {object} AdapterFacts
 * @property {string} architecture
 * @property {Map<string, number[]>} pairs the base's tensor -> input width, output width, rank
 * @property {Map<string, [any, any]>} matrices the base's tensor -> A and B in the file
 * @property {string | undefined} name
 * @property {string | undefined} version
 * @property {string | undefined} family
 * @property {string | undefined} system
 * @property {Record<string, unknown> | undefined} generation
 * @property {Record<string, unknown> | undefined} schema
 * @property {Record<string, unknown> | undefined} template_arguments
 */

/**
 * Read an adapter file.
 *
 * @param {Blob} file
 * @param {string} label for messages
 * @returns {Promise<AdapterFacts>}
 */
export async function readAdapter(file, label) {
  if (new TextDecoder().decode(await file.slice(4, 8).arrayBuffer()) === ONNX_IDENTIFIER) {
    throw new EdgekitError("unsupported", `${label} is an adapter for ONNX Runtime`, "export it with --format gguf");
  }
  const gguf = await readGguf(file, label, ADAPTER_METADATA);
  const { metadata } = gguf;
  if (metadata.get("general.type") === "prompt adapter") {
    throw new EdgekitError(
      "unsupported",
      `${label} is a prompt adapter, and this page's engine takes no embeddings`,
      "use a LoRA",
    );
  }
  if (metadata.get("general.type") !== "adapter" || metadata.get("adapter.type") !== "lora") {
    throw new EdgekitError(
      "damaged",
      `${label} is not a LoRA adapter`,
      "give a LoRA GGUF, as `edgekit export` makes it",
    );
  }
  if (metadata.has("adapter.alora.invocation_tokens")) {
    throw new EdgekitError(
      "unsupported",
      `${label} is an activated LoRA, which this page's engine can't switch on`,
      "use a plain LoRA",
    );
  }
  const text = (key) => {
    const value = metadata.get(key);
    if (value !== undefined && typeof value !== "string") throw unsound(label, `${key} is not text`);
    return value;
  };
  checkAlpha(gguf, label);
  const matrices = matricesOf(gguf, label);
  const pairs = new Map([...matrices].map(([target, pair]) => [target, sizesOf(target, pair, label)]));
  const largest = largestRank(pairs);
  const stated = metadata.get(RANK);
  if (stated !== undefined && stated !== largest) {
    throw unsound(label, `${RANK} is ${stated}, and its matrices have rank ${largest}`);
  }
  return {
    architecture: text("general.architecture") ?? "",
    pairs,
    matrices,
    name: text("edgekit.name"),
    version: text("edgekit.version"),
    family: text("edgekit.family"),
    system: text("edgekit.system"),
    generation: defaults(json(text("edgekit.generation"), "edgekit.generation", label), label),
    schema: json(text("edgekit.output_schema"), "edgekit.output_schema", label),
    template_arguments: json(text("edgekit.template_arguments"), "edgekit.template_arguments", label),
  };
}

/**
 * The manifest entry of an adapter file that comes alone.
 *
 * @param {AdapterFacts} facts
 * @param {{family: string, digest: string, label: string, size: number}} file
 * @returns {import("./index.js").AdapterEntry & {size: number}}
 */
export function adapterEntry(facts, { family, digest, label, size }) {
  const stem = label.replace(/^.*[\\/]/, "").replace(/\.gguf$/i, "");
  const name =
    facts.name ??
    stem
      .toLowerCase()
      .replace(/[^a-z0-9._-]+/g, "-")
      .replace(/^[._-]+|[._-]+$/g, "");
  if (!NAME.test(name) || name === "base") {
    throw new EdgekitError("input", `${shown(name)} is no name for an adapter`, "use up to 100 of a-z, 0-9, . _ and -");
  }
  checkVersion(facts.version ?? "0", label);
  return {
    name,
    version: facts.version ?? "0",
    file: label,
    size,
    rank: largestRank(facts.pairs),
    targets: [
      ...new Set(
        [...facts.pairs.keys()].map((each) =>
          each
            .replace(/\.weight$/, "")
            .split(".")
            .pop(),
        ),
      ),
    ].sort(),
    family,
    digest,
    system: facts.system,
    generation: facts.generation,
    schema: facts.schema,
    template_arguments: facts.template_arguments,
    quality: facts.family ? undefined : { verified: false },
  };
}

/** A and B by the tensor that they change; nothing else may be in the file. */
function matricesOf(gguf, label) {
  const found = new Map();
  for (const [name, tensor] of gguf.tensors) {
    if (name.endsWith("_norm.weight")) throw unsound(label, `llama.cpp would leave out its tensor ${name}`);
    if (!name.endsWith(SUFFIX_A) && !name.endsWith(SUFFIX_B))
      throw unsound(label, `tensor ${name} is no half of a LoRA pair`);
    const target = name.slice(0, -SUFFIX_A.length);
    const pair = [SUFFIX_A, SUFFIX_B].map((suffix) => ({
      name: target + suffix,
      ...gguf.tensors.get(target + suffix),
    }));
    const missing = pair.findIndex((half) => !half.shape);
    if (missing >= 0) throw unsound(label, `${target} has no ${"AB"[missing]} matrix`);
    if (!MATRIX_TYPES.includes(tensor.type))
      throw unsound(label, `${name} is stored as ${tensor.type}, and may be ${MATRIX_TYPES.join(", ")}`);
    found.set(target, pair);
  }
  if (!found.size) throw unsound(label, "it holds no LoRA pair");
  return found;
}

/**
 * A is [in, rank] and B is [rank, out] in ggml's order, those of a layer's experts one behind the other.  Of an embedding
 * A is [rank, out]: llama.cpp takes a token's row of it, and what comes in is B's other side.
 */
function sizesOf(target, [a, b], label) {
  const embedding = target.endsWith(EMBEDDING);
  const sound = b.shape.length >= 2 && (a.shape.length === 2 || (a.shape.length === 3 && !embedding));
  if (!sound || String(a.shape.slice(2)) !== String(b.shape.slice(2))) {
    throw unsound(label, `${target} is no pair of matrices: A is [${a.shape}], B is [${b.shape}]`);
  }
  const [inputs, outputs, rank] = embedding
    ? [b.shape[1], a.shape[1], a.shape[0]]
    : [a.shape[0], b.shape[1], a.shape[1]];
  if (rank !== b.shape[0]) throw unsound(label, `the ranks of ${target} differ: A has ${rank}, B has ${b.shape[0]}`);
  return [inputs, outputs, rank];
}

/** llama.cpp aborts over an alpha of another type, and takes 0 for none at all. */
function checkAlpha({ metadata, types }, label) {
  if (!types.has(ALPHA)) throw unsound(label, `it has no ${ALPHA}`);
  if (types.get(ALPHA) !== "F32")
    throw unsound(label, `${ALPHA} is stored as ${types.get(ALPHA)}, and llama.cpp reads F32`);
  const size = Math.abs(metadata.get(ALPHA));
  if (!(size > 0 && size < MAX_ALPHA))
    throw unsound(label, `${ALPHA} is ${metadata.get(ALPHA)}, which is no sensible number`);
}

function largestRank(pairs) {
  return Math.max(...[...pairs.values()].map(([, , rank]) => rank));
}

function json(text, key, label) {
  if (text === undefined) return undefined;
  try {
    const value = readJson(text);
    if (isObject(value) && !tooDeep(value)) return value;
  } catch {
    // told below
  }
  throw unsound(label, `${key} is not a JSON object`);
}

function defaults(generation, label) {
  checkGeneration(generation, `${label} is not a sound adapter`);
  return generation;
}

function unsound(label, problem) {
  return new EdgekitError("damaged", `${label} is not a sound adapter: ${problem}`, "copy or export it again", {
    label,
  });
}
