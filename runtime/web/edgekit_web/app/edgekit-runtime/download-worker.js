/**
 * Brings one file into the page's private file system: from the network, going on where an earlier download stopped,
 * or from a Blob.  The digest is computed as the bytes come; only synchronous access handles, which exist in workers
 * alone, are in every browser.
 *
 * In: {folder, digest, size, url | blob}.  Out: {loaded} as it goes on, then {done} or {failed, message}.
 */

// @ts-ignore: a pinned package, which lies beside the site
import { sha256 } from "../vendor/noble-hashes/sha2.js";
import { hex } from "./hex.js";

const PROGRESS_BYTES = 1024 * 1024;
const REHASH_BYTES = 4 * 1024 * 1024;

self.onmessage = async ({ data }) => {
  let access;
  /** @type {{done?: boolean, failed?: string, message?: string}} */
  let said = { done: true };
  try {
    const handle = await data.folder.getFileHandle(data.digest, { create: true });
    access = await handle.createSyncAccessHandle();
    await bring(access, data);
  } catch (error) {
    said = { failed: error.kind ?? kindOf(error), message: error.message };
  }
  access?.close(); // before anybody hears of it: an open file can't be removed
  self.postMessage(said);
};

async function bring(access, { url, blob, size, digest }) {
  let start = blob ? 0 : access.getSize();
  if (start > size) start = 0;
  let response;
  if (url && start < size) {
    response = await fetch(url, { headers: start ? { Range: `bytes=${start}-` } : {}, cache: "no-store" });
    if (start && response.status === 200) start = 0; // a host without ranges sends all of it
    if (start && response.status === 416) return again(access, { url, blob, size, digest });
    if (!response.ok) throw failure("network", `HTTP ${response.status}`);
  }
  access.truncate(start);
  const hash = sha256.create();
  const buffer = new Uint8Array(REHASH_BYTES);
  for (let at = 0; at < start;) {
    const count = access.read(buffer.subarray(0, Math.min(REHASH_BYTES, start - at)), { at });
    hash.update(buffer.subarray(0, count));
    at += count;
  }
  const body = blob ? blob.stream() : response?.body;
  const end = body ? await write(access, body.getReader(), hash, start, size) : start;
  access.flush();
  if (end < size) throw failure("network", `the connection ended after ${end} of ${size} bytes`);
  const found = hex(hash.digest());
  if (found !== digest) {
    access.truncate(0);
    access.flush();
    throw failure("damaged", `its sha256 is ${found.slice(0, 12)}…`);
  }
}

function again(access, file) {
  access.truncate(0);
  return bring(access, file);
}

async function write(access, reader, hash, start, size) {
  let at = start;
  let told = at;
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      access.flush(); // what has come stays, and the next try goes on there
      throw failure("network", error.message);
    });
    if (done) return at;
    if (at + value.length > size) {
      access.truncate(0);
      throw failure("damaged", `it has more than ${size} bytes`);
    }
    if (access.write(value, { at }) !== value.length) throw failure("quota", "the storage is full");
    hash.update(value);
    at += value.length;
    if (at - told >= PROGRESS_BYTES || at === size) {
      self.postMessage({ loaded: at });
      told = at;
    }
  }
}

function failure(kind, message) {
  return Object.assign(new Error(message), { kind });
}

function kindOf(error) {
  if (error.name === "QuotaExceededError") return "quota";
  if (error.name === "NoModificationAllowedError") return "busy";
  return error instanceof TypeError ? "network" : "storage"; // what fetch throws is a TypeError
}
