/** What was asked and answered, kept on this device. */

const MOST = 200;
const KEY = `edgekit history ${new URL("./", document.baseURI).pathname}`;

/** @typedef {{time: number, adapter: string | null, prompt: string, text: string, image?: string}} Entry `image`: a small one */

/** @returns {Entry[]} newest first */
export function entries() {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "[]");
  } catch {
    return [];
  }
}

/** @param {Entry} entry */
export function remember(entry) {
  for (let kept = [entry, ...entries()].slice(0, MOST); kept.length; kept = kept.slice(0, -1)) {
    try {
      localStorage.setItem(KEY, JSON.stringify(kept));
      return;
    } catch {
      // the browser gives a few MB: the oldest go first
    }
  }
}

export function clear() {
  localStorage.removeItem(KEY);
}
