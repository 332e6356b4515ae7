/**
 * The program of a worker thread, as text.
 *
 * Above: WorkerPool, which evaluates it. Below: node:zlib inside the worker.
 *
 * It is a string on purpose: a worker that is a file of its own is not found when a bundler puts
 * everything into one file, and a function turned into text breaks when a minifier adds helpers to
 * it. A string survives both, and starts without a module loader. It needs no more of the language
 * than any Node has, and stays small.
 *
 * Both directions use one stream again and again where `workerData.usesHandle` says that zlib-handle
 * proved it, and the documented functions elsewhere.
 *
 * Protocol: one WorkerRequest in, one WorkerReply out, in order.
 */

import type { CodecName } from "./codec.js";
import { WORKER_ZSTD_SOURCE } from "./worker-zstd.js";

/** Which codec a worker works with. */
export interface WorkerCodec {
  readonly name: CodecName;
  /** The zstd library where node:zlib has none. Made once: threads share its code. */
  readonly wasm?: WebAssembly.Module;
}

/** Where a cluster or a payload lies: index into `buffers`, offset, length, one after another. */
export type SpanTable = readonly number[];

/** A task of a worker. `compress` has one span per cluster; `decompress` two: payload, target. */
export interface WorkerRequest {
  readonly id: number;
  readonly op: "compress" | "decompress";
  readonly codec: WorkerCodec;
  readonly level: number;
  readonly maxBytes: number;
  readonly buffers: readonly SharedArrayBuffer[];
  readonly spans: SpanTable;
}

/** What became of it. */
export interface WorkerReply {
  readonly id: number;
  /** The task as a whole could not be done. */
  readonly error?: string;
  /** `compress`: the payloads' lengths, -1 where too long, */
  readonly lengths?: readonly number[];
  /** and the payloads, one behind the other. */
  readonly bytes?: Uint8Array;
  /** `decompress`: the numbers of the items that failed. */
  readonly failed?: readonly number[];
}

export const WORKER_SOURCE: string = `"use strict";
const { parentPort, workerData } = require("node:worker_threads");
const zlib = require("node:zlib");
const { Z_FINISH, Z_SYNC_FLUSH, Z_MIN_CHUNK } = zlib.constants;

function bytesAt(request, index) {
  const at = index * 3;
  const spans = request.spans;
  return new Uint8Array(request.buffers[spans[at]], spans[at + 1], spans[at + 2]);
}

function deflateOptions(level) {
  return { level, windowBits: 12, memLevel: 8 };
}

// A "transform" writes to output[at..at+room) and returns the room left, or -1 at damage.
function handleTransform(stream, flush) {
  const handle = stream._handle;
  const left = stream._writeState;
  let failed = false;
  handle.onerror = () => {
    failed = true;
  };
  return (input, output, at, room) => {
    failed = false;
    left[0] = room;
    handle.writeSync(flush, input, 0, input.length, output, at, room);
    handle.reset();
    return failed ? -1 : left[0];
  };
}

function documentedDeflate(level) {
  return (input, output, at, room) => {
    const chunkSize = Math.max(input.length, Z_MIN_CHUNK);
    const payload = zlib.deflateRawSync(input, { ...deflateOptions(level), chunkSize });
    if (payload.length > room) return 0;
    output.set(payload, at);
    return room - payload.length;
  };
}

function documentedInflate(input, output, at, room) {
  try {
    const bytes = zlib.inflateRawSync(input, {
      windowBits: 15,
      finishFlush: Z_SYNC_FLUSH,
      chunkSize: Math.max(room, Z_MIN_CHUNK),
      maxOutputLength: Math.max(room, 1),
    });
    output.set(bytes, at);
    return room - bytes.length;
  } catch {
    return -1;
  }
}

let inflater;
const deflate = {
  compressor: (level) =>
    workerData.usesHandle
      ? handleTransform(zlib.createDeflateRaw(deflateOptions(level)), Z_FINISH)
      : documentedDeflate(level),
  decompress(input, output, at, room) {
    inflater ??= workerData.usesHandle
      ? handleTransform(zlib.createInflateRaw({ windowBits: 15 }), Z_SYNC_FLUSH)
      : documentedInflate;
    return inflater(input, output, at, room);
  },
};
${WORKER_ZSTD_SOURCE}
// Each codec, and its compressor of each level, is made when first needed.
let zstd;
function codecOf({ name, wasm }) {
  if (name === "deflate") return deflate;
  zstd ??= wasm === undefined ? nativeZstd() : wasmZstd(wasm);
  return zstd;
}

const compressors = new Map();
function compressorOf(codec, level) {
  const key = codec.name + level;
  let compressor = compressors.get(key);
  if (compressor === undefined) {
    compressor = codecOf(codec).compressor(level);
    compressors.set(key, compressor);
  }
  return compressor;
}

let scratch = new Uint8Array(0);

// One byte more than is allowed: a payload that leaves no room is too long. More than the bound of
// deflateBound() and ZSTD_compressBound() is never needed.
function roomFor(cluster, maxBytes) {
  const n = cluster.length;
  return Math.min(maxBytes, n + (n >> 3) + (n >> 6) + 64) + 1;
}

function compress(request) {
  const compressor = compressorOf(request.codec, request.level);
  const clusters = [];
  for (let i = 0; i < request.spans.length / 3; i++) clusters.push(bytesAt(request, i));
  let needed = 0;
  for (const cluster of clusters) needed += roomFor(cluster, request.maxBytes);
  if (scratch.length < needed) scratch = new Uint8Array(needed);
  const lengths = [];
  let at = 0;
  for (const cluster of clusters) {
    const room = roomFor(cluster, request.maxBytes);
    const left = compressor(cluster, scratch, at, room);
    if (left < 0) throw new Error("compressing failed");
    lengths.push(left === 0 ? -1 : room - left);
    if (left > 0) at += room - left;
  }
  return { id: request.id, lengths, bytes: scratch.slice(0, at) };
}

function decompress(request) {
  const codec = codecOf(request.codec);
  const failed = [];
  for (let i = 0; i < request.spans.length / 6; i++) {
    const target = bytesAt(request, 2 * i + 1);
    const payload = bytesAt(request, 2 * i);
    if (codec.decompress(payload, target, 0, target.length) !== 0) failed.push(i);
  }
  return { id: request.id, failed };
}

parentPort.on("message", (request) => {
  let reply;
  try {
    reply = request.op === "compress" ? compress(request) : decompress(request);
  } catch (error) {
    reply = { id: request.id, error: String(error) };
    // What threw may be in any state.
    zstd = undefined;
    compressors.clear();
  }
  parentPort.postMessage(reply, reply.bytes === undefined ? [] : [reply.bytes.buffer]);
});
`;
