/** The adapters of a runtime: installed, active, and the way back. */

import { adapterEntry } from "./adapter.js";
import { findInstalled, withActive, withAdapter, without } from "./changes.js";
import { EdgekitError } from "./errors.js";
import { bring, checkRoom, readAtMost } from "./files.js";
import { hex } from "./hex.js";
import { takeIn } from "./intake.js";
import { lacking } from "./manifest.js";
import { SIGNATURE_BYTES, adapterMessage, checkSignature } from "./signing.js";

/**
 * A runtime with the fields that are not for others.
 * @typedef {import("./index.js").Runtime & {
 *   generation: any, store: any, header: any, site: any, engine: any,
 *   start(): Promise<void>, startOrRevert(): Promise<void>, use(change: any): Promise<void>,
 * }} Inner
 */

const LARGEST_ADAPTER = 1024 ** 3; // bytes; it is held in memory once while it is checked

export class Adapters {
  /** @param {Inner} runtime */
  constructor(runtime) {
    this.runtime = runtime;
  }

  /** Every version that is installed.  @returns {import("./index.js").InstalledAdapter[]} */
  list() {
    const { manifest, installed } = this.runtime.generation;
    return installed.map((entry) => ({
      ...entry,
      active: manifest.adapters.some((each) => each.digest === entry.digest),
    }));
  }

  /** The active adapter of that name.  @param {string} name @returns {import("./index.js").AdapterEntry} */
  get(name) {
    const { name: bundle, adapters } = this.runtime.manifest;
    const found = adapters.find((entry) => entry.name === name);
    if (!found) {
      const names = adapters.map((entry) => entry.name).join(", ") || "no adapters";
      throw new EdgekitError("usage", `the bundle ${bundle} has no adapter ${name}`, `it has ${names}`);
    }
    return found;
  }

  /** The stacks whose adapters are active as they were proven.  @returns {import("./index.js").StackEntry[]} */
  stacks() {
    const { adapters, stacks = [] } = this.runtime.manifest; // a generation that an earlier page has kept has none
    const taken = adapters.map((entry) => entry.name);
    return stacks.filter((stack) => !taken.includes(stack.name) && !lacking(stack.adapters, adapters).length);
  }

  /** What a request of that name is answered by, and the scales to apply by digest.  @param {string} name */
  subject(name) {
    const { adapters, stacks = [] } = this.runtime.manifest;
    const stack = stacks.find((each) => each.name === name);
    if (!stack || adapters.some((entry) => entry.name === name)) {
      const entry = this.get(name);
      return { entry, scales: { [entry.digest]: 1 } };
    }
    const gone = lacking(stack.adapters, adapters).map((part) =>
      adapters.some((entry) => entry.name === part.name)
        ? `${part.name}, which is another one now`
        : `${part.name}, which doesn't answer`,
    );
    if (gone.length) {
      const mend = "activate the version that came with the stack";
      throw new EdgekitError("usage", `the stack ${name} needs ${gone.join(", ")}`, mend);
    }
    const scales = {}; // one file may be there under two names
    for (const { digest, scale } of stack.adapters) scales[digest] = (scales[digest] ?? 0) + scale;
    return { entry: stack, scales };
  }

  /**
   * Install an adapter file, active at once in the place of an earlier one of its name.
   *
   * It has to be sound, of the base's family, and signed where the site names keys.  The engine reads the base again
   * from this device; a file that it refuses leaves everything as it was.
   *
   * @param {File | Blob | string | URL} source a file, or where to fetch it; its signature is then at the same place
   *   with `.sig` after the name
   * @param {{signature?: Blob, name?: string, allowDowngrade?: boolean}} [options] `signature`: the .sig file of a local
   *   one; `name`: of a Blob, for messages
   * @returns {Promise<import("./index.js").AdapterEntry>}
   */
  async install(source, { signature, name, allowDowngrade } = {}) {
    const remote = typeof source === "string" || source instanceof URL ? new URL(source, document.baseURI) : undefined;
    const local = source instanceof Blob ? source : undefined;
    const label = name ?? remote?.pathname.split("/").pop() ?? (local instanceof File ? local.name : "adapter.gguf");
    const given = local ?? (await this.fetch(remote, label));
    if (given.size > LARGEST_ADAPTER)
      throw new EdgekitError("input", `${label} is too large for an adapter`, "check it");
    const content = await given.arrayBuffer();
    const file = new Blob([content]); // a file on the disk may be another one by the time that it has been checked
    const facts = await takeIn(file, label, this.runtime.header, this.runtime.manifest.base.family);
    const digest = hex(await crypto.subtle.digest("SHA-256", content));
    const { trust } = this.runtime.site;
    if (trust) {
      const signed = signature ?? (remote && (await this.fetchSignature(remote)));
      const bytes = signed && signed.size === SIGNATURE_BYTES ? await signed.arrayBuffer() : undefined;
      await checkSignature(adapterMessage(digest), bytes, trust, label);
    }
    const entry = adapterEntry(facts, { family: this.runtime.manifest.base.family, digest, label, size: file.size });
    await this.change(async (now, store) => {
      const change = withAdapter(now, entry, { allowDowngrade });
      if (!(await store.has(digest))) {
        await checkRoom(file.size);
        await bring(store, { path: label, size: file.size, sha256: digest, blob: file });
      }
      return change;
    });
    return entry;
  }

  /** Make an installed version the active one, the newest when none is named.  @param {string} name @param {string} [version] */
  async activate(name, version) {
    await this.change((now) => withActive(now, findInstalled(now, name, version)));
  }

  /** Take an adapter out, all versions or one.  @param {string} name @param {string} [version] */
  async remove(name, version) {
    await this.change((now) => without(now, name, version));
  }

  /** Go back to what was active before the last change; the base too, if that was changed. */
  async rollback() {
    const { runtime } = this;
    await runtime.store.exclusively(async () => {
      runtime.generation = await runtime.store.rollback();
    });
    if (this.engineLacks()) await runtime.start();
  }

  /** Change what is current, as another tab may have left it.  @param {(now: any, store: any) => any} make */
  async change(make) {
    const { runtime } = this;
    const { store } = runtime;
    await store.exclusively(async () => runtime.use(await make(await store.current(), store)));
    if (this.engineLacks()) await runtime.startOrRevert();
  }

  /** Whether the base has to be read again. */
  engineLacks() {
    const { engine, manifest } = this.runtime;
    const { digest, projector_digest: projector } = manifest.base;
    return (
      engine?.base !== digest ||
      engine.projector !== (projector ?? undefined) ||
      manifest.adapters.some((entry) => !engine.adapters.includes(entry.digest))
    );
  }

  async fetch(url, label) {
    const allowed = [this.runtime.site.folder.origin, ...(this.runtime.site.document.adapters_from ?? [])];
    if (!allowed.includes(url.origin)) {
      throw new EdgekitError(
        "network",
        `this site takes adapters from ${allowed.join(", ")} only, not from ${url.origin}`,
        `download the file and choose it here, or build the site with --adapters-from ${url.origin}`,
        { file: url.href },
      );
    }
    try {
      const response = await fetch(url, { cache: "no-store" });
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      return await readAtMost(response, LARGEST_ADAPTER, label);
    } catch (error) {
      if (error instanceof EdgekitError) throw error;
      throw new EdgekitError(
        "network",
        `${url} could not be fetched (${error.message})`,
        "check the address and the connection",
        { file: url.href },
      );
    }
  }

  async fetchSignature(url) {
    const place = new URL(url);
    place.pathname += ".sig";
    const response = await fetch(place, { cache: "no-store" }).catch(() => undefined);
    return response?.ok ? readAtMost(response, SIGNATURE_BYTES, place.pathname).catch(() => undefined) : undefined;
  }
}
