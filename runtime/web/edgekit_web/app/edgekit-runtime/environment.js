/** What this browser can do. */

import { EdgekitError } from "./errors.js";

// A module with one SIMD instruction (i8x16.popcnt), and one with exceptions; after wasm-feature-detect (Apache-2.0).
const SIMD = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
];
const EXCEPTIONS = [0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 10, 8, 1, 6, 0, 6, 64, 25, 11, 11];
const LARGEST_NARROW = 2 ** 31 - 1; // bytes of a file that the 32-bit engine can read
const MOST_THREADS = 4; // phones have about four fast cores; the slow ones would hold the others up

/** Refuse browsers that can't run the engine. */
export function checkBrowser() {
  const missing = !globalThis.isSecureContext
    ? "a secure connection (https, or localhost)"
    : typeof WebAssembly === "undefined"
      ? "WebAssembly"
      : !WebAssembly.validate(new Uint8Array(SIMD))
        ? "WebAssembly SIMD"
        : !WebAssembly.validate(new Uint8Array(EXCEPTIONS))
          ? "WebAssembly exceptions"
          : !navigator.storage?.getDirectory
            ? "a private file system (OPFS)"
            : undefined;
  if (missing) {
    throw new EdgekitError(
      "unsupported",
      `this page needs ${missing}, and this browser gives it none`,
      "use Chrome 113, Safari 17 or Firefox 121 or later, over https",
      { missing },
    );
  }
}

/** Threads to compute with: one when the page is not isolated, half the cores otherwise, four at most. */
export function usableThreads() {
  if (!globalThis.crossOriginIsolated) return 1;
  return Math.max(1, Math.min(MOST_THREADS, Math.floor((navigator.hardwareConcurrency ?? 2) / 2)));
}

/** Whether the engine's 64-bit build runs here; Safari takes the other one. */
export function runsWide() {
  try {
    // @ts-ignore: 64-bit memories are too new for the compiler's types
    new WebAssembly.Memory({ address: "i64", initial: 1n });
    return "Suspending" in WebAssembly;
  } catch {
    return false;
  }
}

/** Refuse a base that this browser's engine can't read, before it is downloaded.  @param {number} bytes */
export function checkBaseSize(bytes) {
  if (bytes <= LARGEST_NARROW || runsWide()) return;
  const missing = "WebAssembly with 64-bit memory and JSPI";
  throw new EdgekitError(
    "unsupported",
    `the base has ${(bytes / 1e9).toFixed(1)} GB, and without ${missing} this browser reads at most 2.1 GB`,
    "use Chrome 137 or later, or a smaller base",
    { missing },
  );
}
