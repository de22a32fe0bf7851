/**
 * edgekit-runtime: one base with many adapters in a browser page.  Same manifest and same words as on other devices.
 *
 *     import { load } from "./edgekit-runtime/index.js";
 *     const runtime = await load("./", { onProgress: ({ loaded, total }) => … });
 *     const answer = await runtime.generate({ adapter: "inspection", prompt: "bracket; scratch 0.4 mm" });
 *     for await (const piece of runtime.stream({ messages })) …
 *     await runtime.adapters.install(file);
 *
 * Types are in index.d.ts.
 */

import { Adapters } from "./adapters.js";
import { withBundle } from "./changes.js";
import { Engine } from "./engine.js";
import { checkBrowser, usableThreads } from "./environment.js";
import { endTokens } from "./end-tokens.js";
import { EdgekitError } from "./errors.js";
import { readGguf } from "./gguf.js";
import { imageFile, listed } from "./images.js";
import { neededFiles } from "./manifest.js";
import { download } from "./files.js";
import { Prompts } from "./prompts.js";
import { checkPenalties } from "./sampling-defaults.js";
import { Site } from "./site.js";
import { asText } from "./specials.js";
import { Store } from "./store.js";
import { checkForm, readCalls } from "./tool-calls.js";

export { EdgekitError };

/** The adapter name that asks for the bare base. */
export const BASE = "base";
/** @typedef {Pick<import("./index.js").LoadOptions, "onProgress" | "signal"> & {allowDowngrade?: boolean}} Taking */
const DEFAULT_MAX_TOKENS = 256;
const DEFAULT_CONTEXT = 2048; // a tab has little memory; elsewhere it is 4096

/**
 * Bring a bundle onto this device, when it isn't there yet, and make it ready to answer.
 *
 * @param {string | URL} site the folder that `edgekit site` wrote
 * @param {import("./index.js").LoadOptions} [options]
 * @returns {Promise<Runtime>}
 */
export async function load(site, options = {}) {
  checkBrowser();
  const folder = new URL(site, document.baseURI);
  const store = await Store.open(folder);
  try {
    const runtime = new Runtime(new Site(folder), store, options);
    await runtime.open();
    return runtime;
  } catch (error) {
    store.close();
    throw error;
  }
}

/**
 * What {@link load} would do: the bundle, and how much of it has yet to be downloaded.
 *
 * @param {string | URL} site
 * @returns {Promise<import("./index.js").Preview>}
 */
export async function preview(site) {
  checkBrowser();
  const folder = new URL(site, document.baseURI);
  const store = await Store.open(folder);
  try {
    const said = new Site(folder);
    await said.open(store);
    const current = await store.current();
    const manifest = current?.manifest ?? (await said.manifest());
    const files = current ? [] : neededFiles(manifest);
    let missing = 0;
    for (const file of files) {
      if (!(await store.has(file.sha256))) missing += Math.max(0, file.size - (await store.partial(file.sha256)));
    }
    const { quota, usage } = (await navigator.storage.estimate?.()) ?? {};
    const total = files.reduce((sum, file) => sum + file.size, 0);
    return { manifest, missing, total, room: quota === undefined ? undefined : quota - (usage ?? 0) };
  } finally {
    store.close();
  }
}

export class Runtime {
  constructor(site, store, options) {
    this.site = site;
    this.store = store;
    this.options = options;
    this.adapters = new Adapters(this);
    this.engine = undefined;
    this.turn = Promise.resolve();
    this.loads = 0; // how often the engine has read the base
  }

  /** What is active: base and adapters.  @returns {import("./index.js").Manifest} */
  get manifest() {
    return this.generation.manifest;
  }

  /** Short prompts that adapters were tried with, by the adapter's name.  @returns {Record<string, string[]>} */
  get examples() {
    return this.site.examples;
  }

  /** What is active, and since when. */
  get info() {
    const { number, parent, created } = this.generation;
    const { engine, loads, context } = this;
    return {
      generation: number,
      parent,
      created,
      threads: engine?.threads,
      loads,
      context,
      signed: Boolean(this.site.trust),
    };
  }

  async open() {
    await this.site.open(this.store);
    const current = await this.store.current();
    if (current) this.generation = current;
    else await this.adopt(await this.site.manifest());
    await this.start();
  }

  /**
   * A newer bundle on the site than the one that is active.
   *
   * @returns {Promise<import("./index.js").Manifest | undefined>} undefined when there is none, or no connection
   */
  async findUpgrade() {
    return this.site.newer(this.manifest, this.store);
  }

  /**
   * Download a newer bundle's files and switch to it; until then, and if it fails, this one goes on answering.
   *
   * @param {import("./index.js").Manifest} manifest
   * @param {Taking} [options]
   */
  async upgrade(manifest, options = {}) {
    await this.adopt(manifest, options);
    await this.startOrRevert();
  }

  /** @param {import("./index.js").Manifest} manifest @param {Taking} [options] */
  async adopt(manifest, { onProgress = this.options.onProgress, signal = this.options.signal, allowDowngrade } = {}) {
    await this.store.exclusively(async () => {
      const change = withBundle(await this.store.current(), manifest, { allowDowngrade }); // before anything is fetched
      void navigator.storage.persist?.().catch(() => undefined); // Firefox asks the user, who may never answer
      await download(this.store, neededFiles(manifest), this.site.bundle, { onProgress, signal });
      await this.use(change);
    });
  }

  /** Make a change the current generation. */
  async use(change) {
    this.generation = await this.store.advance(change);
    await this.store.collect();
  }

  /** Start with what has just become current; what was there before, when the engine refuses it. */
  async startOrRevert() {
    try {
      await this.start();
    } catch (error) {
      this.generation = await this.store.rollback();
      await this.start();
      throw error;
    }
  }

  /** Read the base and the active adapters into the engine, after the answer that is being given. */
  start() {
    return this.inTurn(async () => {
      this.options.onProgress?.({ stage: "start", loaded: 0, total: 1 });
      const { base, adapters } = this.manifest;
      const file = await this.store.file(base.digest);
      if (this.headerOf !== base.digest) {
        this.header = await readGguf(file, base.file);
        this.prompts = new Prompts(this.header, this.manifest.template);
        this.ends = endTokens(this.header.metadata);
        this.headerOf = base.digest;
      }
      const files = new Map();
      for (const { digest } of adapters) files.set(digest, await this.store.file(digest));
      const { projector_digest: projector } = base;
      await this.engine?.close(); // two bases at once don't fit a phone
      this.engine = undefined;
      this.context = Math.min(this.options.context ?? DEFAULT_CONTEXT, base.context);
      this.engine = await Engine.load({
        base: { digest: base.digest, file },
        projector: projector && { digest: projector, file: await this.store.file(projector) },
        adapters: files,
        context: this.context,
        threads: this.options.threads ?? usableThreads(),
        kvCache: base.kv_cache,
      });
      this.loads += 1;
      this.options.onProgress?.({ stage: "start", loaded: 1, total: 1 });
    });
  }

  /**
   * Answer; see {@link Runtime.stream}.
   *
   * @param {import("./index.js").Request} request
   * @returns {Promise<import("./index.js").Generation>}
   */
  async generate(request) {
    const stream = this.stream(request);
    for (;;) {
      const step = await stream.next();
      if (step.done === true) return step.value;
      request.onText?.(step.value);
    }
  }

  /**
   * Answer piece by piece; requests are answered one after another.
   *
   * @param {import("./index.js").Request} request
   * @returns {AsyncGenerator<string, import("./index.js").Generation>} pieces of text; the whole answer is returned
   */
  async *stream(request) {
    const started = performance.now();
    const plan = this.plan(request);
    const files = [];
    for (const image of plan.images) files.push(await imageFile(image));
    let release;
    const mine = new Promise((resolve) => (release = resolve));
    const before = this.turn;
    this.turn = mine;
    await before;
    try {
      return yield* this.answer({ ...plan, files }, request, started);
    } finally {
      release();
    }
  }

  /** What a request asks for, with the adapter's defaults filled in. */
  plan(request) {
    const { prompt, messages, raw, image, adapter, max_tokens, temperature, top_k, top_p, seed, stop, schema } =
      request;
    if ([prompt, messages, raw].filter((each) => each !== undefined).length !== 1) {
      throw new EdgekitError("usage", "a request needs either a prompt or messages or raw text", "give one of them");
    }
    const name = adapter === undefined ? this.manifest.default_adapter : adapter;
    const { entry, scales } = name == null || name === BASE ? { scales: {} } : this.adapters.subject(name);
    const { system, generation, template_arguments } = entry ?? this.manifest.base;
    checkPenalties(generation, entry?.name ?? "the base");
    const defaults = generation ?? {};
    const asking = { tools: request.tools, arguments: request.template_arguments ?? template_arguments };
    const calls = this.calls(request);
    const images = listed(image);
    if (images.length && raw !== undefined) {
      throw new EdgekitError("usage", "a raw prompt can't have images", "send messages");
    }
    if (images.length && this.manifest.task !== "caption") {
      throw new EdgekitError("input", `${this.manifest.name} is a text bundle`, "send images to a caption bundle");
    }
    const conversation = messages ?? [{ role: "user", content: prompt }];
    const texts = raw !== undefined ? [raw] : this.prompts.chat(conversation, system, images.length, asking);
    return {
      name: entry?.name ?? null,
      scales,
      texts,
      images,
      calls,
      maxTokens: max_tokens ?? defaults.max_tokens ?? DEFAULT_MAX_TOKENS,
      stop: stop ?? [],
      sampling: {
        temperature: temperature ?? defaults.temperature ?? 0,
        top_k: top_k ?? defaults.top_k ?? 40,
        top_p: top_p ?? defaults.top_p ?? 0.95,
        min_p: defaults.min_p ?? 0,
        seed: seed ?? crypto.getRandomValues(new Uint32Array(1))[0],
        schema,
      },
    };
  }

  /** How calls are read from the answer; undefined where none are.  @param {import("./index.js").Request} request */
  calls({ tools, tool_choice: choice = "auto" }) {
    if (!tools?.length && choice === "auto") return undefined;
    if (!["auto", "text"].includes(choice)) {
      throw new EdgekitError(
        "unsupported",
        "a browser can't hold answers to calls, nor keep them from calling",
        "ask with tool_choice auto or text",
      );
    }
    if (choice === "text" || !this.prompts.tools) return undefined;
    const { form } = this.prompts.tools;
    checkForm(form, (text) => this.prompts.specials.spans(text).length > 0);
    return form;
  }

  /** @param {any} plan @param {import("./index.js").Request} request @param {number} started */
  async *answer(plan, { signal, reuse, onPrefill }, started) {
    if (!this.engine) throw new EdgekitError("engine", "the engine is not loaded", "reload the page");
    if (!Object.keys(plan.scales).every((digest) => this.engine.adapters.includes(digest))) {
      throw new EdgekitError("engine", `adapter ${plan.name} is not loaded yet`, "wait until it is active");
    }
    const { bos } = this.prompts;
    const { imageMark: mark, projector } = this.engine;
    const text = (projector ? plan.texts.map((each) => asText(each, mark)) : plan.texts).join(mark);
    const twice = this.engine.addsBos && bos && text.startsWith(bos); // the template writes it, and so does the engine
    const prompt = twice ? text.slice(bos.length) : text;
    const began = performance.now();
    let answer = "";
    let first;
    let last;
    let finish = null;
    const asked = { ...plan, prompt, ends: this.ends, signal, reuse, onPrefill };
    for await (const chunk of this.engine.complete(asked)) {
      last = chunk;
      const choice = chunk.choices?.[0];
      first ??= performance.now();
      finish = choice?.finish_reason ?? finish;
      if (choice?.text) {
        answer += choice.text;
        if (!plan.calls) yield choice.text;
      }
    }
    if (signal?.aborted) finish = "cancelled";
    const { text: said, calls } = plan.calls ? readCalls(plan.calls, answer) : { text: answer, calls: [] };
    if (plan.calls && said) yield said;
    if (calls.length && finish !== "length" && finish !== "cancelled") finish = "tool_calls";
    return { ...generation({ plan, text: said, finish, last, started, began, first }), tool_calls: calls };
  }

  /** Do something when no answer is being given. */
  inTurn(action) {
    const result = this.turn.then(action);
    this.turn = result.then(
      () => undefined,
      () => undefined,
    );
    return result;
  }

  /** Free the engine's memory; what is stored stays. */
  async close() {
    await this.inTurn(async () => {
      await this.engine?.close();
      this.engine = undefined;
      this.store.close();
    });
  }
}

function generation({ plan, text, finish, last, started, began, first }) {
  const timings = last?.timings ?? {};
  const usage = last?.usage ?? {};
  const ended = finish === "stop" && !plan.stop.length ? 1 : 0; // the engine counts the token that ended it
  return {
    text,
    adapter: plan.name,
    finish_reason: finish ?? "stop",
    usage: {
      prompt_tokens: usage.prompt_tokens ?? 0,
      completion_tokens: (usage.completion_tokens ?? ended) - ended,
      total_tokens: (usage.total_tokens ?? ended) - ended,
      cached_tokens: timings.cache_n ?? 0,
    },
    timings: {
      queue_ms: began - started,
      prefill_ms: timings.prompt_ms ?? 0,
      ttft_ms: (first ?? performance.now()) - started,
      decode_ms: timings.predicted_ms ?? 0,
      prefill_tps: timings.prompt_per_second ?? 0,
      decode_tps: timings.predicted_per_second ?? 0,
    },
  };
}
