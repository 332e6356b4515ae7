/** `read`, `readv`, `aio_read`. */
import type { SnapshotControl } from "@blocklayer/block-api";
import { BlockError, IoVector, SECTOR_SIZE_BYTES } from "@blocklayer/bytes";
import type { IoCommand } from "./command.js";
import type { CommandWords } from "./command-words.js";
import { CommandError } from "./errors.js";
import { patternOf, requestLengthOf, sizeOf } from "./numbers.js";
import { dumpText } from "./report.js";
import type { IoSession } from "./session.js";
import { bufferOf, piecesOf, transfer, transferBeside, type TransferPlan } from "./transfer.js";
import { usageOf } from "./command.js";

const UNLIMITED = Number.POSITIVE_INFINITY;

const READ: IoCommand = {
  name: "read",
  alias: "r",
  args: "[-abCqv] [-P pattern [-s off] [-l len]] off len",
  help: "read bytes, and look at them",
  letters: "bCl:pP:qs:v",
  leastWords: 2,
  mostWords: UNLIMITED,
  async run(words, session) {
    const part = words.has("s") || words.has("l");
    const pattern = patternOption(words);
    const skip = words.value("s");
    const count = words.value("l");
    const from = skip === undefined ? 0 : sizeOf(skip);
    const wanted = count === undefined ? undefined : sizeOf(count);
    const [at, size, more] = words.operands;
    if (
      at === undefined ||
      size === undefined ||
      more !== undefined ||
      (part && pattern === undefined)
    )
      throw new CommandError(usageOf(READ));
    const offset = sizeOf(at);
    const length = requestLengthOf(size);
    const checked = wanted ?? length - from;
    if (from < 0 || checked < 0 || from + checked > length) {
      throw new CommandError("pattern verification range exceeds end of read data");
    }
    const isVmState = words.has("b");
    if (isVmState) refuseUnaligned(offset, length);
    const bytes = bufferOf(length);
    return await transfer(session, words, {
      ...planOf(session, "read", offset, IoVector.of(bytes), isVmState),
      inspect: () => inspect(session, words, { bytes, offset, pattern, from, end: from + checked }),
    });
  },
};

const READV: IoCommand = {
  name: "readv",
  args: "[-Cqv] [-P pattern] off len [len..]",
  help: "read bytes into several buffers",
  letters: "CP:qv",
  leastWords: 2,
  mostWords: UNLIMITED,
  run: (words, session) => transfer(session, words, vectorPlan(READV, words, session)),
};

const AIO_READ: IoCommand = {
  name: "aio_read",
  args: "[-Ciqv] [-P pattern] off len [len..]",
  help: "read bytes while the next commands run",
  letters: "CP:iqv",
  leastWords: 2,
  mostWords: UNLIMITED,
  run(words, session) {
    if (words.has("i")) return injectInvalid(session, "read");
    return transferBeside(session, words, vectorPlan(AIO_READ, words, session));
  },
};

export const READ_COMMANDS: readonly IoCommand[] = [READ, READV, AIO_READ];

/** `-P`. */
export function patternOption(words: CommandWords): number | undefined {
  const word = words.value("P");
  return word === undefined ? undefined : patternOf(word);
}

/** VM state (`-b`) and compressed data come by whole sectors. @throws CommandError */
export function refuseUnaligned(offset: number, length: number): void {
  for (const [name, value] of [
    ["offset", offset],
    ["count", length],
  ] as const) {
    if (value % SECTOR_SIZE_BYTES === 0) continue;
    throw new CommandError(`${value} is not a sector-aligned value for '${name}'`);
  }
}

/** The image's VM state (`-b`). @throws BlockError `ENOTSUP` when its format keeps none */
export function vmStateOf(
  session: IoSession,
): Pick<SnapshotControl, "readVmState" | "writeVmState"> {
  const { snapshots } = session.image.backend;
  if (snapshots !== undefined) return snapshots;
  throw new BlockError("ENOTSUP", "the format keeps no VM state", { op: "VM state" });
}

/** `-i`: a request that a guest got wrong, which counts in statistics only. */
export function injectInvalid(session: IoSession, kind: string): boolean {
  session.print(`injecting invalid ${kind} request\n`);
  return true;
}

function vectorPlan(command: IoCommand, words: CommandWords, session: IoSession): TransferPlan {
  const pattern = patternOption(words);
  const [at, ...lengths] = words.operands;
  if (at === undefined || lengths.length === 0) throw new CommandError(usageOf(command));
  const offset = sizeOf(at);
  const { bytes, vector } = piecesOf(lengths);
  return {
    ...planOf(session, "readv", offset, vector),
    inspect: () => inspect(session, words, { bytes, offset, pattern, from: 0, end: bytes.length }),
  };
}

function planOf(
  session: IoSession,
  failing: string,
  offset: number,
  vector: IoVector,
  isVmState = false,
): TransferPlan {
  const { backend } = session.image;
  const { requestOptions } = session;
  return {
    verb: "read",
    failing,
    offset,
    lengthBytes: vector.lengthBytes,
    request: () =>
      isVmState
        ? vmStateOf(session).readVmState(offset, vector, requestOptions)
        : backend.readv(offset, vector, requestOptions),
  };
}

interface Inspection {
  readonly bytes: Uint8Array;
  readonly offset: number;
  readonly pattern: number | undefined;
  /** The part that must hold the pattern. */
  readonly from: number;
  readonly end: number;
}

/** Compares with the pattern (`-P`), and shows the bytes (`-v`). */
function inspect(session: IoSession, words: CommandWords, what: Inspection): boolean {
  const { bytes, offset, pattern, from, end } = what;
  const isRight =
    pattern === undefined || bytes.subarray(from, end).every((one) => one === pattern);
  if (!isRight) {
    session.print(`Pattern verification failed at offset ${offset + from}, ${end - from} bytes\n`);
  }
  if (words.has("v")) session.print(dumpText(bytes, offset));
  return isRight;
}
