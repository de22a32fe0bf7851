/** What the site says: site.json and the bundle's manifest, with its signature. */

import { compareVersions } from "./changes.js";
import { EdgekitError } from "./errors.js";
import { parseManifest } from "./manifest.js";
import { checkSignature } from "./signing.js";

const SITE_SCHEMA = "edgekit.site/1";

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
      document = await (await get(new URL("site.json", this.folder))).json();
    } catch (error) {
      const kept = await store.get("state", "site");
      if (!kept) throw error instanceof EdgekitError ? error : unreadable(error);
      this.document = kept.value;
      return;
    }
    if (document?.schema !== SITE_SCHEMA) {
      throw new EdgekitError("input", `site.json has schema ${document?.schema}, not ${SITE_SCHEMA}`, "build the site again");
    }
    this.document = document;
    await store.put("state", { key: "site", value: document });
  }

  /** Public keys that bundles and adapters have to be signed with; undefined when anything goes. */
  get trust() {
    return this.document.trust ?? undefined;
  }

  /** The manifest of the bundle that lies on the site now, checked. */
  async manifest() {
    const bytes = await bytesOf(await get(new URL("manifest.json", this.bundle)));
    if (this.trust) {
      const signature = await get(new URL("manifest.sig", this.bundle)).then(bytesOf, () => undefined);
      await checkSignature(bytes, signature, this.trust, "the bundle");
    }
    return { ...parseManifest(bytes), template: this.document.template };
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

/** @param {URL} url */
async function get(url) {
  let response;
  try {
    response = await fetch(url, { cache: "no-store" });
  } catch (error) {
    throw unreachable(url, error.message);
  }
  if (!response.ok) throw unreachable(url, `HTTP ${response.status}`);
  return response;
}

async function bytesOf(response) {
  return new Uint8Array(await response.arrayBuffer());
}

function unreachable(url, reason) {
  const file = url.pathname.split("/").pop();
  return new EdgekitError("network", `${file} could not be fetched (${reason})`, "check the connection and reload", { file });
}

function unreadable(error) {
  return new EdgekitError("input", `site.json can't be read (${error.message})`, "build the site again");
}
