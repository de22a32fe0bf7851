/**
 * Whether the values of an adapter's matrices are numbers, and whether they change anything: the same rules as
 * edgekit_runtime.formats.matrix_values.
 *
 * Values are looked at as the bits that are in the file: without its sign a float that is NaN or infinite is at least as
 * large as infinity's bits, and zero is 0.
 */

import { EdgekitError } from "./errors.js";

/** How a float is stored: as which unsigned number, its bits but for the sign, and those of infinity. */
const FLOATS = {
  F32: { Bits: Uint32Array, unsigned: 0x7fffffff, infinity: 0x7f800000 },
  F16: { Bits: Uint16Array, unsigned: 0x7fff, infinity: 0x7c00 },
  BF16: { Bits: Uint16Array, unsigned: 0x7fff, infinity: 0x7f80 },
};
const BLOCK_BYTES = 34; // Q8_0: an F16 scale and 32 whole numbers
const PIECE = BLOCK_BYTES * 2 ** 17; // bytes that are read at once
export const MATRIX_TYPES = [...Object.keys(FLOATS), "Q8_0"];

/**
 * Look at every value of A and B of each pair.
 *
 * @typedef {{name: string, type: string, start: number, end: number}} Matrix
 * @param {Blob} file
 * @param {string} label for messages
 * @param {Iterable<[Matrix, Matrix]>} pairs
 */
export async function checkValues(file, label, pairs) {
  let alive = false;
  for (const pair of pairs) {
    let zero = false;
    for (const matrix of pair) {
      const found = await look(file, matrix);
      if (!found.finite) {
        throw new EdgekitError(
          "damaged",
          `${label} is not a sound adapter: ${matrix.name} holds values that are NaN or infinite`,
          "train or export it again",
        );
      }
      zero ||= found.zero;
    }
    alive ||= !zero;
  }
  if (!alive) {
    throw new EdgekitError(
      "damaged",
      `${label} changes nothing: in each of its pairs A or B is all zeros`,
      "train it, or export it again",
    );
  }
}

/** Whether all values of a matrix are finite, and whether all are zero. */
async function look(file, { type, start, end }) {
  let finite = true;
  let zero = true;
  for (let at = start; at < end; at += PIECE) {
    const bytes = await file.slice(at, Math.min(at + PIECE, end)).arrayBuffer();
    const found = type === "Q8_0" ? lookAtBlocks(bytes) : lookAtFloats(bytes, FLOATS[type]);
    finite &&= found.finite;
    zero &&= found.zero;
  }
  return { finite, zero };
}

function lookAtFloats(bytes, { Bits, unsigned, infinity }) {
  let peak = 0;
  for (const value of new Bits(bytes)) {
    const size = value & unsigned;
    if (size > peak) peak = size;
  }
  return { finite: peak < infinity, zero: peak === 0 };
}

/** A value of Q8_0 is its block's scale times a whole number. */
function lookAtBlocks(bytes) {
  const { unsigned, infinity } = FLOATS.F16;
  const scales = new Uint16Array(bytes);
  const numbers = new Uint8Array(bytes);
  let finite = true;
  let zero = true;
  for (let at = 0; at < numbers.length; at += BLOCK_BYTES) {
    const scale = scales[at / 2] & unsigned;
    finite &&= scale < infinity;
    if (zero && scale) zero = numbers.subarray(at + 2, at + BLOCK_BYTES).every((number) => number === 0);
  }
  return { finite, zero };
}
