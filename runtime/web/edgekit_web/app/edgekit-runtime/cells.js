/**
 * Whether the KV cells of the last prompt may be used for the next one: under the same adapters and scales alone.
 *
 * llama.cpp's server sees to that for the last prompt.  But when a request would keep less than half of the last prompt and
 * its answer, it copies their cells aside first, and takes copies back without asking which adapter made them; the copies
 * also grow up to gigabytes.  wllama can't switch that off.  So a request that doesn't go on from the last one makes the
 * engine read something short before, which leaves nothing to copy; and once a copy may have been made all the same, nothing
 * is kept any more.
 */
export class KeptCells {
  constructor() {
    this.last = undefined; // {adapters, text, tokens} whose cells are in the engine
    this.asked = undefined; // the same, of what the request in progress goes on from
    this.copied = false;
  }

  /**
   * Decide for a request that begins now.
   *
   * @param {{adapters: string, text: string, reuse: boolean}} request digests and scales of its adapters, and its prompt
   * @returns {boolean} whether it may go on from the cells that are there
   */
  take({ adapters, text, reuse }) {
    const { last } = this;
    this.last = undefined;
    const suits =
      reuse &&
      !this.copied &&
      last !== undefined &&
      last.adapters === adapters &&
      2 * shared(last.text, text) >= last.text.length;
    this.asked = suits ? last : undefined;
    return suits;
  }

  /**
   * Note what is in the engine after a request has come to its end.
   *
   * @param {{adapters: string, text: string, usage: any, timings: any}} done `text`: prompt and answer
   */
  note({ adapters, text, usage, timings }) {
    if (!usage || !timings) return;
    if (this.asked && 2 * timings.cache_n < this.asked.tokens) this.copied = true;
    this.last = { adapters, text, tokens: usage.prompt_tokens + usage.completion_tokens };
  }
}

/** How many characters two texts have in common at their beginning. */
function shared(one, other) {
  const most = Math.min(one.length, other.length);
  for (let at = 0; at < most; at++) if (one[at] !== other[at]) return at;
  return most;
}
