/** manifest.json of a bundle (schema edgekit.bundle/1): what a page needs of it, checked. */

import { checkVersion } from "./changes.js";
import { EdgekitError } from "./errors.js";

const BUNDLE_SCHEMA = "edgekit.bundle/1";
const DIGEST = /^[0-9a-f]{64}$/;
const TASKS = ["text", "caption"];
const NAME = /^[a-z0-9][a-z0-9._-]{0,99}$/;

/**
 * @param {Uint8Array} bytes
 * @returns {import("./index.js").Manifest}
 */
export function parseManifest(bytes) {
  let manifest;
  try {
    manifest = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw malformed(`it is not JSON (${error.message})`);
  }
  if (manifest?.schema !== BUNDLE_SCHEMA) {
    throw new EdgekitError(
      "input", `manifest.json has schema ${manifest?.schema}, not ${BUNDLE_SCHEMA}`, "update the site, or export again",
    );
  }
  if (manifest.engine !== "llama.cpp") {
    throw new EdgekitError("unsupported", `browsers can't run ${manifest.engine} bundles`, "export with --format gguf");
  }
  if (!TASKS.includes(manifest.task)) {
    throw new EdgekitError("unsupported", `this page can't run bundles for ${manifest.task}`, "update the site");
  }
  const { base, adapters, files } = manifest;
  if (!base || !Array.isArray(adapters) || !Array.isArray(files)) throw malformed("base, adapters or files are missing");
  for (const { version } of [manifest, ...adapters]) checkVersion(version, "the bundle's manifest");
  const known = new Map();
  for (const file of files) {
    if (!isSafePath(file?.path) || known.has(file.path)) throw malformed(`the path ${file?.path} leaves it or stands twice`);
    if (!DIGEST.test(file.sha256) || !Number.isSafeInteger(file.size) || file.size < 0) {
      throw malformed(`size or sha256 of ${file.path} is malformed`);
    }
    known.set(file.path, file);
  }
  for (const entry of [base, ...adapters]) {
    if (known.get(entry.file)?.sha256 !== entry.digest) throw malformed(`${entry.file} contradicts its files`);
    if (typeof entry.family !== "string") throw malformed(`${entry.file} has no family`);
  }
  if ((manifest.task === "caption") !== (base.projector != null)) throw malformed("captions, and they alone, need a projector");
  if (base.projector != null && known.get(base.projector)?.sha256 !== base.projector_digest) {
    throw malformed(`${base.projector} contradicts its files`);
  }
  const names = adapters.map((entry) => entry.name);
  if (new Set(names).size !== names.length || !names.every((name) => NAME.test(name))) {
    throw malformed("an adapter's name stands twice or is none");
  }
  if (adapters.some((entry) => entry.family !== base.family)) throw malformed("an adapter is for another base");
  if (manifest.default_adapter != null && !names.includes(manifest.default_adapter)) {
    throw malformed(`default_adapter ${manifest.default_adapter} is not in it`);
  }
  return manifest;
}

/** The files of a bundle that a page runs.  @param {import("./index.js").Manifest} manifest */
export function neededFiles({ base, adapters, files }) {
  const paths = [base.file, base.projector, ...adapters.map((entry) => entry.file)];
  return files.filter((file) => paths.includes(file.path));
}

function isSafePath(path) {
  return typeof path === "string" && path !== "" && !/[\\:\0]/.test(path)
    && path.split("/").every((part) => part !== "" && part !== "." && part !== "..");
}

function malformed(problem) {
  return new EdgekitError("damaged", `the bundle's manifest is malformed: ${problem}`, "export or copy the bundle again");
}
