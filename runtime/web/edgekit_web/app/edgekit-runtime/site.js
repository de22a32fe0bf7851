/** What the site says: site.json and the bundle's manifest, with its signature. */

import { compareVersions } from "./changes.js";
import { checkBaseSize } from "./environment.js";
import { EdgekitError, isPrintable, shown } from "./errors.js";
import { readAtMost } from "./files.js";
import { inWords, isObject } from "./json.js";
import { parseManifest } from "./manifest.js";
import { SIGNATURE_BYTES, checkSignature } from "./signing.js";

const SITE_SCHEMA = "edgekit.site/1";
const MAX_SITE_BYTES = 16 * 1024 * 1024; // it lists the app's files and has the template's probes
const [MOST_EXAMPLES, LONGEST_EXAMPLE] = [4, 320]; // of an adapter; UTF-16 units of 160 characters
const MAX_MANIFEST_BYTES = 4 * 1024 * 1024; // as on other devices

export class Site {
  /** @param {URL} folder */
  constructor(folder) {
    this.folder = folder;
    this.bundle = new URL("bundle/", folder);
    this.document = undefined;
  }

  /** Read site.json, or what was kept of it when there is no connection.  @param {import("./store.js").Store} store */
  async open(store) {
    let document;
    try {
      document = JSON.parse(await (await get(new URL("site.json", this.folder), MAX_SITE_BYTES)).text());
    } catch (error) {
      const kept = await store.get("state", "site");
      if (!kept) throw error instanceof EdgekitError ? error : unreadable(error);
      this.document = kept.value;
      return;
    }
    if (document?.schema !== SITE_SCHEMA) {
      throw new EdgekitError(
        "input",
        `site.json has schema ${shown(inWords(document?.schema ?? null))}, not ${SITE_SCHEMA}`,
        "build the site again",
      );
    }
    this.document = document;
    await store.put("state", { key: "site", value: document });
  }

  /** Public keys that bundles and adapters have to be signed with; undefined when anything goes. */
  get trust() {
    return this.document.trust ?? undefined;
  }

  /** Prompts to offer, by adapter; whatever else stands there is left out.  @returns {Record<string, string[]>} */
  get examples() {
    const given = isObject(this.document.examples) ? Object.entries(this.document.examples) : [];
    const made = Object.create(null); // an adapter may be called "constructor"
    for (const [name, prompts] of given) made[name] = exampleTexts(prompts);
    return made;
  }

  /** The manifest of the bundle that lies on the site now, checked. */
  async manifest() {
    const bytes = await bytesOf(await get(new URL("manifest.json", this.bundle), MAX_MANIFEST_BYTES));
    if (this.trust) {
      const signature = await get(new URL("manifest.sig", this.bundle), SIGNATURE_BYTES).then(bytesOf, () => undefined);
      await checkSignature(bytes, signature, this.trust, "the bundle");
    }
    const manifest = parseManifest(bytes);
    checkBaseSize(manifest.files.find((file) => file.path === manifest.base.file).size);
    return { ...manifest, template: this.document.template };
  }

  /** The same, when it is newer than `active`; undefined without a connection.  @param {any} active */
  async newer(active, store) {
    try {
      await this.open(store);
      const found = await this.manifest();
      return compareVersions(found.version, active.version) > 0 ? found : undefined;
    } catch (error) {
      if (error.code === "network") return undefined;
      throw error;
    }
  }
}

function exampleTexts(prompts) {
  const texts = Array.isArray(prompts) ? prompts : [];
  return texts
    .filter((each) => typeof each === "string" && each.trim() && each.length <= LONGEST_EXAMPLE && isPrintable(each))
    .slice(0, MOST_EXAMPLES);
}

/** @param {URL} url @param {number} most bytes */
async function get(url, most) {
  const file = url.pathname.split("/").pop();
  let response;
  try {
    response = await fetch(url, { cache: "no-store" });
    if (response.ok) return await readAtMost(response, most, file);
  } catch (error) {
    throw error instanceof EdgekitError ? error : unreachable(file, error.message);
  }
  throw unreachable(file, `HTTP ${response.status}`);
}

/** @param {Blob} blob */
async function bytesOf(blob) {
  return new Uint8Array(await blob.arrayBuffer());
}

function unreachable(file, reason) {
  return new EdgekitError("network", `${file} could not be fetched (${reason})`, "check the connection and reload", {
    file,
  });
}

function unreadable(error) {
  return new EdgekitError("input", `site.json can't be read (${error.message})`, "build the site again");
}
