/**
 * Scaling down as Pillow does it with LANCZOS, to the bit, so that a page sees the pixels that other devices see: a
 * horizontal pass, then a vertical one, in 8 bits with coefficients of 22 (Pillow's src/libImaging/Resample.c).
 */

const LOBES = 3;
const PRECISION_BITS = 22;

/**
 * The size that fits a square and keeps the proportions, as Pillow's ImageOps.contain rounds it.
 *
 * @param {number} width
 * @param {number} height
 * @param {number} side
 * @returns {[number, number]}
 */
export function contained(width, height, side) {
  if (width === height) return [side, side];
  return width > height ? [side, halfToEven((height / width) * side)] : [halfToEven((width / height) * side), side];
}

/**
 * @param {Uint8ClampedArray} rgba rows of width x height pixels
 * @param {[number, number]} from width and height
 * @param {[number, number]} to
 * @returns {Uint8Array} RGB
 */
export function resized(rgba, [width, height], [newWidth, newHeight]) {
  const narrow = new Uint8Array(newWidth * height * 3);
  pass(rgba, narrow, weights(width, newWidth), {
    lines: height,
    line: width * 4,
    step: 4,
    toLine: newWidth * 3,
    toStep: 3,
  });
  const result = new Uint8Array(newWidth * newHeight * 3);
  const row = newWidth * 3;
  pass(narrow, result, weights(height, newHeight), { lines: newWidth, line: 3, step: row, toLine: 3, toStep: row });
  return result;
}

/** Scale each of `lines`, which begin `line` bytes apart and whose pixels lie `step` bytes apart. */
function pass(from, to, { starts, counts, values, stride }, { lines, line, step, toLine, toStep }) {
  for (let at = 0; at < lines; at++) {
    for (let x = 0; x < starts.length; x++) {
      let red = 1 << (PRECISION_BITS - 1);
      let green = red;
      let blue = red;
      let source = at * line + starts[x] * step;
      for (let k = x * stride, end = k + counts[x]; k < end; k++, source += step) {
        const weight = values[k];
        red += from[source] * weight;
        green += from[source + 1] * weight;
        blue += from[source + 2] * weight;
      }
      const place = at * toLine + x * toStep;
      to[place] = clipped(red);
      to[place + 1] = clipped(green);
      to[place + 2] = clipped(blue);
    }
  }
}

/** For each new pixel: the first old one that counts, how many do, and with what weight each. */
function weights(size, newSize) {
  const scale = size / newSize;
  const stretch = Math.max(scale, 1);
  const support = LOBES * stretch;
  const stride = Math.ceil(support) * 2 + 1;
  const starts = new Int32Array(newSize);
  const counts = new Int32Array(newSize);
  const values = new Int32Array(newSize * stride);
  for (let x = 0; x < newSize; x++) {
    const center = (x + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - support + 0.5));
    const count = Math.min(size, Math.trunc(center + support + 0.5)) - start;
    const exact = Array.from({ length: count }, (_, k) => lanczos((k + start - center + 0.5) / stretch));
    const sum = exact.reduce((a, b) => a + b, 0);
    exact.forEach((value, k) => {
      const share = (value / sum) * 2 ** PRECISION_BITS;
      values[x * stride + k] = Math.trunc(share < 0 ? share - 0.5 : share + 0.5);
    });
    starts[x] = start;
    counts[x] = count;
  }
  return { starts, counts, values, stride };
}

function lanczos(x) {
  return x >= -LOBES && x < LOBES ? sinc(x) * sinc(x / LOBES) : 0;
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

function clipped(sum) {
  return Math.min(255, Math.max(0, sum >> PRECISION_BITS));
}

function halfToEven(value) {
  const low = Math.floor(value);
  return value - low === 0.5 ? low + (low % 2) : Math.round(value);
}
