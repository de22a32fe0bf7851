/** The service worker: visits without a connection, and isolation where the host sets no headers. */

const TRIED = "edgekit isolating";
const PATIENCE_MS = 15_000;

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
      new Promise((resolve) => setTimeout(resolve, PATIENCE_MS)),
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
    const { waiting } = registration;
    if (!waiting || !navigator.serviceWorker.controller) return;
    onNewVersion(() => {
      navigator.serviceWorker.addEventListener("controllerchange", () => location.reload(), { once: true });
      waiting.postMessage("take over");
    });
  };
  tell();
  registration.addEventListener("updatefound", () => {
    registration.installing?.addEventListener("statechange", tell);
  });
}
