/** Images of a request: the same limits, and the same pixels, as on other devices (edgekit_runtime.formats.images). */

import { EdgekitError } from "./errors.js";

const MAX_FILE_BYTES = 16 * 1024 * 1024;
const MAX_IMAGES = 8; // in a request

/**
 * No image, one or several, as a list; nothing is opened.
 *
 * @param {import("./index.js").Request["image"]} image
 * @returns {import("./index.js").ImageSource[]}
 */
export function listed(image) {
  const sources = [image ?? []].flat();
  if (sources.length > MAX_IMAGES) {
    throw new EdgekitError("input", `the request has ${sources.length} images`, `send at most ${MAX_IMAGES}`);
  }
  return sources;
}

/**
 * An image as a file that the engine reads back to the very pixels (binary PPM).
 *
 * @param {import("./index.js").ImageSource} source
 * @returns {Promise<Uint8Array>}
 */
export async function imageFile(source) {
  const { width, height, rgb } = await readPicture(source);
  const head = new TextEncoder().encode(`P6\n${width} ${height}\n255\n`);
  const file = new Uint8Array(head.length + rgb.length);
  file.set(head);
  file.set(rgb, head.length);
  return file;
}

/**
 * Decode an image, away from the page's own thread.
 *
 * @param {import("./index.js").ImageSource} source
 * @returns {Promise<{width: number, height: number, rgb: Uint8Array}>} rows from the top left
 */
export async function readPicture(source) {
  const name = source instanceof File ? source.name : "the image";
  if (source instanceof Blob && source.size > MAX_FILE_BYTES) {
    throw new EdgekitError("input", `${name} has more than ${MAX_FILE_BYTES / 2 ** 20} MiB`, "send a smaller image");
  }
  const worker = new Worker(new URL("./image-worker.js", import.meta.url), { type: "module" });
  try {
    const given = source instanceof Blob ? source : await createImageBitmap(source, { colorSpaceConversion: "none" });
    return await new Promise((resolve, reject) => {
      worker.onerror = (event) => reject(new Error(event.message));
      worker.onmessage = ({ data }) => (data.failed === undefined ? resolve(data) : reject(new Error(data.failed)));
      worker.postMessage(given);
    });
  } catch (error) {
    throw new EdgekitError("input", `${name} can't be used (${error.message})`, "give a JPEG, PNG or WebP photo", {
      file: name,
    });
  } finally {
    worker.terminate();
  }
}
