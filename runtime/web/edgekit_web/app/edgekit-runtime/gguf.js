/**
 * A bounded reader of GGUF headers: it never trusts a count, size or offset in the file.
 *
 * Format: GGUF version 2 and 3, little-endian, as specified in ggml's docs/gguf.md.
 */

import { EdgekitError } from "./errors.js";

const MAX_KEYS = 4096;
const MAX_TENSORS = 65_536;
const MAX_KEY_BYTES = 65_535;
const MAX_TENSOR_NAME_BYTES = 63; // GGML_MAX_NAME, less its end
const MAX_STRING_BYTES = 16 * 1024 * 1024;
const MAX_ARRAY_ITEMS = 4 * 1024 * 1024;
const MAX_DIMENSIONS = 4;
const MAX_ELEMENTS = 2 ** 40;
/** Bytes of memory that the parsed metadata of a file may take: a base has a vocabulary, an adapter has not. */
export const BASE_METADATA = 512 * 1024 * 1024;
export const ADAPTER_METADATA = 1024 * 1024;
const [NUMBER_COST, TEXT_COST] = [40, 64]; // as on other devices, so that the same files are taken
const FIRST_READ = 4 * 1024 * 1024; // a header with a large vocabulary takes more, and is read again
const UINT32 = 4;
const INT32 = 5;
const STRING = 8;
const ARRAY = 9;

/** GGUF value types -> [bytes, how a DataView reads them]. */
const SCALARS = {
  0: [1, "getUint8"],
  1: [1, "getInt8"],
  2: [2, "getUint16"],
  3: [2, "getInt16"],
  4: [4, "getUint32"],
  5: [4, "getInt32"],
  6: [4, "getFloat32"],
  7: [1, "getUint8"],
  10: [8, "getBigUint64"],
  11: [8, "getBigInt64"],
  12: [8, "getFloat64"],
};

/** ggml type number -> name, bytes of an element and elements of a block, of those that LoRA matrices can have; others by number. */
const TENSOR_TYPES = { 0: ["F32", 4], 1: ["F16", 2], 8: ["Q8_0", 34 / 32, 32], 30: ["BF16", 2] };
const DEFAULT_ALIGNMENT = 32;
const VALUE_NAMES = ["U8", "I8", "U16", "I16", "U32", "I32", "F32", "BOOL", "STRING", "ARRAY", "U64", "I64", "F64"];

const DECODER = new TextDecoder("utf-8", { ignoreBOM: true }); // a mark at a text's begin is part of it

class Truncated extends Error {}

/**
 * @typedef {object} GgufHeader
 * @property {Map<string, any>} metadata key -> value; arrays of strings are {@link Strings}, those of whole numbers of 4
 *   bytes {@link Numbers}, others null
 * @property {Map<string, string>} types key -> how its value is stored: "F32", and "[U32]" for an array
 * @property {Map<string, {shape: number[], type: string, start: number, end: number}>} tensors name -> shape in ggml's
 *   order, and where its data begins and ends in the file
 */

/** An array of strings that is decoded when one of them is asked for: a vocabulary has a quarter million. */
export class Strings {
  /** @param {Uint8Array} bytes @param {Uint32Array} ends start and end of each, in pairs */
  constructor(bytes, ends) {
    this.bytes = bytes;
    this.ends = ends;
  }

  get length() {
    return this.ends.length / 2;
  }

  /** @param {number} index @returns {string | undefined} */
  at(index) {
    if (!(index >= 0 && index < this.length)) return undefined;
    return DECODER.decode(this.bytes.subarray(this.ends[2 * index], this.ends[2 * index + 1]));
  }
}

/** An array of whole numbers of 4 bytes, likewise. */
class Numbers {
  /** @param {DataView} view @param {number} start @param {number} length */
  constructor(view, start, length) {
    this.view = view;
    this.start = start;
    this.length = length;
  }

  /** @param {number} index @returns {number | undefined} */
  at(index) {
    return index >= 0 && index < this.length ? this.view.getUint32(this.start + 4 * index, true) : undefined;
  }
}

/**
 * Read and check the header of a GGUF file.
 *
 * @param {Blob} file
 * @param {string} name for messages
 * @param {number} [budget] bytes of memory that its metadata may take
 * @returns {Promise<GgufHeader>}
 */
export async function readGguf(file, name, budget = BASE_METADATA) {
  for (let room = FIRST_READ; ; room *= 4) {
    const bytes = new Uint8Array(await file.slice(0, room).arrayBuffer());
    try {
      return new Reader(bytes, name, file.size, budget).read();
    } catch (error) {
      if (!(error instanceof Truncated)) throw error;
      if (room >= file.size) throw unsound(name, "it is truncated");
    }
  }
}

class Reader {
  constructor(bytes, name, size, budget) {
    this.size = size;
    this.budget = budget;
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.name = name;
    this.at = 0;
  }

  read() {
    if (this.bytes.length < 4 || this.text(4) !== "GGUF") throw unsound(this.name, "it does not begin with GGUF");
    const version = this.number(4);
    if (version !== 2 && version !== 3) throw unsound(this.name, `version ${version} is not supported`);
    const tensorCount = this.count(10, MAX_TENSORS, "tensors");
    const keyCount = this.count(10, MAX_KEYS, "metadata keys");
    const metadata = new Map();
    const types = new Map();
    for (let i = 0; i < keyCount; i++) {
      const key = this.key(MAX_KEY_BYTES);
      this.spend(TEXT_COST + key.length);
      if (metadata.has(key)) throw unsound(this.name, `metadata key ${key} stands twice`);
      const kind = this.number(4);
      const start = this.at;
      metadata.set(key, this.value(kind));
      types.set(key, kind === ARRAY ? `[${VALUE_NAMES[this.bytes[start]]}]` : VALUE_NAMES[kind]);
    }
    const tensors = new Map();
    for (let i = 0; i < tensorCount; i++) {
      const key = this.key(MAX_TENSOR_NAME_BYTES);
      if (tensors.has(key)) throw unsound(this.name, `tensor ${key} stands twice`);
      tensors.set(key, this.tensor(key));
    }
    const alignment = metadata.get("general.alignment") ?? DEFAULT_ALIGNMENT;
    if (!Number.isInteger(alignment) || alignment < 8 || alignment > 2 ** 20 || alignment & (alignment - 1)) {
      throw unsound(this.name, `alignment ${alignment} is no power of two in range`);
    }
    this.place(tensors, Math.ceil(this.at / alignment) * alignment, alignment);
    return { metadata, types, tensors };
  }

  /** Where tensors are in the file: each within it, aligned, and none over another. */
  place(tensors, data, alignment) {
    for (const [key, tensor] of tensors) {
      if (tensor.start % alignment) throw unsound(this.name, `tensor ${key} is not aligned`);
      tensor.start += data;
      tensor.end += data;
      if (!(tensor.end <= this.size)) throw unsound(this.name, `the data of tensor ${key} ends beyond the file`);
    }
    let end = 0;
    for (const [key, tensor] of [...tensors].sort(([, a], [, b]) => a.start - b.start)) {
      if (tensor.start < end) throw unsound(this.name, `the data of tensor ${key} overlaps another's`);
      end = tensor.end;
    }
  }

  tensor(key) {
    const dimensions = this.count(4, MAX_DIMENSIONS, `dimensions of tensor ${key}`);
    const shape = [];
    for (let i = 0; i < dimensions; i++) shape.push(this.count(10, MAX_ELEMENTS, `rows of tensor ${key}`));
    if (shape.some((length) => length < 1) || shape.reduce((a, b) => a * b, 1) > MAX_ELEMENTS) {
      throw unsound(this.name, `tensor ${key} has the impossible shape ${shape}`);
    }
    const number = this.number(4);
    const offset = this.number(10);
    const [type, bytes, block = 1] = TENSOR_TYPES[number] ?? [`type ${number}`, 0]; // the engine checks the others
    if (shape.length && shape[0] % block)
      throw unsound(this.name, `tensor ${key} has rows of ${shape[0]}, not of ${block}`);
    return { shape, type, start: offset, end: offset + bytes * shape.reduce((a, b) => a * b, 1) };
  }

  value(kind) {
    if (kind === STRING) {
      const text = this.string(Math.min(MAX_STRING_BYTES, this.budget));
      this.spend(TEXT_COST + text.length);
      return text;
    }
    if (kind === 7) return this.number(7) !== 0;
    if (kind in SCALARS) return this.number(kind);
    if (kind !== ARRAY) throw unsound(this.name, `metadata type ${kind} is unknown`);
    const item = this.number(4);
    const length = this.count(10, MAX_ARRAY_ITEMS, "array items");
    this.spend(length * (item === STRING ? TEXT_COST : NUMBER_COST));
    if (item === STRING) return this.strings(length);
    if (!(item in SCALARS)) throw unsound(this.name, `array type ${item} is unknown`);
    const start = this.take(length * SCALARS[item][0]);
    return item === UINT32 || item === INT32 ? new Numbers(this.view, start, length) : null;
  }

  strings(length) {
    const ends = new Uint32Array(2 * length);
    for (let i = 0; i < length; i++) {
      const size = this.count(10, MAX_STRING_BYTES, "bytes of text");
      this.spend(size);
      ends[2 * i] = this.at;
      this.take(size);
      ends[2 * i + 1] = this.at;
    }
    return new Strings(this.bytes, ends);
  }

  /** What is parsed takes many times the memory that it takes in the file; all of it has one budget. */
  spend(cost) {
    this.budget -= cost;
    if (this.budget < 0) throw unsound(this.name, "it has more metadata than such a file needs");
  }

  /** A name that llama.cpp sees as we do: for it a NUL ends one, so that two could be one. */
  key(limit) {
    const key = this.string(limit);
    if (key === "" || key.includes("\0")) throw unsound(this.name, `${JSON.stringify(key.slice(0, 60))} is no name`);
    return key;
  }

  string(limit) {
    return this.text(this.count(10, limit, "bytes of text"));
  }

  text(length) {
    const start = this.take(length);
    return DECODER.decode(this.bytes.subarray(start, start + length));
  }

  count(kind, limit, what) {
    const value = this.number(kind);
    if (value > limit) throw unsound(this.name, `${value} ${what} are more than the ${limit} that are allowed`);
    return value;
  }

  number(kind) {
    const [size, method] = SCALARS[kind];
    return Number(this.view[method](this.take(size), true));
  }

  take(length) {
    const start = this.at;
    if (length > this.bytes.length - start) throw new Truncated();
    this.at += length;
    return start;
  }
}

function unsound(name, problem) {
  return new EdgekitError("damaged", `${name} is not a sound GGUF file: ${problem}`, "copy or make the file again");
}
