/** manifest.json of a bundle (schema edgekit.bundle/1): the same rules as edgekit_runtime.formats.manifest. */

import { checkVersion } from "./changes.js";
import { EdgekitError, isPrintable, shown } from "./errors.js";
import { MOST_DEPTH, inWords, isObject, readJson, tooDeep } from "./json.js";
import { checkGeneration } from "./sampling-defaults.js";

const BUNDLE_SCHEMA = "edgekit.bundle/1";
const ENGINES = ["llama.cpp", "onnxruntime-genai"];
const TASKS = ["text", "caption"];
const GATES = ["passed", "failed", "skipped"];
const F16 = "f16";
const KV_CACHES = [F16, "q8_0-f16", "q8_0", "q4_0"];
const OWN = ["manifest.json", "manifest.sig"];
const DIGEST = /^[0-9a-f]{64}$/;
const NAME = /^[a-z0-9][a-z0-9._-]{0,99}$/;
const MAX_WORD = 256; // signs of what is one line: names, types, dates
const [MAX_DEPTH, MAX_PATH, MAX_PART] = [16, 1000, 255]; // of a path: parts, bytes, bytes of a part
const [MOST_ADAPTERS, LARGEST_SCALE] = [16, 2]; // of a stack
const NAME_MEND = "use up to 100 of a-z, 0-9, . _ and -";

/**
 * @param {Uint8Array} bytes
 * @param {string} [where] names it in errors
 * @returns {import("./index.js").Manifest} of the fields that are known, and no others
 */
export function parseManifest(bytes, where = "the bundle's manifest") {
  let document;
  try {
    document = readJson(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw malformed(`${where} is not JSON (${error.message})`);
  }
  if (tooDeep(document)) throw malformed(`${where} has more than ${MOST_DEPTH} objects in each other`);
  const schema = isObject(document) ? (document.schema ?? null) : null;
  if (schema !== BUNDLE_SCHEMA) {
    throw new EdgekitError(
      "input",
      `${where} has schema ${shown(inWords(schema))}, not ${BUNDLE_SCHEMA}`,
      "update the site, or export again",
    );
  }
  const manifest = MANIFEST(document, where);
  manifest.default_adapter ??= null;
  check(manifest, where);
  if (manifest.engine !== "llama.cpp") {
    throw new EdgekitError("unsupported", `browsers can't run ${manifest.engine} bundles`, "export with --format gguf");
  }
  if (manifest.adapters.some((entry) => entry.family !== manifest.base.family)) {
    throw malformed(`${where}: an adapter is for another base`);
  }
  return manifest;
}

/** The files of a bundle that a page runs.  @param {import("./index.js").Manifest} manifest */
export function neededFiles({ base, adapters, files }) {
  const paths = [base.file, base.projector, ...adapters.map((entry) => entry.file)];
  return files.filter((file) => paths.includes(file.path));
}

/** @typedef {((value: any, place: string) => any) & {standard?: () => any}} Kind what a field has to be; gives it as it is kept */

/** @returns {Kind} */
const plain = (good, word) => (value, place) => {
  if (!good(value)) throw malformed(`${place} has to be ${word}`);
  return value;
};
const text = plain((value) => typeof value === "string", "text");
const number = plain((value) => typeof value === "number", "a number");
const whole = plain((value) => Number.isSafeInteger(value) && value >= 0, "a whole number");
const object = plain(isObject, "an object");

/** A field that may be missing.  @param {Kind} kind @param {() => any} [standard] @returns {Kind} */
const optional = (kind, standard = () => undefined) =>
  Object.assign((value, place) => kind(value, place), { standard });

/** One that may be null too, which is the same.  @param {Kind} kind */
const maybe = (kind) => optional((value, place) => (value === null ? undefined : kind(value, place)));

/** @param {Kind} kind @returns {Kind} */
const many = (kind) => (value, place) => {
  if (!Array.isArray(value)) throw malformed(`${place} has to be a list`);
  return value.map((each, index) => kind(each, `${place}[${index}]`));
};

/** @param {Record<string, Kind>} fields @returns {Kind} */
const record = (fields) => (value, place) => {
  if (!isObject(value)) throw malformed(`${place} has to be an object`);
  const made = {};
  for (const [name, kind] of Object.entries(fields)) {
    const given = Object.hasOwn(value, name);
    if (!given && !kind.standard) throw malformed(`${place}: ${name} is missing`);
    const kept = given ? kind(value[name], `${place}: ${name}`) : kind.standard();
    if (kept !== undefined) made[name] = kept;
  }
  return made;
};

const WORDS = {
  system: maybe(text),
  generation: maybe(object),
  schema: maybe(object),
  template_arguments: maybe(object),
};
const BASE = record({
  file: text,
  architecture: text,
  parameters: whole,
  quantization: text,
  context: whole,
  family: text,
  digest: text,
  projector: maybe(text),
  projector_digest: maybe(text),
  merged: optional(many(text), () => []),
  ...WORDS,
  parts: optional(many(record({ name: text, file: text, digest: text })), () => []),
  requantized_from: maybe(text),
  kv_cache: maybe(text),
});
const ADAPTER = record({
  name: text,
  version: text,
  file: text,
  rank: whole,
  targets: many(text),
  family: text,
  digest: text,
  ...WORDS,
  quality: maybe(object),
});
const STACK = record({
  name: text,
  adapters: many(record({ name: text, scale: number, digest: text })),
  ...WORDS,
  quality: maybe(object),
});
const MANIFEST = record({
  schema: text,
  name: text,
  version: text,
  created: text,
  engine: text,
  task: text,
  base: BASE,
  adapters: many(ADAPTER),
  default_adapter: maybe(text),
  files: many(record({ path: text, size: whole, sha256: text })),
  requires: record({ runtime: text, memory_mb: whole, isa: text }),
  quality: optional(object, () => ({})),
  stacks: optional(many(STACK), () => []),
});

/** What types alone don't say: safe paths, known words, references that hold. */
function check(manifest, where) {
  const {
    base,
    adapters,
    engine,
    task,
    quality: { gate = "skipped" },
  } = manifest;
  const files = new Map(manifest.files.map((file) => [file.path, file]));
  const names = adapters.map((entry) => entry.name);
  const cache = base.kv_cache ?? F16;
  for (const [good, problem] of [
    [ENGINES.includes(engine), `engine ${shown(engine)} is none of ${ENGINES.join(", ")}`],
    [TASKS.includes(task), `task ${shown(task)} is none of ${TASKS.join(", ")}`],
    [GATES.includes(gate), `quality.gate ${shown(inWords(gate))} is none of ${GATES.join(", ")}`],
    [KV_CACHES.includes(cache), `base.kv_cache ${shown(cache)} is none of ${KV_CACHES.join(", ")}`],
    [cache === F16 || engine === ENGINES[0], `${engine} has no KV cache of ${cache}`],
    [files.size === manifest.files.length, "a file is listed twice"],
    [new Set(names).size === names.length, "an adapter is listed twice"],
    [[...files.keys()].every(isSafePath), "a path leaves the bundle, or is no name that a file can have everywhere"],
    [!OWN.some((name) => files.has(name)), "it lists itself"],
    [![...files.keys()].some((path) => folders(path).some((each) => files.has(each))), "a file lies in another file"],
    [manifest.files.every((file) => DIGEST.test(file.sha256)), "a sha256 is malformed"],
    [(task === "caption") === (base.projector !== undefined), "a projector is there for captions, and for them alone"],
    [
      [null, ...names, ...manifest.stacks.map((stack) => stack.name)].includes(manifest.default_adapter),
      `default_adapter ${shown(inWords(manifest.default_adapter))} is not in it`,
    ],
  ])
    if (!good) throw malformed(`${where}: ${problem}`);
  checkVersion(manifest.version, where);
  for (const [name, line] of lines(manifest)) {
    if (!isWord(line)) throw malformed(`${where}: ${name} is ${shown(line)}, which is no single line of text`);
  }
  checkGeneration(base.generation, `${where}: base`);
  for (const entry of adapters) checkAdapter(entry, where);
  for (const { name } of base.parts) {
    if (name.includes("/") || !isSafePath(name))
      throw malformed(`${where}: ${shown(name)} is no name for a part of the base`);
  }
  const needed = [base, ...base.parts, ...adapters, { file: base.projector, digest: base.projector_digest }];
  for (const { file, digest } of needed.filter((each) => each.file !== undefined)) {
    if (!files.has(file)) throw malformed(`${where}: ${file} is not among its files`);
    if (files.get(file).sha256 !== digest) throw malformed(`${where}: the digest of ${file} contradicts its sha256`);
  }
  checkStacks(manifest, where);
}

/** What stacks say of adapters.  @param {import("./index.js").Manifest} manifest @param {string} where */
function checkStacks({ stacks, adapters }, where) {
  const taken = new Set(["base", ...adapters.map((entry) => entry.name)]);
  for (const stack of stacks) {
    const { name, generation } = stack;
    if (!NAME.test(name)) throw malformed(`${where}: ${shown(name)} is no name for a stack`, NAME_MEND);
    if (taken.has(name)) throw malformed(`${where}: the name of the stack ${name} is taken`);
    taken.add(name);
    const problem = stackProblem(stack, adapters);
    if (problem) throw malformed(`${where}: stack ${name}: ${problem}`);
    checkGeneration(generation, `${where}: stack ${name}`);
  }
}

/** What is wrong with the parts of a stack; undefined where nothing is. */
function stackProblem({ adapters: parts }, adapters) {
  const names = new Set(parts.map((part) => part.name));
  if (names.size < parts.length) return "an adapter is named twice";
  if (!parts.length || parts.length > MOST_ADAPTERS) {
    return `it has ${parts.length} adapters, and 1 to ${MOST_ADAPTERS} are possible`;
  }
  const wrong = parts.find(({ scale }) => !(scale > 0 && scale <= LARGEST_SCALE));
  if (wrong) return `the scale of ${shown(wrong.name)} has to be over 0 and at most ${LARGEST_SCALE}`;
  const [gone] = lacking(parts, adapters);
  return gone && `the bundle has no adapter ${shown(gone.name)} as the stack needs it`;
}

/**
 * The parts of a stack that are not among ``adapters`` as it was proven with them.
 *
 * @param {{name: string, digest: string}[]} parts
 * @param {{name: string, digest: string}[]} adapters
 */
export function lacking(parts, adapters) {
  return parts.filter(({ name, digest }) => !adapters.some((each) => each.name === name && each.digest === digest));
}

function checkAdapter({ name, version, family, targets, generation }, where) {
  if (!NAME.test(name)) throw malformed(`${where}: ${shown(name)} is no name for an adapter`, NAME_MEND);
  checkVersion(version, where);
  if (![family, ...targets].every(isWord)) {
    throw malformed(`${where}: adapter ${name}: family and targets have to be lines of text`);
  }
  checkGeneration(generation, `${where}: adapter ${name}`);
}

/** What is one line in a manifest, but for adapters. */
function lines({ name, created, base, requires }) {
  return [
    ["name", name],
    ["created", created],
    ["base.architecture", base.architecture],
    ["base.quantization", base.quantization],
    ["base.family", base.family],
    ...base.merged.map((each) => ["base.merged", each]),
    ["requires.runtime", requires.runtime],
    ["requires.isa", requires.isa],
  ];
}

/** Whether a text is one short line that can be seen. */
function isWord(line) {
  return line.length <= 2 * MAX_WORD && [...line].length <= MAX_WORD && isPrintable(line);
}

function folders(path) {
  return path
    .split("/")
    .slice(0, -1)
    .map((_, index, parts) => parts.slice(0, index + 1).join("/"));
}

/** Whether a path is relative, stays inside, can be made, and means the same on every system. */
function isSafePath(path) {
  if (path.length > MAX_PATH || !isPrintable(path) || bytes(path) > MAX_PATH || /[\\:\0]/.test(path)) return false;
  const parts = path.split("/");
  return parts.length <= MAX_DEPTH && parts.every((part) => !["", ".", ".."].includes(part) && bytes(part) <= MAX_PART);
}

function bytes(path) {
  return new TextEncoder().encode(path).length;
}

function malformed(problem, mend = "export or copy the bundle again") {
  return new EdgekitError("damaged", problem, mend, { label: "manifest.json" });
}
