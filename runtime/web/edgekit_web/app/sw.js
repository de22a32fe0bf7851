// Written before this line at build time: const SITE = {version, files, headers, bundle}.
/*
 * The service worker: keeps the app for visits without a connection, and gives its answers the headers that isolate the
 * page, for hosts that can't set headers.  What belongs to the bundle is kept by the page itself, in OPFS; whoever made
 * the bundle may have written a page into it, so nothing in there runs.
 */

const CACHE = `edgekit ${new URL("./", self.location.href).pathname} ${SITE.version}`;
const OURS = `edgekit ${new URL("./", self.location.href).pathname} `;
const FILES = new Map(SITE.files.map((file) => [new URL(file.path, self.location.href).href, file]));
const INDEX = new URL("index.html", self.location.href).href;
const BUNDLE = wayOf(new URL("bundle", self.location.href).href);

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));
self.addEventListener("message", (event) => {
  if (event.data === "take over") self.skipWaiting();
});
self.addEventListener("fetch", (event) => {
  const url = event.request.mode === "navigate" ? navigated(event.request.url) : event.request.url.split(/[?#]/)[0];
  if (event.request.method === "GET" && FILES.has(url)) event.respondWith(answer(url));
  else if (event.request.destination && inBundle(url)) event.respondWith(harmless(event.request));
});

/** Fetch all that is needed at once; a file that is not the one of this version (a host in mid-change) fails it all. */
async function install() {
  const cache = await caches.open(CACHE);
  await Promise.all([...FILES].filter(([, file]) => !file.lazy).map(([url, file]) => fill(cache, url, file)));
}

async function activate() {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name.startsWith(OURS) && name !== CACHE).map((name) => caches.delete(name)));
  await self.clients.claim();
}

async function answer(url) {
  return isolated(await fill(await caches.open(CACHE), url, FILES.get(url)));
}

/**
 * From this or an earlier version's cache when the file is the same, else from the network.  It is checked by its digest
 * each time: what a cache says of a file is no proof of what is in it.
 */
async function fill(cache, url, file) {
  const key = `sha256=${file.sha256}`;
  for (const name of await caches.keys()) {
    const kept = name.startsWith(OURS) ? await (await caches.open(name)).match(url) : undefined;
    if (kept?.headers.get("X-Edgekit-Digest") === key && (await digest(kept.clone())) === file.sha256) {
      if (name !== CACHE) await cache.put(url, kept.clone());
      return kept;
    }
  }
  const response = await fetch(url, { integrity: integrity(file.sha256), cache: "no-cache" });
  if (!response.ok) throw new Error(`${url}: HTTP ${response.status}`);
  const headers = new Headers(response.headers);
  headers.delete("Content-Encoding"); // the body that is kept is decoded
  headers.delete("Content-Length");
  headers.set("X-Edgekit-Digest", key);
  const marked = new Response(response.body, { status: 200, headers });
  await cache.put(url, marked.clone());
  return marked;
}

function isolated(response) {
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(SITE.headers)) headers.set(name, value);
  return new Response(response.body, { status: response.status, headers });
}

/** A file of the bundle that is opened, and not fetched by the page: it may be seen, but not run. */
async function harmless(request) {
  if (request.mode !== "navigate") return Response.error();
  const response = await fetch(request);
  if (response.type === "opaqueredirect") return response; // where it leads is asked for next
  const headers = new Headers(response.headers);
  headers.set("Content-Security-Policy", SITE.bundle);
  return new Response(response.body, { status: response.status, headers });
}

/** Whether a host may take an address for one in the bundle, however it is spelt. */
function inBundle(address) {
  const way = wayOf(address);
  return way === undefined || BUNDLE.every((part, index) => way[index] === part);
}

/** The folders and the file that an address leads through; undefined when it is no text. */
function wayOf(address) {
  const way = [];
  try {
    for (const part of decodeURIComponent(new URL(address).pathname).toLowerCase().split(/[/\\]/)) {
      if (part === "..") way.pop();
      else if (part && part !== ".") way.push(part);
    }
  } catch {
    return undefined;
  }
  return way;
}

function navigated(address) {
  const url = new URL(address);
  return url.pathname.endsWith("/") ? INDEX : url.origin + url.pathname;
}

async function digest(response) {
  const bytes = new Uint8Array(await crypto.subtle.digest("SHA-256", await response.arrayBuffer()));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function integrity(hex) {
  const bytes = hex.match(/../g).map((pair) => String.fromCharCode(parseInt(pair, 16)));
  return `sha256-${btoa(bytes.join(""))}`;
}
