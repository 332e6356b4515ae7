/** `blk bench`: how long many requests take. */
import { benchImage, type BenchOptions, openImage, type OpenImageOptions } from "@blocklayer/image";
import { COMMON_OPTIONS, oneFilename, parseWords, UsageError } from "../command-line.js";
import { describeError } from "../describe-error.js";
import { whileOpening } from "../naming.js";
import { cacheMode, openOptions, writeOptions } from "../open-options.js";
import { fixedText } from "../output/percent.js";
import { sizeWord } from "../size-word.js";
import type { Terminal } from "../terminal.js";

const DEFAULT_COUNT = 75_000;
const DEFAULT_DEPTH = 64;
const DEFAULT_LENGTH_BYTES = 4096;
const MAX_INT: number = 2 ** 31 - 1;
const AIO_MODES: readonly string[] = ["threads", "native", "io_uring"];

const OPTIONS = {
  ...COMMON_OPTIONS,
  count: { type: "string", short: "c" },
  depth: { type: "string", short: "d" },
  "flush-interval": { type: "string" },
  aio: { type: "string", short: "i" },
  native: { type: "boolean", short: "n" },
  "no-drain": { type: "boolean" },
  offset: { type: "string", short: "o" },
  pattern: { type: "string" },
  "buffer-size": { type: "string", short: "s" },
  "step-size": { type: "string", short: "S" },
  cache: { type: "string", short: "t" },
  write: { type: "boolean", short: "w" },
} as const;

type Values = ReturnType<typeof parseWords<typeof OPTIONS>>["values"];

export async function bench(args: readonly string[], terminal: Terminal): Promise<number> {
  const { values, positionals } = parseWords(args, OPTIONS);
  const requests = requestsOf(values);
  const filename = oneFilename(positionals);
  const options = imageOptions(values, terminal);
  await using disk = await whileOpening(filename, () => openImage(filename, options));
  // Also with -q, as qemu-img: what would be left to print?
  terminal.out(heading(requests));
  const start = performance.now();
  try {
    await benchImage(disk, { ...requests, signal: terminal.signal });
  } catch (error) {
    if (terminal.signal.aborted) throw error;
    terminal.err(`${terminal.programName}: Failed request: ${describeError(error)}\n`);
    return 1;
  }
  const seconds = (performance.now() - start) / 1000;
  terminal.out(`Run completed in ${fixedText(seconds, 3)} seconds.\n`);
  return 0;
}

function requestsOf(values: Values): BenchOptions {
  refuseAio(values);
  const kind = values.write === true ? "write" : "read";
  const count = numberOr(values.count, DEFAULT_COUNT, 0, "Invalid request count specified");
  const depth = numberOr(values.depth, DEFAULT_DEPTH, 1, "Invalid queue depth specified");
  const interval = values["flush-interval"];
  const flushInterval = numberOr(interval, 0, 0, "Invalid flush interval specified");
  const lengthBytes = sizeOr(values["buffer-size"], DEFAULT_LENGTH_BYTES, "buffer size");
  const stepBytes = sizeOr(values["step-size"], 0, "step_size") || lengthBytes;
  const pattern = numberOr(values.pattern, 0, 0, "Invalid pattern byte specified", 0xff);
  const offset = values.offset === undefined ? 0 : sizeWord(values.offset, "offset");
  if (flushInterval > 0 && kind === "read") {
    throw new UsageError("--flush-interval is only available in write tests");
  }
  if (flushInterval > 0 && flushInterval < depth) {
    throw new UsageError("Flush interval can't be smaller than depth");
  }
  const drainOnFlush = values["no-drain"] !== true;
  return {
    kind,
    count,
    depth,
    flushInterval,
    drainOnFlush,
    lengthBytes,
    offset,
    stepBytes,
    pattern,
  };
}

/** Node has threads, and no other way to keep requests of a file in flight. */
function refuseAio({ aio, native }: Values): void {
  if (aio !== undefined && !AIO_MODES.includes(aio)) {
    throw new UsageError(`Invalid aio option: ${aio}`);
  }
  if (native !== true && (aio === undefined || aio === "threads")) return;
  const word = native === true ? "-n" : `-i ${aio}`;
  throw new UsageError(`${word} is not supported by this version: requests run in threads`);
}

/** A number as C reads it: decimal, or `0x` and hexadecimal. */
function numberOr(
  word: string | undefined,
  fallback: number,
  minimum: number,
  message: string,
  maximum: number = MAX_INT,
): number {
  if (word === undefined) return fallback;
  const value = /^(?:\d+|0[xX][0-9a-fA-F]+)$/.test(word) ? Number(word) : Number.NaN;
  if (value >= minimum && value <= maximum) return value;
  throw new UsageError(message);
}

function sizeOr(word: string | undefined, fallback: number, what: string): number {
  if (word === undefined) return fallback;
  const bytes = sizeWord(word, what);
  if (bytes <= MAX_INT) return bytes;
  throw new UsageError(`Invalid ${what} specified. Must be between 0 and ${MAX_INT}.`);
}

function imageOptions(values: Values, terminal: Terminal): OpenImageOptions {
  const { cache: word, ...open } = values;
  const cache = word === undefined ? {} : { cache: benchCache(word) };
  const options =
    values.write === true ? writeOptions(open, terminal) : openOptions(open, terminal);
  return { ...options, ...cache };
}

function benchCache(word: string): NonNullable<OpenImageOptions["cache"]> {
  try {
    return cacheMode(word, "cache");
  } catch {
    throw new UsageError("Invalid cache mode");
  }
}

function heading(requests: BenchOptions): string {
  const { kind, count, lengthBytes, depth, offset, stepBytes, flushInterval = 0 } = requests;
  const flushes = flushInterval > 0 ? `Sending flush every ${flushInterval} requests\n` : "";
  return (
    `Sending ${count} ${kind} requests, ${lengthBytes} bytes each, ${depth} in parallel ` +
    `(starting at offset ${offset}, step size ${stepBytes})\n${flushes}`
  );
}
