/**
 * The device store of a page: files by their sha256 in the browser's private file system (OPFS), and generations in
 * IndexedDB, whose transactions switch from one to the next as a whole.
 *
 * A file counts as there once its digest has been checked and noted; until then it is a download that can go on.
 */

import { digestsOf } from "./changes.js";
import { EdgekitError } from "./errors.js";
import { noRoom } from "./files.js";

const KEPT_GENERATIONS = 3; // each may have a base of its own, and a phone is small
const OBJECTS = "objects"; // digest -> {digest, size}
const GENERATIONS = "generations";
const STATE = "state"; // "current" -> number, "last" -> number

export class Store {
  /** @param {IDBDatabase} database @param {FileSystemDirectoryHandle} folder @param {string} name */
  constructor(database, folder, name) {
    this.database = database;
    this.folder = folder;
    this.name = name;
  }

  /**
   * Open the store of a site, making it when it is new.
   *
   * @param {URL} site sites of one origin have stores of their own
   */
  static async open(site) {
    const name = `edgekit ${site.pathname}`;
    try {
      const root = await navigator.storage.getDirectory();
      const folder = await root.getDirectoryHandle(encodeURIComponent(name), { create: true });
      return new Store(await openDatabase(name), folder, name);
    } catch (error) {
      throw new EdgekitError(
        "storage",
        `this browser keeps nothing for this page (${error.message || error.name})`,
        "open it in an ordinary window, not a private one, over https",
      );
    }
  }

  close() {
    this.database.close();
  }

  /** Let one tab at a time change the store.  @template T @param {() => Promise<T>} change @returns {Promise<T>} */
  exclusively(change) {
    return navigator.locks.request(this.name, change);
  }

  /** Whether a file is there as a whole, with the right digest.  @param {string} digest */
  async has(digest) {
    const noted = await this.get(OBJECTS, digest);
    if (!noted) return false;
    const handle = await this.handle(digest).catch(() => undefined);
    return handle !== undefined && (await handle.getFile()).size === noted.size;
  }

  /** Bytes of a download that are there already.  @param {string} digest */
  async partial(digest) {
    const handle = await this.handle(digest).catch(() => undefined);
    return handle ? (await handle.getFile()).size : 0;
  }

  /** A file of the store.  @param {string} digest @returns {Promise<File>} */
  async file(digest) {
    if (!(await this.has(digest))) {
      throw new EdgekitError(
        "damaged",
        `the file ${digest.slice(0, 12)}… is missing from this browser's storage`,
        "reload the page with a connection",
      );
    }
    return (await this.handle(digest)).getFile();
  }

  /** Note that a file is whole.  @param {string} digest @param {number} size */
  note(digest, size) {
    return this.put(OBJECTS, { digest, size });
  }

  /** @param {string} digest */
  async remove(digest) {
    await this.write(OBJECTS, (store) => store.delete(digest));
    await this.folder.removeEntry(digest).catch(() => undefined);
  }

  /** The generation that is active.  @returns {Promise<import("./changes.js").Generation | undefined>} */
  async current() {
    const number = await this.get(STATE, "current");
    return number === undefined ? undefined : this.get(GENERATIONS, number.value);
  }

  /** @returns {Promise<import("./changes.js").Generation[]>} oldest first */
  generations() {
    return this.read(GENERATIONS, (store) => store.getAll());
  }

  /**
   * Make a changed generation the current one, in one transaction.
   *
   * @param {{manifest: any, installed: any[]}} change
   */
  async advance(change) {
    const parent = (await this.get(STATE, "current"))?.value ?? null;
    const number = ((await this.get(STATE, "last"))?.value ?? 0) + 1;
    const generation = {
      number,
      parent,
      created: new Date().toISOString(),
      manifest: change.manifest,
      installed: change.installed,
    };
    await this.write([GENERATIONS, STATE], (generations, state) => {
      generations.put(generation);
      state.put({ key: "last", value: number });
      state.put({ key: "current", value: number });
    });
    return generation;
  }

  /** Make the parent of the current generation the current one. */
  async rollback() {
    const now = await this.current();
    const before = now?.parent == null ? undefined : await this.get(GENERATIONS, now.parent);
    if (!before) {
      throw new EdgekitError("input", "there is nothing to roll back to", "this is the first state that was installed");
    }
    await this.put(STATE, { key: "current", value: before.number });
    return before;
  }

  /** Forget old generations, and files that none needs. */
  async collect() {
    const current = await this.current();
    const all = await this.generations();
    const old = all.slice(0, -KEPT_GENERATIONS).filter((each) => each.number !== current?.number);
    await this.write(GENERATIONS, (store) => old.forEach((each) => store.delete(each.number)));
    const needed = new Set();
    for (const each of all) if (!old.includes(each)) digestsOf(each).forEach((digest) => needed.add(digest));
    for await (const name of this.folder.keys()) if (!needed.has(name)) await this.remove(name);
  }

  /** @param {string} digest @param {FileSystemGetFileOptions} [options] */
  handle(digest, options) {
    return this.folder.getFileHandle(digest, options);
  }

  get(name, key) {
    return this.read(name, (store) => store.get(key));
  }

  put(name, value) {
    return this.write(name, (store) => store.put(value));
  }

  read(name, ask) {
    return settled(ask(this.database.transaction(name).objectStore(name)));
  }

  /** Several changes as one; they last once this has resolved. */
  async write(names, change) {
    const transaction = this.database.transaction(names, "readwrite", { durability: "strict" });
    const done = new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onerror = transaction.onabort = () => reject(explained(transaction.error));
    });
    change(...[names].flat().map((name) => transaction.objectStore(name)));
    await done;
  }
}

/** What IndexedDB gives when it can't write often has no message. */
function explained(error) {
  if (error?.name === "QuotaExceededError") return noRoom(1);
  const reason = error?.message || error?.name || "no reason given";
  return new EdgekitError("storage", `this browser can't note what is installed (${reason})`, "reload the page");
}

function openDatabase(name) {
  const opening = indexedDB.open(name, 1);
  opening.onupgradeneeded = () => {
    opening.result.createObjectStore(OBJECTS, { keyPath: "digest" });
    opening.result.createObjectStore(GENERATIONS, { keyPath: "number" });
    opening.result.createObjectStore(STATE, { keyPath: "key" });
  };
  return settled(opening);
}

function settled(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
