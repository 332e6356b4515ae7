/** `write`, `writev`, `aio_write`. */
import { readFile } from "node:fs/promises";
import { errnoText, IoVector } from "@blocklayer/bytes";
import type { WriteOptions, WriteZeroesOptions } from "@blocklayer/block-api";
import { type IoCommand, usageOf } from "./command.js";
import type { CommandWords } from "./command-words.js";
import { CommandError, ReportedError } from "./errors.js";
import { requestLengthOf, sizeOf } from "./numbers.js";
import { injectInvalid, patternOption, refuseUnaligned, vmStateOf } from "./reading.js";
import type { IoSession } from "./session.js";
import { bufferOf, piecesOf, transfer, transferBeside, type TransferPlan } from "./transfer.js";

const UNLIMITED = Number.POSITIVE_INFINITY;
/** What is written when nothing else is said. */
const DEFAULT_PATTERN = 0xcd;

const WRITE: IoCommand = {
  name: "write",
  alias: "w",
  args: "[-bcCfnquz] [-P pattern | -s source_file] off len",
  help: "write bytes, or zeroes",
  letters: "bcCfnpP:qs:uz",
  leastWords: 2,
  mostWords: UNLIMITED,
  isChange: true,
  async run(words, session) {
    const pattern = patternOption(words);
    const [at, size, more] = words.operands;
    if (at === undefined || size === undefined || more !== undefined)
      throw new CommandError(usageOf(WRITE));
    refuseContradictions(words);
    const offset = sizeOf(at);
    const isZero = words.has("z");
    const length = words.has("n") ? sizeOf(size) : requestLengthOf(size, " without -n");
    if (words.has("b") || words.has("c")) refuseUnaligned(offset, length);
    if (isZero)
      return await transfer(session, words, zeroPlan(session, words, "write", offset, length));
    const source = words.value("s");
    const bytes =
      source === undefined
        ? bufferOf(length, pattern ?? DEFAULT_PATTERN)
        : await repeated(source, length);
    return await transfer(
      session,
      words,
      writePlan(session, words, "write", offset, IoVector.of(bytes)),
    );
  },
};

const WRITEV: IoCommand = {
  name: "writev",
  args: "[-Cfq] [-P pattern] off len [len..]",
  help: "write bytes from several buffers",
  letters: "CfP:q",
  leastWords: 2,
  mostWords: UNLIMITED,
  isChange: true,
  run: (words, session) => transfer(session, words, vectorPlan(WRITEV, words, session, "writev")),
};

const AIO_WRITE: IoCommand = {
  name: "aio_write",
  args: "[-Cfiquz] [-P pattern] off len [len..]",
  help: "write bytes, or zeroes, while the next commands run",
  letters: "CfiP:quz",
  leastWords: 2,
  mostWords: UNLIMITED,
  isChange: true,
  run(words, session) {
    const [at, size, more] = words.operands;
    if (at === undefined || size === undefined) throw new CommandError(usageOf(AIO_WRITE));
    if (words.has("z") && more !== undefined) {
      throw new CommandError("-z supports only a single length parameter");
    }
    if (words.has("u") && !words.has("z")) throw new CommandError("-u requires -z to be specified");
    if (words.has("i")) return injectInvalid(session, "write");
    const plan = words.has("z")
      ? zeroPlan(session, words, "aio_write", sizeOf(at), sizeOf(size))
      : vectorPlan(AIO_WRITE, words, session, "aio_write");
    return transferBeside(session, words, plan);
  },
};

export const WRITE_COMMANDS: readonly IoCommand[] = [WRITE, WRITEV, AIO_WRITE];

function refuseContradictions(words: CommandWords): void {
  const has = (letter: string): boolean => words.has(letter);
  if (has("b") && has("z"))
    throw new CommandError("-b and -z cannot be specified at the same time");
  if (has("f") && (has("b") || has("c"))) {
    throw new CommandError("-f and -b or -c cannot be specified at the same time");
  }
  if (has("n") && !has("z")) throw new CommandError("-n requires -z to be specified");
  if (has("u") && !has("z")) throw new CommandError("-u requires -z to be specified");
  if ([has("z"), has("P"), has("s")].filter(Boolean).length > 1) {
    throw new CommandError("Only one of -z, -P, and -s can be specified at the same time");
  }
}

function vectorPlan(
  command: IoCommand,
  words: CommandWords,
  session: IoSession,
  failing: string,
): TransferPlan {
  const pattern = patternOption(words);
  const [at, ...lengths] = words.operands;
  if (at === undefined || lengths.length === 0) throw new CommandError(usageOf(command));
  const offset = sizeOf(at);
  const { vector } = piecesOf(lengths, pattern ?? DEFAULT_PATTERN);
  return writePlan(session, words, failing, offset, vector);
}

function writePlan(
  session: IoSession,
  words: CommandWords,
  failing: string,
  offset: number,
  vector: IoVector,
): TransferPlan {
  const { backend, writethrough } = session.image;
  const options: WriteOptions = {
    ...session.requestOptions,
    fua: writethrough || words.has("f"),
    compressed: words.has("c"),
  };
  return {
    verb: "wrote",
    failing,
    offset,
    lengthBytes: vector.lengthBytes,
    request: () =>
      words.has("b")
        ? writeVmState(session, offset, vector)
        : backend.writev(offset, vector, options),
  };
}

async function writeVmState(session: IoSession, offset: number, vector: IoVector): Promise<void> {
  await vmStateOf(session).writeVmState(offset, vector, session.requestOptions);
  const { backend, writethrough } = session.image;
  if (writethrough) await backend.flush(session.requestOptions);
}

function zeroPlan(
  session: IoSession,
  words: CommandWords,
  failing: string,
  offset: number,
  lengthBytes: number,
): TransferPlan {
  const { backend, writethrough, ignoresDiscard } = session.image;
  const options: WriteZeroesOptions = {
    ...session.requestOptions,
    fua: writethrough || words.has("f"),
    mayUnmap: words.has("u") && !ignoresDiscard,
    noFallback: words.has("n"),
  };
  return {
    verb: "wrote",
    failing,
    offset,
    lengthBytes,
    request: () => backend.writeZeroes(offset, lengthBytes, options),
  };
}

/** The bytes of a file, again and again (`-s`). */
async function repeated(path: string, length: number): Promise<Uint8Array> {
  const pattern = await readFile(path).catch((error: NodeJS.ErrnoException): never => {
    throw new ReportedError(`${path}: ${errnoText(error.code ?? "EIO")}`);
  });
  if (pattern.length === 0) throw new ReportedError(`${path}: file is empty`);
  const bytes = bufferOf(length, 0);
  for (let at = 0; at < length; at += pattern.length) {
    bytes.set(pattern.subarray(0, Math.min(pattern.length, length - at)), at);
  }
  return bytes;
}
