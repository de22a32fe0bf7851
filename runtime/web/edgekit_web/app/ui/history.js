/** What was asked and answered, kept on this device. */

const MOST = 200;
const LONGEST = 20_000; // characters of a question or an answer: one must not drive all others out
const KEY = `edgekit history ${new URL("./", document.baseURI).pathname}`;

/**
 * @typedef {object} Entry
 * @property {number} time when it was answered, ms
 * @property {string | null} adapter null for the bare base
 * @property {string} prompt
 * @property {string} text
 * @property {string} [image] a small one, as data: URL
 * @property {string} [reason] why the answer ended
 * @property {number} [ttft_ms]
 * @property {number} [decode_tps]
 */

/** @returns {Entry[]} newest first */
export function entries() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return kept.filter((entry) => typeof entry?.prompt === "string" && typeof entry.text === "string");
  } catch {
    return [];
  }
}

/** @param {Entry} entry */
export function remember({ prompt, text, ...rest }) {
  const entry = { ...rest, prompt: shortened(prompt), text: shortened(text) };
  for (let kept = [entry, ...entries()].slice(0, MOST); kept.length; kept = kept.slice(0, -1)) {
    try {
      localStorage.setItem(KEY, JSON.stringify(kept));
      return;
    } catch {
      // the browser gives a few MB: the oldest go first
    }
  }
}

function shortened(text) {
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
}

export function clear() {
  localStorage.removeItem(KEY);
}
