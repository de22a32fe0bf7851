/**
 * Decodes one image as edgekit_runtime.formats.images does: upright, colour profiles left aside, over white, RGB, within
 * bounds.
 *
 * In: a Blob or an ImageBitmap.  Out: {width, height, rgb}, or {failed}.
 */

import { contained, resized } from "./resize.js";

const MAX_PIXELS = 50_000_000;
const MAX_SIDE = 2048; // a larger image is scaled down, its proportions kept
const MAX_ASPECT = 16; // a thinner strip makes resizers divide by nothing

self.onmessage = async ({ data }) => {
  try {
    const picture = await decoded(data);
    self.postMessage(picture, { transfer: [picture.rgb.buffer] });
  } catch (error) {
    self.postMessage({ failed: error.message });
  }
};

async function decoded(source) {
  const bitmap = await createImageBitmap(source, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  const { width, height } = bitmap;
  if (width * height > MAX_PIXELS)
    throw new Error(`it is ${width} x ${height} pixels, more than ${MAX_PIXELS / 1e6} million`);
  if (Math.max(width, height) > MAX_ASPECT * Math.min(width, height))
    throw new Error(`it is a strip of ${width} x ${height} pixels`);
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  if (Math.max(width, height) <= MAX_SIDE) return { width, height, rgb: withoutAlpha(data) };
  const size = contained(width, height, MAX_SIDE);
  return { width: size[0], height: size[1], rgb: resized(data, [width, height], size) };
}

function withoutAlpha(rgba) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4, to += 3) {
    rgb[to] = rgba[from];
    rgb[to + 1] = rgba[from + 1];
    rgb[to + 2] = rgba[from + 2];
  }
  return rgb;
}
