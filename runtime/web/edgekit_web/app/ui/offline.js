/** The service worker: visits without a connection, and isolation where the host sets no headers. */

const TRIED = "edgekit isolating";
const PATIENCE_MS = 15_000;
const ASKING_MS = 3_000; // for what is the newest version, on a connection that may be gone

/**
 * Register the worker; when the page can be isolated by a reload, reload once.
 *
 * @param {(takeOver: () => void) => void} onNewVersion called when another version of the app waits
 * @returns {Promise<void>} when the worker looks after this page, or can't
 */
export async function stayOffline(onNewVersion) {
  const workers = navigator.serviceWorker;
  if (!workers) return;
  let registration;
  try {
    registration = await workers.register("sw.js");
  } catch {
    return; // a private window, or a certificate that the browser doesn't trust: the page works, with a connection
  }
  watch(registration, onNewVersion);
  if (!workers.controller) {
    await Promise.race([
      new Promise((resolve) => workers.addEventListener("controllerchange", resolve, { once: true })),
      sleep(PATIENCE_MS),
    ]);
  }
  if (!crossOriginIsolated && workers.controller && !sessionStorage.getItem(TRIED)) {
    sessionStorage.setItem(TRIED, "once");
    location.reload();
    await new Promise(() => undefined); // until the page is gone
  }
}

function watch(registration, onNewVersion) {
  const tell = () => {
    if (!registration.waiting || !navigator.serviceWorker.controller) return;
    onNewVersion(async () => {
      navigator.serviceWorker.addEventListener("controllerchange", () => location.reload(), { once: true });
      const newest = await newestOf(registration);
      if (newest) newest.postMessage("take over");
      else location.reload(); // another tab was quicker
    });
  };
  tell();
  registration.addEventListener("updatefound", () => {
    registration.installing?.addEventListener("statechange", tell);
  });
}

/** The worker to change to: one that waited when it was told of may have been replaced by a newer one since. */
async function newestOf(registration) {
  await Promise.race([registration.update().catch(() => undefined), sleep(ASKING_MS)]);
  const { installing } = registration;
  if (installing) {
    const settled = new Promise((resolve) => installing.addEventListener("statechange", resolve, { once: true }));
    await Promise.race([settled, sleep(PATIENCE_MS)]);
  }
  return registration.waiting;
}

function sleep(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
