/**
 * Whether the KV cells of the last prompt may be used for the next one: by the same adapter alone.
 *
 * llama.cpp's server sees to that for the last prompt.  But when a request would keep less than half of the last prompt and
 * its answer, it copies their cells aside first, and takes copies back without asking which adapter made them; the copies
 * also grow up to gigabytes.  wllama can't switch that off.  So a request that doesn't go on from the last one makes the
 * engine read something short before, which leaves nothing to copy; and once a copy may have been made all the same, nothing
 * is kept any more.
 */
export class KeptCells {
  constructor() {
    this.last = undefined; // {adapter, text, tokens} whose cells are in the engine
    this.asked = undefined; // the same, of what the request in progress goes on from
    this.copied = false;
  }

  /**
   * Decide for a request that begins now.
   *
   * @param {{adapter: string | undefined, text: string, reuse: boolean}} request its adapter's digest, and its prompt
   * @returns {boolean} whether it may go on from the cells that are there
   */
  take({ adapter, text, reuse }) {
    const { last } = this;
    this.last = undefined;
    const suits =
      reuse &&
      !this.copied &&
      last !== undefined &&
      last.adapter === adapter &&
      2 * shared(last.text, text) >= last.text.length;
    this.asked = suits ? last : undefined;
    return suits;
  }

  /**
   * Note what is in the engine after a request has come to its end.
   *
   * @param {{adapter: string | undefined, text: string, usage: any, timings: any}} done `text`: prompt and answer
   */
  note({ adapter, text, usage, timings }) {
    if (!usage || !timings) return;
    if (this.asked && 2 * timings.cache_n < this.asked.tokens) this.copied = true;
    this.last = { adapter, text, tokens: usage.prompt_tokens + usage.completion_tokens };
  }
}

/** How many characters two texts have in common at their beginning. */
function shared(one, other) {
  const most = Math.min(one.length, other.length);
  for (let at = 0; at < most; at++) if (one[at] !== other[at]) return at;
  return most;
}
