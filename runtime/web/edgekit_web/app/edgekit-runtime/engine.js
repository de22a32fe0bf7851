/** llama.cpp in WebAssembly, through wllama: one base, adapters that are chosen per request, images where it sees. */

// @ts-ignore: a pinned package, which lies beside the site
import { Wllama } from "../vendor/wllama/wllama.js";
import { KeptCells } from "./cells.js";
import { runsWide } from "./environment.js";
import { EdgekitError } from "./errors.js";
import { hex } from "./hex.js";

// Tokens of a prompt that are read at once: between two chunks the engine tells how far it is, and may be stopped.
const PREFILL_CHUNK = 64;
const PREFILL_CHUNK_WITH_IMAGES = 512; // some projectors' embeddings have to be read at once
const VENDOR = new URL("../vendor/wllama/", import.meta.url);
// A call that came to nothing leaves the magic number GLUE where the length of its result would stand.
const NO_RESULT = /array length: 1163217991$/;
const SILENT = { debug() {}, log() {}, warn() {}, error() {} };

/**
 * @typedef {object} Sampling
 * @property {number} temperature 0 is greedy
 * @property {number} top_k
 * @property {number} top_p
 * @property {number} [min_p] 0 for all
 * @property {number} seed
 * @property {object} [schema] JSON schema that the answer has to follow
 */

export class Engine {
  /**
   * @param {Wllama} wllama
   * @param {{base: string, projector?: string, adapters: string[]}} digests of what is loaded, adapters in their order
   */
  constructor(wllama, { base, projector, adapters }) {
    this.wllama = wllama;
    this.base = base;
    this.projector = projector;
    this.adapters = adapters;
    this.kept = new KeptCells();
  }

  /**
   * Load a base with its adapters.
   *
   * @typedef {{digest: string, file: Blob}} Stored
   * @param {{base: Stored, projector?: Stored, adapters: Map<string, Blob>, context: number, threads: number, kvCache?: string}} files
   *   adapters by digest; the type of the KV cache, F16 unless said
   */
  static async load({ base, projector, adapters, context, threads, kvCache }) {
    const wllama = new Wllama(
      { default: new URL("wllama.wasm", VENDOR).href },
      { suppressNativeLog: true, logger: SILENT },
    );
    const compat = { worker: new URL("compat.js", VENDOR).href, wasm: new URL("compat.wasm", VENDOR).href };
    wllama.setCompat(runsWide() ? null : compat);
    // wllama names its files by their order, the base first, adapters after it; a projector it knows by its header.
    const blobs = [base.file, ...adapters.values()].map((file) => file.slice());
    const total = String(blobs.length).padStart(5, "0");
    const names = blobs.map((_, index) => `models/model-${String(index + 1).padStart(5, "0")}-of-${total}.gguf`);
    const [keys, values = keys] = (kvCache ?? "").split("-"); // as in "q8_0-f16"
    try {
      await wllama.loadModel(projector ? [...blobs, projector.file.slice()] : blobs, {
        n_ctx: context,
        n_batch: projector ? PREFILL_CHUNK_WITH_IMAGES : PREFILL_CHUNK,
        n_parallel: 1,
        n_threads: threads,
        // llama.cpp keeps values in blocks with flash attention alone; keys alone are faster without it.
        ...(kvCache && { cache_type_k: keys, cache_type_v: values, flash_attn: values !== "f16" }),
        n_gpu_layers: 0, // bundles are proven on the CPU's arithmetic
        warmup: false,
        lora_adapters: names.slice(1).map((path) => ({ path, scale: 0 })),
      });
      // wllama doesn't look at this itself.
      const loaded = wllama.getLoadedContextInfo();
      if (!loaded.success) throw new Error("llama.cpp refuses the base, its projector or an adapter");
      if (projector && !loaded.has_image_input) throw new Error("the projector reads no images");
    } catch (error) {
      await wllama.exit().catch(() => undefined);
      throw explained(error, "the engine can't load the base");
    }
    return new Engine(wllama, { base: base.digest, projector: projector?.digest, adapters: [...adapters.keys()] });
  }

  get threads() {
    return this.wllama.getNumThreads();
  }

  /** Whether the engine adds BOS to a prompt by itself. */
  get addsBos() {
    return this.wllama.mustAddBosToken();
  }

  /** What stands in a prompt for an image. */
  get imageMark() {
    return this.wllama.getLoadedContextInfo().media_marker;
  }

  /**
   * Continue a prompt.
   *
   * @param {object} request
   * @param {string} request.prompt rendered, with {@link Engine.imageMark} where images belong
   * @param {Uint8Array[]} [request.files] the images
   * @param {Record<string, number>} request.scales of adapters, by digest; none for the bare base
   * @param {number} request.maxTokens
   * @param {Sampling} request.sampling
   * @param {string[]} request.stop
   * @param {string[]} [request.ends] control tokens that end the answer, beside those that the engine knows
   * @param {boolean} [request.ignoreEnd] go on after the model has ended, for measurements
   * @param {boolean} [request.reuse] keep what the last prompt has in common with this one
   * @param {AbortSignal} [request.signal]
   * @param {(progress: {read: number, total: number}) => void} [request.onPrefill] told tokens of the prompt that are read
   * @returns {AsyncIterable<any>} chunks in OpenAI's form, llama.cpp's `timings` in the last one
   */
  async *complete(request) {
    const {
      prompt,
      files = [],
      scales,
      maxTokens,
      sampling,
      stop,
      ends = [],
      ignoreEnd = false,
      reuse = true,
    } = request;
    const { signal, onPrefill } = request;
    const text = await this.withDigests(prompt, files);
    const adapters = JSON.stringify(Object.entries(scales).sort());
    const keep = this.kept.take({ adapters, text, reuse });
    if (!keep) await this.forget();
    const options = {
      prompt,
      stream: true,
      max_tokens: maxTokens,
      temperature: sampling.temperature,
      top_k: sampling.top_k,
      top_p: sampling.top_p,
      min_p: sampling.min_p ?? 0,
      seed: sampling.seed,
      samplers: ["top_k", "top_p", ...(sampling.min_p ? ["min_p"] : []), "temperature"],
      // A preserved token is written as its text, so that it can be a text that stops.
      ...(ignoreEnd ? { stop } : { stop: [...stop, ...ends], preserved_tokens: ends }),
      cache_prompt: keep,
      ignore_eos: ignoreEnd,
      return_progress: onPrefill !== undefined,
      lora: this.adapters.map((digest, id) => ({ id, scale: scales[digest] ?? 0 })),
      ...(sampling.schema ? { json_schema: sampling.schema } : {}),
    };
    const begun = await this.act("completion", {
      _name: "cmpl_req",
      is_chat: false,
      is_asr: false,
      data_json: JSON.stringify(options),
      files,
    });
    if (!begun.success) throw new EdgekitError("input", "the engine refuses the request", "check its schema");
    let answer = "";
    let last;
    for await (const chunk of this.results(begun.req_id, signal)) {
      if (chunk.prompt_progress) {
        const { processed: read, total } = chunk.prompt_progress;
        onPrefill?.({ read, total });
        continue;
      }
      answer += chunk.choices?.[0]?.text ?? "";
      last = chunk;
      yield chunk;
    }
    if (!signal?.aborted) this.kept.note({ adapters, text: text + answer, usage: last?.usage, timings: last?.timings });
  }

  /** All that the engine says of a request; one that nobody waits for any more is cancelled. */
  async *results(request, signal) {
    let ended = false;
    try {
      while (!ended) {
        if (signal?.aborted) return;
        const result = await this.next(request);
        ended = !result.has_more;
        yield* result.chunks;
      }
    } finally {
      if (!ended) await this.act("cancel", { _name: "cncl_req", req_id: request }).catch(() => undefined);
    }
  }

  /** Let the engine read something short in the place of the last prompt, so that it makes no copy of its cells. */
  async forget() {
    const { success, req_id: request } = await this.act("embedding", {
      _name: "embd_req",
      data_json: JSON.stringify({ input: " " }),
      files: [],
    });
    if (!success) throw new EdgekitError("engine", "the engine can't leave the last prompt", "reload the page");
    for await (const _ of this.results(request));
  }

  /** A prompt with the digests of its images in their places: the same text is the same prompt. */
  async withDigests(prompt, files) {
    const [first, ...rest] = files.length ? prompt.split(this.imageMark) : [prompt];
    let text = first;
    for (const [index, part] of rest.entries()) text += hex(await crypto.subtle.digest("SHA-256", files[index])) + part;
    return text;
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
      "memory",
      `${what}: this page has no memory left`,
      "close other tabs and apps, or use a smaller base or context",
    );
  }
  if (/context size|exceed/i.test(message)) {
    return new EdgekitError("context", `the prompt is longer than the context (${message})`, "shorten it");
  }
  return new EdgekitError("engine", `${what} (${message})`, "reload the page");
}
