/** edgekit-runtime: one base with many adapters in a browser page. */

/** The adapter name that asks for the bare base. */
export const BASE: "base";

export type ErrorCode =
  | "usage"
  | "input"
  | "network"
  | "storage"
  | "quota"
  | "memory"
  | "unsupported"
  | "signature"
  | "family"
  | "damaged"
  | "context"
  | "engine";

/** What went wrong, and how to mend it. */
export class EdgekitError extends Error {
  readonly code: ErrorCode;
  readonly problem: string;
  readonly mend?: string;
  /** Figures and names in the message, for translations. */
  readonly facts: Record<string, string | number>;
}

/** The place of an image, in the order in which they come with the request, or a text. */
export type Part = { type: "image" } | { type: "text"; text: string };

export interface Message {
  role: "system" | "user" | "assistant" | "tool";
  /** May be left out beside calls. */
  content?: string | Part[] | null;
  /** Of the assistant: what it calls. */
  tool_calls?: ToolCall[];
  /** Of a tool: the call that it answers. */
  tool_call_id?: string;
  name?: string;
}

/** A file that the browser decodes (JPEG, PNG, WebP…), or pixels: an element, a canvas, a video's frame. */
export type ImageSource = ImageBitmapSource;

/** Sampling defaults of an adapter. */
export interface GenerationDefaults {
  max_tokens?: number;
  temperature?: number;
  top_k?: number;
  top_p?: number;
  min_p?: number;
  /** These three are refused with any value that changes something: a page's engine counts tokens in another way. */
  repetition_penalty?: number;
  frequency_penalty?: number;
  presence_penalty?: number;
}

/** As in the bundle's manifest (schema `edgekit.bundle/1`). */
export interface BaseEntry {
  file: string;
  architecture: string;
  parameters: number;
  quantization: string;
  /** Tokens. */
  context: number;
  family: string;
  /** sha256 of the file. */
  digest: string;
  /** What reads images for it, in caption bundles, and its sha256. */
  projector?: string | null;
  projector_digest?: string | null;
  kv_cache?: string | null;
  merged: string[];
  system?: string;
  generation?: GenerationDefaults;
  /** Variables that the chat template gets, `enable_thinking` say. */
  template_arguments?: Record<string, unknown>;
  schema?: object;
}

export interface AdapterEntry {
  name: string;
  version: string;
  file: string;
  rank: number;
  targets: string[];
  family: string;
  /** sha256 of the file. */
  digest: string;
  system?: string;
  generation?: GenerationDefaults;
  /** Variables that the chat template gets, `enable_thinking` say. */
  template_arguments?: Record<string, unknown>;
  /** JSON schema of its answers. */
  schema?: object;
  quality?: Record<string, unknown>;
}

/** Adapters that answer together, under a name of their own. */
export interface StackEntry {
  name: string;
  /** Each with its scale, and the sha256 of the file that the stack was proven with. */
  adapters: { name: string; scale: number; digest: string }[];
  system?: string;
  generation?: GenerationDefaults;
  template_arguments?: Record<string, unknown>;
  schema?: object;
  quality?: Record<string, unknown>;
}

export interface InstalledAdapter extends AdapterEntry {
  active: boolean;
}

export interface Manifest {
  schema: "edgekit.bundle/1";
  name: string;
  version: string;
  created: string;
  engine: string;
  task: "text" | "caption";
  base: BaseEntry;
  adapters: AdapterEntry[];
  /** Of the bundle; {@link Adapters.stacks} has those that answer now. */
  stacks?: StackEntry[];
  default_adapter: string | null;
  files: { path: string; size: number; sha256: string }[];
  requires: { runtime: string; memory_mb: number; isa: string };
  quality: Record<string, unknown>;
  /** What `edgekit site` found out about the base's chat template. */
  template?: { image: any; probes: any[]; [fact: string]: any };
}

export interface Progress {
  /** Files being downloaded (bytes), or the engine reading the base (0 of 1, then 1 of 1). */
  stage: "download" | "start";
  loaded: number;
  total: number;
  file?: string;
}

export interface Preview {
  manifest: Manifest;
  /** Bytes that have yet to be downloaded; 0 when everything is here. */
  missing: number;
  /** Bytes of all its files. */
  total: number;
  /** Bytes that the browser offers; undefined when it doesn't say. */
  room?: number;
}

export interface LoadOptions {
  onProgress?: (progress: Progress) => void;
  /** Stops a download; what has come is kept, and the next call goes on there. */
  signal?: AbortSignal;
  /** Tokens of prompt and answer together; 2048 unless the base has less. */
  context?: number;
  /** Half the cores, at most 4; always 1 on pages that are not cross-origin isolated. */
  threads?: number;
}

export interface Request {
  /** One user message… */
  prompt?: string;
  /** …or a whole conversation… */
  messages?: Message[];
  /**
   * Descriptions of functions that the model may call.  Nothing holds arguments to their schema in a browser: check what
   * comes.  The answer comes in one piece then.
   */
  tools?: object[];
  /** "auto" reads calls from the answer; "text" leaves them in it, as the model writes them.  Others are refused. */
  tool_choice?: "auto" | "text";
  /** Variables that the chat template gets; the adapter's when left out. */
  template_arguments?: Record<string, unknown>;
  /** …or text to continue as it is, without template or system prompt. */
  raw?: string;
  /**
   * For caption bundles: an image or several, 8 at most.  Files have 16 MiB and 50 million pixels at most; what is larger
   * than 2048 pixels is scaled down.  Without places in `messages` they come before the last question.
   */
  image?: ImageSource | ImageSource[];
  /** Its name; "base" for the bare base; the bundle's default when left out. */
  adapter?: string | null;
  max_tokens?: number;
  /** 0 (greedy) unless the adapter says otherwise. */
  temperature?: number;
  top_k?: number;
  top_p?: number;
  seed?: number;
  /** Texts that end the answer and are not part of it. */
  stop?: string[];
  /** JSON schema that the answer has to follow. */
  schema?: object;
  /** Ends the answer; what has come is its text, and `finish_reason` is "cancelled". */
  signal?: AbortSignal;
  /** For `generate`: called with each piece. */
  onText?: (piece: string) => void;
  /**
   * Called while the prompt is read, with the tokens read of all it has, those in the KV cache included.  An image is encoded
   * before without a word.
   */
  onPrefill?: (progress: { read: number; total: number }) => void;
  /** Keep the KV cache of what the last prompt has in common with this one (true). */
  reuse?: boolean;
}

export interface ToolCall {
  id: string;
  type: "function";
  function: { name: string; arguments: Record<string, unknown> };
}

export interface Generation {
  text: string;
  /** null for the bare base. */
  adapter: string | null;
  finish_reason: "stop" | "length" | "cancelled" | "tool_calls";
  /** What the model calls; nothing holds arguments to a schema here. */
  tool_calls: ToolCall[];
  usage: { prompt_tokens: number; completion_tokens: number; total_tokens: number; cached_tokens: number };
  /** Milliseconds and tokens per second; TTFT counts from the call to the first piece. */
  timings: {
    queue_ms: number;
    prefill_ms: number;
    ttft_ms: number;
    decode_ms: number;
    prefill_tps: number;
    decode_tps: number;
  };
}

export interface Adapters {
  /** Every version that is installed. */
  list(): InstalledAdapter[];
  /** The active adapter of that name. */
  get(name: string): AdapterEntry;
  /** The stacks whose adapters are active as they were proven: requests ask for them as for adapters. */
  stacks(): StackEntry[];
  /**
   * Install an adapter file, active at once in the place of an earlier one of its name.
   *
   * It has to be sound, of the base's family, and signed where the site names keys.  The engine then reads the base again
   * from this device; a file that it refuses leaves everything as it was.
   *
   * @param source a file, or where to fetch it; its signature is then at the same place with `.sig` after the name
   * @throws EdgekitError "damaged", "family", "signature", "network", "quota", "input" (older than the active one)
   */
  install(
    source: File | Blob | string | URL,
    options?: { signature?: Blob; name?: string; allowDowngrade?: boolean },
  ): Promise<AdapterEntry>;
  /** Make an installed version the active one, the newest when none is named. */
  activate(name: string, version?: string): Promise<void>;
  /** Take an adapter out, all versions or one. */
  remove(name: string, version?: string): Promise<void>;
  /** Go back to what was active before the last change; the base too, if that was changed. */
  rollback(): Promise<void>;
}

export class Runtime {
  /** What is active: base and adapters. */
  readonly manifest: Manifest;
  readonly adapters: Adapters;
  /** Short prompts from the evaluation of the site's bundle, by adapter: at most four each, none where the report has none. */
  readonly examples: Record<string, string[]>;
  /** The generation in use; `loads` is how often the engine has read the base. */
  readonly info: {
    generation: number;
    parent: number | null;
    created: string;
    threads: number | undefined;
    loads: number;
    context: number;
    /** Whether only bundles and adapters are taken that a key of the site has signed. */
    signed: boolean;
  };
  /** Answer. */
  generate(request: Request): Promise<Generation>;
  /** Answer piece by piece; the whole answer is the generator's return value. */
  stream(request: Request): AsyncGenerator<string, Generation>;
  /** A newer bundle on the site than the one that is active; undefined when there is none, or no connection. */
  findUpgrade(): Promise<Manifest | undefined>;
  /** Download a newer bundle's files and switch to it; until then, and if it fails, this one goes on answering. */
  upgrade(
    manifest: Manifest,
    options?: Pick<LoadOptions, "onProgress" | "signal"> & { allowDowngrade?: boolean },
  ): Promise<void>;
  /** Free the engine's memory; what is stored stays. */
  close(): Promise<void>;
}

/**
 * Bring a bundle onto this device, when it isn't there yet, and make it ready to answer.
 *
 * @param site the folder that `edgekit site` wrote
 * @throws EdgekitError "unsupported" (no SIMD, no secure connection), "storage" (private mode), "quota", "network",
 *   "damaged", "signature", "memory"
 */
export function load(site: string | URL, options?: LoadOptions): Promise<Runtime>;

/** What {@link load} would do: the bundle, and how much of it has yet to be downloaded. */
export function preview(site: string | URL): Promise<Preview>;
