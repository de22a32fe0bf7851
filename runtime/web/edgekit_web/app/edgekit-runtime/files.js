/** Getting files into the store: downloads and local files, with progress, digests and clear failures. */

import { EdgekitError } from "./errors.js";

/** @typedef {{path: string, size: number, sha256: string}} FileEntry */

const SPARE_BYTES = 16 * 1024 * 1024; // what IndexedDB and the app's own files may still take

/**
 * Download what the store lacks.
 *
 * @param {import("./store.js").Store} store
 * @param {FileEntry[]} files
 * @param {URL} folder that their paths are relative to
 * @param {{onProgress?: (progress: import("./index.js").Progress) => void, signal?: AbortSignal}} options
 */
export async function download(store, files, folder, { onProgress, signal } = {}) {
  const missing = [];
  for (const file of files) if (!(await store.has(file.sha256))) missing.push(file);
  if (!missing.length) return;
  const partial = await Promise.all(missing.map((file) => store.partial(file.sha256)));
  const total = missing.reduce((sum, file) => sum + file.size, 0);
  await checkRoom(total - partial.reduce((sum, size) => sum + size, 0));
  let before = 0;
  for (const file of missing) {
    const report = (loaded) => onProgress?.({ stage: "download", loaded: before + loaded, total, file: file.path });
    await bring(store, { ...file, url: new URL(encodeURI(file.path), folder).href }, { report, signal });
    before += file.size;
  }
}

/**
 * Put one file into the store.  When the browser has no room for it after all, what no generation needs goes.
 *
 * @param {import("./store.js").Store} store
 * @param {FileEntry & {url?: string, blob?: Blob}} file
 * @param {{report?: (loaded: number) => void, signal?: AbortSignal}} options
 */
export async function bring(store, file, { report, signal } = {}) {
  signal?.throwIfAborted();
  const worker = new Worker(new URL("./download-worker.js", import.meta.url), { type: "module" });
  try {
    await new Promise((resolve, reject) => {
      signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
      worker.onerror = (event) => reject(new EdgekitError("storage", `the download can't start (${event.message})`));
      worker.onmessage = ({ data }) => {
        if (data.loaded) report?.(data.loaded);
        else if (data.done) resolve(undefined);
        else reject(explained(data.failed, data.message, file));
      };
      worker.postMessage({
        folder: store.folder,
        digest: file.sha256,
        size: file.size,
        url: file.url,
        blob: file.blob,
      });
    });
  } catch (error) {
    if (error.code === "quota") await store.collect(); // half a bundle would only keep the storage full
    throw error;
  } finally {
    worker.terminate();
  }
  await store.note(file.sha256, file.size);
}

/**
 * A response's content, of which no more is read than there may be.
 *
 * @param {Response} response
 * @param {number} most bytes
 * @param {string} name for messages
 * @returns {Promise<Blob>}
 */
export async function readAtMost(response, most, name) {
  const parts = [];
  let left = most;
  for (const reader = response.body?.getReader(); reader;) {
    const { value, done } = await reader.read();
    if (done) break;
    left -= value.length;
    if (left < 0) {
      void reader.cancel().catch(() => undefined);
      throw new EdgekitError("input", `${name} has more than ${most} bytes`, "check what lies there", { file: name });
    }
    parts.push(value);
  }
  return new Blob(parts);
}

/** Ask the browser whether so many bytes fit.  @param {number} bytes */
export async function checkRoom(bytes) {
  const { quota, usage } = (await navigator.storage.estimate?.()) ?? {};
  if (quota !== undefined && bytes + SPARE_BYTES > quota - (usage ?? 0)) throw noRoom(bytes, quota - (usage ?? 0));
}

function explained(kind, message, file) {
  const facts = { file: file.path };
  switch (kind) {
    case "network":
      return new EdgekitError(
        "network",
        `${file.path} could not be downloaded (${message})`,
        "check the connection and try again: it goes on where it stopped",
        facts,
      );
    case "damaged":
      return new EdgekitError(
        "damaged",
        `${file.path} is not the file that was exported: ${message}`,
        "copy the site again to its host",
        facts,
      );
    case "quota":
      return noRoom(file.size);
    case "busy":
      return new EdgekitError("storage", `${file.path} is being downloaded by another tab`, "wait for it", facts);
    default:
      return new EdgekitError("storage", `${file.path} could not be stored (${message})`, "try again", facts);
  }
}

/** @param {number} needed bytes @param {number} [left] bytes; undefined when the browser doesn't say */
export function noRoom(needed, left) {
  const mb = (bytes) => Math.max(0, Math.ceil(bytes / 1e6));
  return new EdgekitError(
    "quota",
    left === undefined
      ? `there is no room for ${mb(needed)} MB in this browser's storage`
      : `there is no room: ${mb(needed)} MB are needed, and the browser gives ${mb(left)} MB more`,
    "free space on the device, or use an ordinary window instead of a private one",
    { needed: mb(needed), left: left === undefined ? "?" : mb(left) },
  );
}
