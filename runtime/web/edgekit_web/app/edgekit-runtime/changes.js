/**
 * What becomes of a generation when something is installed, activated or removed: the same rules as on other devices
 * (edgekit_runtime.store.transitions).  Nothing here touches storage.
 *
 * @typedef {import("./index.js").Manifest} Manifest
 * @typedef {import("./index.js").AdapterEntry} AdapterEntry
 * @typedef {object} Generation
 * @property {number} number counts up; never used twice
 * @property {number | null} parent the generation that this one was made from, where a rollback leads
 * @property {string} created ISO 8601, UTC
 * @property {Manifest} manifest base and active adapters
 * @property {AdapterEntry[]} installed every adapter version that can be activated
 */

import { EdgekitError, shown } from "./errors.js";

const VERSION = /^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$/;

/** Refuse what is no version: it gets into names and comparisons.  @param {any} version @param {string} where */
export function checkVersion(version, where) {
  if (typeof version === "string" && VERSION.test(version)) return;
  throw new EdgekitError(
    "input",
    `${where}: ${shown(String(version))} is no version`,
    "use up to 64 letters, digits, . _ + and -",
  );
}

/** Order of versions: numbers as numbers, 1.10 after 1.9, 1.0 after 1.0-rc1.  @returns {number} below 0 when `a` is older */
export function compareVersions(a, b) {
  const parts = (version) => version.match(/\d+|[A-Za-z]+/g) ?? [];
  const [one, other] = [parts(a), parts(b)];
  for (let i = 0; i < Math.max(one.length, other.length); i++) {
    const [x, y] = [one[i], other[i]].map((part) =>
      part === undefined ? [1, -1] : /^\d/.test(part) ? [1, BigInt(part)] : [0, part],
    );
    if (x[0] !== y[0]) return x[0] < y[0] ? -1 : 1;
    if (x[1] !== y[1]) return x[1] < y[1] ? -1 : 1;
  }
  return 0;
}

/**
 * The bundle's base and adapters; of the earlier adapters those of the same family stay.
 *
 * @param {Generation | undefined} old
 * @param {Manifest} manifest
 * @throws EdgekitError the bundle, or an adapter in it, is older than the one that is active
 */
export function withBundle(old, manifest, { allowDowngrade = false } = {}) {
  if (old && !allowDowngrade) checkNewer(manifest.name, manifest.version, old.manifest.version);
  const kept = (old?.installed ?? []).filter((entry) => entry.family === manifest.base.family);
  for (const entry of allowDowngrade ? [] : manifest.adapters) checkNoOlder(entry, old?.manifest.adapters ?? [], kept);
  const names = [...manifest.adapters, ...(manifest.stacks ?? [])].map((entry) => entry.name);
  const digests = manifest.adapters.map((entry) => entry.digest);
  const still = (old?.manifest.adapters ?? []).filter(
    (entry) => !names.includes(entry.name) && kept.some((each) => each.digest === entry.digest),
  );
  return {
    manifest: withAdapters(manifest, [...manifest.adapters, ...still]),
    installed: [...kept.filter((entry) => !digests.includes(entry.digest)), ...manifest.adapters],
  };
}

/** One more adapter, active in the place of the earlier one of its name.  @param {Generation} old */
export function withAdapter(old, entry, { allowDowngrade = false } = {}) {
  if (!allowDowngrade) checkNoOlder(entry, old.manifest.adapters, old.installed);
  const others = old.installed.filter(
    (each) => each.digest !== entry.digest && !(each.name === entry.name && each.version === entry.version),
  );
  return withActive({ ...old, installed: [...others, entry] }, entry);
}

/** An installed adapter version, active.  @param {Generation} old */
export function withActive(old, entry) {
  if (old.manifest.stacks?.some((stack) => stack.name === entry.name)) {
    const problem = `${entry.name} is a stack of ${old.manifest.name}`;
    throw new EdgekitError("input", problem, "give the adapter another name");
  }
  const adapters = old.manifest.adapters.map((each) => (each.name === entry.name ? entry : each));
  if (!adapters.includes(entry)) adapters.push(entry);
  return { manifest: withAdapters(old.manifest, adapters), installed: old.installed };
}

/** All versions of an adapter out, or one.  @param {Generation} old */
export function without(old, name, version) {
  const gone = old.installed.filter(
    (each) => each.name === name && (version === undefined || each.version === version),
  );
  if (!gone.length) throw notInstalled(old, name, version);
  const stays = (entry) => !gone.some((each) => each.digest === entry.digest);
  return {
    manifest: withAdapters(old.manifest, old.manifest.adapters.filter(stays)),
    installed: old.installed.filter(stays),
  };
}

/** A version of an adapter, the newest when none is named.  @param {Generation} generation */
export function findInstalled(generation, name, version) {
  const found = generation.installed.filter(
    (each) => each.name === name && (version === undefined || each.version === version),
  );
  if (!found.length) throw notInstalled(generation, name, version);
  return found.reduce((a, b) => (compareVersions(a.version, b.version) < 0 ? b : a));
}

/** Digests of the files that a generation needs.  @param {Generation} generation @returns {Set<string>} */
export function digestsOf(generation) {
  const { digest, projector_digest: projector } = generation.manifest.base;
  return new Set([digest, ...(projector ? [projector] : []), ...generation.installed.map((entry) => entry.digest)]);
}

/** An adapter is no older than the active one of its name, of those that stay. */
function checkNoOlder(entry, actives, kept) {
  const active = actives.find((each) => each.name === entry.name && kept.some((one) => one.digest === each.digest));
  if (active) checkNewer(entry.name, entry.version, active.version);
}

function checkNewer(name, version, active) {
  if (compareVersions(version, active) >= 0) return;
  throw new EdgekitError(
    "input",
    `${name} ${version} is older than ${active}, which is active`,
    "roll back, or allow the downgrade",
    { name, version, active },
  );
}

function withAdapters(manifest, adapters) {
  const kept = [...adapters, ...(manifest.stacks ?? [])].some((entry) => entry.name === manifest.default_adapter);
  return { ...manifest, adapters, default_adapter: kept ? manifest.default_adapter : null };
}

function notInstalled(generation, name, version) {
  const there = generation.installed.map((entry) => `${entry.name} ${entry.version}`).join(", ") || "none";
  return new EdgekitError(
    "input",
    `adapter ${name}${version ? ` ${version}` : ""} is not installed`,
    `installed: ${there}`,
  );
}
