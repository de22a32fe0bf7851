/** The first screen: what will be kept here, the download, and what went wrong. */

import { load, preview } from "../edgekit-runtime/index.js";
import { explain, say } from "./strings.js";

/** @type {(id: string) => any} */
const at = (id) => document.getElementById(id);
const mb = (bytes) => Math.ceil(bytes / 1e6);
const amount = (bytes) => (bytes < 1e9 ? `${Math.floor(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`);

/**
 * Bring the bundle here, asking first when that is a download, and start it.
 *
 * @param {(name: string) => void} onName called with the bundle's name once it is known
 * @returns {Promise<import("../edgekit-runtime/index.js").Runtime>}
 */
export async function setUp(onName) {
  for (let again = false; ;) {
    try {
      const plan = await preview("./");
      onName(plan.manifest.name);
      at("setup-title").textContent = say("welcome", { name: plan.manifest.name });
      if (plan.missing && !again) await ask(plan);
      return await start();
    } catch (error) {
      again = await failed(error);
    }
  }
}

/** @param {import("../edgekit-runtime/index.js").Preview} preview */
async function ask({ missing, total, room }) {
  at("setup-text").textContent = say("size", {
    mb: mb(total),
    room: room === undefined ? "" : say("room", { room: amount(room) }),
  });
  const label = missing < total ? say("goOn", { mb: mb(missing) }) : say("download", { mb: mb(missing) });
  await pressed(at("begin"), label);
}

async function start() {
  at("failure").hidden = true;
  const stopper = new AbortController();
  const pause = () => stopper.abort(new DOMException("paused", "AbortError"));
  at("pause").addEventListener("click", pause);
  try {
    return await load("./", { signal: stopper.signal, onProgress: showProgress });
  } finally {
    at("pause").removeEventListener("click", pause);
    at("pause").hidden = at("progress").hidden = true;
  }
}

/** @param {import("../edgekit-runtime/index.js").Progress} progress */
export function showProgress({ stage, loaded, total }) {
  const downloading = stage === "download";
  at("pause").hidden = !downloading;
  at("progress").hidden = false;
  if (downloading) {
    at("progress").max = total;
    at("progress").value = loaded;
  } else {
    at("progress").removeAttribute("value");
  }
  at("progress-text").textContent = downloading
    ? say("downloading", { loaded: mb(loaded), total: mb(total) })
    : say("starting");
}

/** @returns {Promise<boolean>} whether the user wants to try again at once, and not after a pause */
async function failed(error) {
  const paused = error.name === "AbortError";
  at("failure").hidden = paused;
  at("failure").textContent = paused ? "" : explain(error);
  at("progress-text").textContent = paused ? say("paused") : "";
  if (!paused) await pressed(at("begin"), say("retry"));
  return !paused;
}

async function pressed(button, label) {
  button.textContent = label;
  button.hidden = false;
  await new Promise((resolve) => button.addEventListener("click", resolve, { once: true }));
  button.hidden = true;
}
