/** What a LoRA GGUF says of itself, and whether it fits a base: the same rules as edgekit_runtime.adapter. */

import { EdgekitError } from "./errors.js";
import { readGguf } from "./gguf.js";

const NAME = /^[a-z0-9][a-z0-9._-]*$/;
const ONNX_IDENTIFIER = "TORT";
const FLOATS = ["F32", "F16", "BF16", "Q8_0"];
const EMBEDDING = "token_embd.weight"; // llama.cpp stores its A transposed

/**
 * @typedef {object} AdapterFacts
 * @property {string} architecture
 * @property {Map<string, [number, number, number]>} pairs the base's tensor -> input width, output width, rank
 * @property {string | undefined} name
 * @property {string | undefined} version
 * @property {string | undefined} family
 * @property {string | undefined} system
 * @property {object | undefined} generation
 * @property {object | undefined} schema
 * @property {object | undefined} template_arguments
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
  const gguf = await readGguf(file, label);
  const { metadata } = gguf;
  if (metadata.get("general.type") !== "adapter" || metadata.get("adapter.type") !== "lora") {
    throw new EdgekitError("damaged", `${label} is not a LoRA adapter`, "give a LoRA GGUF, as `edgekit export` makes it");
  }
  if (metadata.has("adapter.alora.invocation_tokens")) {
    throw new EdgekitError("unsupported", `${label} is an activated LoRA, which this page's engine can't switch on`, "use a plain LoRA");
  }
  const text = (key) => {
    const value = metadata.get(key);
    if (value !== undefined && typeof value !== "string") throw unsound(label, `${key} is not text`);
    return value;
  };
  return {
    architecture: text("general.architecture") ?? "",
    pairs: pairsOf(gguf, label),
    name: text("edgekit.name"),
    version: text("edgekit.version"),
    family: text("edgekit.family"),
    system: text("edgekit.system"),
    generation: json(text("edgekit.generation"), "edgekit.generation", label),
    schema: json(text("edgekit.output_schema"), "edgekit.output_schema", label),
    template_arguments: json(text("edgekit.template_arguments"), "edgekit.template_arguments", label),
  };
}

/**
 * Check that an adapter belongs to a base.
 *
 * @param {AdapterFacts} facts
 * @param {string} label of the adapter, for messages
 * @param {import("./gguf.js").GgufHeader} base
 * @param {string} family of the base
 */
export function checkFits(facts, label, base, family) {
  const mend = "use the adapter with its own base";
  if (facts.family && facts.family !== family) {
    throw new EdgekitError(
      "family", `${label} was trained for the base ${facts.family}, and this base is ${family}`, mend,
      { label, theirs: facts.family, ours: family },
    );
  }
  const architecture = base.metadata.get("general.architecture");
  if (facts.architecture !== architecture) {
    throw new EdgekitError(
      "family", `${label} is for the architecture ${facts.architecture}, and the base is ${architecture}`, mend,
      { label, theirs: facts.architecture, ours: architecture },
    );
  }
  for (const [name, [inputs, outputs]] of facts.pairs) {
    const shape = base.tensors.get(name)?.shape ?? [];
    if (shape.length !== 2 || shape[0] !== inputs || shape[1] !== outputs) {
      throw new EdgekitError(
        "family", `${label} changes ${name} as [${inputs}, ${outputs}], which the base has as [${shape}]`, mend,
        { label, theirs: `${name} [${inputs}, ${outputs}]`, ours: `[${shape}]` },
      );
    }
  }
}

/**
 * The manifest entry of an adapter file that comes alone.
 *
 * @param {AdapterFacts} facts
 * @param {{family: string, digest: string, label: string, size: number}} file
 * @returns {import("./index.js").AdapterEntry}
 */
export function adapterEntry(facts, { family, digest, label, size }) {
  const stem = label.replace(/^.*[\\/]/, "").replace(/\.gguf$/i, "");
  const name = facts.name ?? stem.toLowerCase().replace(/[^a-z0-9._-]+/g, "-").replace(/^[._-]+|[._-]+$/g, "");
  if (!NAME.test(name) || name === "base") {
    throw new EdgekitError("input", `${name} is no name for an adapter`, "use a-z, 0-9, . _ and -");
  }
  return {
    name,
    version: facts.version ?? "0",
    file: label,
    size,
    rank: Math.max(...[...facts.pairs.values()].map(([, , rank]) => rank)),
    targets: [...new Set([...facts.pairs.keys()].map((each) => each.replace(/\.weight$/, "").split(".").pop()))].sort(),
    family,
    digest,
    system: facts.system,
    generation: facts.generation,
    schema: facts.schema,
    template_arguments: facts.template_arguments,
    quality: facts.family ? undefined : { verified: false },
  };
}

/** A is [in, rank] and B is [rank, out] in ggml's order. */
function pairsOf(gguf, label) {
  const pairs = new Map();
  for (const [name, a] of gguf.tensors) {
    if (name.endsWith(".lora_b") && gguf.tensors.has(`${name.slice(0, -1)}a`)) continue;
    if (!name.endsWith(".lora_a")) throw unsound(label, `tensor ${name} is no half of a LoRA pair`);
    const target = name.slice(0, -".lora_a".length);
    const b = gguf.tensors.get(`${target}.lora_b`);
    if (!b) throw unsound(label, `${target} has no B matrix`);
    if (!FLOATS.includes(a.type) || !FLOATS.includes(b.type)) throw unsound(label, `${target} is stored as ${a.type}`);
    if (a.shape.length !== 2 || b.shape.length !== 2) throw unsound(label, `${target} is no pair of matrices`);
    const [inputs, rank] = target === EMBEDDING ? [...a.shape].reverse() : a.shape;
    if (rank !== b.shape[0]) throw unsound(label, `the ranks of ${target} differ`);
    pairs.set(target, [inputs, b.shape[1], rank]);
  }
  if (!pairs.size) throw unsound(label, "it holds no LoRA pair");
  return pairs;
}

function json(text, key, label) {
  if (text === undefined) return undefined;
  try {
    const value = JSON.parse(text);
    if (value && typeof value === "object" && !Array.isArray(value)) return value;
  } catch {
    // told below
  }
  throw unsound(label, `${key} is not a JSON object`);
}

function unsound(label, problem) {
  return new EdgekitError("damaged", `${label} is not a sound adapter: ${problem}`, "copy or export it again", { label });
}
