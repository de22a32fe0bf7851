/** llama.cpp in WebAssembly, through wllama: one base, adapters that are chosen per request. */

import { Wllama } from "../vendor/wllama/wllama.js";
import { runsWide } from "./environment.js";
import { EdgekitError } from "./errors.js";

const PREFILL_CHUNK = 512;
const VENDOR = new URL("../vendor/wllama/", import.meta.url);
// A call that came to nothing leaves the magic number GLUE where the length of its result would stand.
const NO_RESULT = /array length: 1163217991$/;
const SILENT = { debug() {}, log() {}, warn() {}, error() {} };

/**
 * @typedef {object} Sampling
 * @property {number} temperature 0 is greedy
 * @property {number} top_k
 * @property {number} top_p
 * @property {number} seed
 * @property {object} [schema] JSON schema that the answer has to follow
 */

export class Engine {
  /** @param {Wllama} wllama @param {string[]} adapters digests in the engine's order */
  constructor(wllama, adapters) {
    this.wllama = wllama;
    this.adapters = adapters;
  }

  /**
   * Load a base with its adapters.
   *
   * @param {{base: Blob, adapters: Map<string, Blob>, context: number, threads: number}} files
   *   adapters by digest
   */
  static async load({ base, adapters, context, threads }) {
    const wllama = new Wllama({ default: new URL("wllama.wasm", VENDOR).href }, { suppressNativeLog: true, logger: SILENT });
    const compat = { worker: new URL("compat.js", VENDOR).href, wasm: new URL("compat.wasm", VENDOR).href };
    wllama.setCompat(runsWide() ? null : compat);
    // wllama names its files by their order: the base first, adapters after it.
    const blobs = [base, ...adapters.values()].map((file) => file.slice());
    const total = String(blobs.length).padStart(5, "0");
    const names = blobs.map((_, index) => `models/model-${String(index + 1).padStart(5, "0")}-of-${total}.gguf`);
    try {
      await wllama.loadModel(blobs, {
        n_ctx: context,
        n_batch: PREFILL_CHUNK,
        n_parallel: 1,
        n_threads: threads,
        n_gpu_layers: 0, // bundles are proven on the CPU's arithmetic
        warmup: false,
        lora_adapters: names.slice(1).map((path) => ({ path, scale: 0 })),
      });
      // wllama doesn't look at this itself.
      if (!wllama.getLoadedContextInfo().success) throw new Error("llama.cpp refuses the base or an adapter");
    } catch (error) {
      await wllama.exit().catch(() => undefined);
      throw explained(error, "the engine can't load the base");
    }
    return new Engine(wllama, [...adapters.keys()]);
  }

  get threads() {
    return this.wllama.getNumThreads();
  }

  /** Whether the engine adds BOS to a prompt by itself. */
  get addsBos() {
    return this.wllama.mustAddBosToken();
  }

  /**
   * Continue a prompt.
   *
   * @param {object} request
   * @param {string} request.prompt rendered
   * @param {string | undefined} request.adapter digest
   * @param {number} request.maxTokens
   * @param {Sampling} request.sampling
   * @param {string[]} request.stop
   * @param {boolean} [request.ignoreEnd] go on after the model has ended, for measurements
   * @param {boolean} [request.reuse] keep what the last prompt has in common with this one
   * @param {AbortSignal} [request.signal]
   * @returns {AsyncIterable<any>} chunks in OpenAI's form, llama.cpp's `timings` in the last one
   */
  async *complete({ prompt, adapter, maxTokens, sampling, stop, ignoreEnd = false, reuse = true, signal }) {
    const options = {
      prompt,
      stream: true,
      max_tokens: maxTokens,
      temperature: sampling.temperature,
      top_k: sampling.top_k,
      top_p: sampling.top_p,
      min_p: 0,
      seed: sampling.seed,
      samplers: ["top_k", "top_p", "temperature"],
      stop,
      cache_prompt: reuse,
      ignore_eos: ignoreEnd,
      lora: this.adapters.map((digest, id) => ({ id, scale: digest === adapter ? 1 : 0 })),
      ...(sampling.schema ? { json_schema: sampling.schema } : {}),
    };
    const begun = await this.act("completion", {
      _name: "cmpl_req", is_chat: false, is_asr: false, data_json: JSON.stringify(options), files: [],
    });
    if (!begun.success) throw new EdgekitError("input", "the engine refuses the request", "check its schema");
    let ended = false;
    try {
      while (!ended) {
        if (signal?.aborted) return;
        const result = await this.next(begun.req_id);
        ended = !result.has_more;
        yield* result.chunks;
      }
    } finally {
      if (!ended) await this.act("cancel", { _name: "cncl_req", req_id: begun.req_id }).catch(() => undefined);
    }
  }

  /** What the engine has said since the last call; a step with bytes that are no text gives U+FFFD. */
  async next(request) {
    let result;
    try {
      result = await this.act("get_result", { _name: "gres_req", req_id: request });
    } catch (error) {
      // wllama's own loop would end here: its JSON refuses half characters, which answers that are cut off end in.
      if (error.unreadable) return { has_more: true, chunks: [{ choices: [{ text: "\uFFFD" }] }] };
      throw error;
    }
    const said = result.data_json ? JSON.parse(result.data_json) : null;
    if (result.is_error) throw explained(new Error(said?.message ?? "no reason given"), "the engine failed");
    return { has_more: result.has_more, chunks: said === null ? [] : [said].flat() };
  }

  /** One call into the engine's worker. */
  async act(name, message) {
    try {
      return await this.wllama.proxy.wllamaAction(name, message);
    } catch (error) {
      const failure = explained(error, "the engine failed");
      failure.unreadable = NO_RESULT.test(error.message);
      throw failure;
    }
  }

  async close() {
    await this.wllama.exit();
  }
}

function explained(error, what) {
  if (error.name === "AbortError" || error instanceof EdgekitError) return error;
  const message = String(error?.message ?? error);
  if (/out of memory|memory access|allocat|RangeError|OOM|bad_alloc/i.test(message)) {
    return new EdgekitError(
      "memory", `${what}: this page has no memory left`, "close other tabs and apps, or use a smaller base or context",
    );
  }
  if (/context size|exceed/i.test(message)) {
    return new EdgekitError("context", `the prompt is longer than the context (${message})`, "shorten it");
  }
  return new EdgekitError("engine", `${what} (${message})`, "reload the page");
}
