/** What reads and writes have in common: buffers, vectors, the report at the end. */
import { BlockError, IoVector } from "@blocklayer/bytes";
import { CommandError, reasonOf } from "./errors.js";
import type { CommandWords } from "./command-words.js";
import { MAX_REQUEST_BYTES, sizeOf } from "./numbers.js";
import { reportText } from "./report.js";
import type { IoSession } from "./session.js";

/** What a buffer for reading holds before: a byte that nobody writes, so that what is not filled shows. */
const UNREAD = 0xab;

/** @throws CommandError when memory does not suffice */
export function bufferOf(lengthBytes: number, fill: number = UNREAD): Uint8Array {
  try {
    return new Uint8Array(lengthBytes).fill(fill);
  } catch {
    throw new CommandError(`no memory for ${lengthBytes} bytes`);
  }
}

/** The buffers of `off len [len..]`: one allocation, cut as the lengths say. */
export interface Pieces {
  readonly bytes: Uint8Array;
  readonly vector: IoVector;
}

/** @throws CommandError for a length that is none or too long */
export function piecesOf(words: readonly string[], fill?: number): Pieces {
  const lengths = words.map((word) => {
    const length = sizeOf(word);
    if (length <= MAX_REQUEST_BYTES) return length;
    throw new CommandError(`Argument '${word}' exceeds maximum size ${MAX_REQUEST_BYTES}`);
  });
  const total = lengths.reduce((sum, length) => sum + length, 0);
  if (total > MAX_REQUEST_BYTES) {
    throw new CommandError(
      `The total number of bytes exceed the maximum size ${MAX_REQUEST_BYTES}`,
    );
  }
  const bytes = bufferOf(total, fill);
  const parts: Uint8Array[] = [];
  let at = 0;
  for (const length of lengths) {
    parts.push(bytes.subarray(at, at + length));
    at += length;
  }
  return { bytes, vector: IoVector.from(parts) };
}

/** A request and what is said about it. */
export interface TransferPlan {
  readonly verb: string;
  /** Before ` failed: `. */
  readonly failing: string;
  readonly offset: number;
  readonly lengthBytes: number;
  readonly request: () => unknown;
  /** Looks at what was read; prints, and says whether it is right. */
  readonly inspect?: () => boolean;
}

/** Carries a request out, measures it, and reports. @returns whether it went well */
export async function transfer(
  session: IoSession,
  words: CommandWords,
  plan: TransferPlan,
): Promise<boolean> {
  const start = performance.now();
  try {
    await plan.request();
  } catch (error) {
    session.print(`${plan.failing} failed: ${reasonOf(error)}\n`);
    return false;
  }
  const milliseconds = performance.now() - start;
  const isRight = plan.inspect?.() ?? true;
  if (!words.has("q")) {
    const { verb, offset, lengthBytes } = plan;
    const report = { verb, offset, lengthBytes, milliseconds };
    session.print(reportText(report, words.has("C")));
  }
  return isRight;
}

/**
 * Starts a request beside the commands. Its end is told, and is nobody's failure, as with qemu-io. An interruption
 * is told by the command that runs.
 */
export function transferBeside(
  session: IoSession,
  words: CommandWords,
  plan: TransferPlan,
): boolean {
  session.image.start(
    transfer(session, words, plan).then(
      () => undefined,
      (error: unknown) => {
        if (error instanceof BlockError && error.code === "ECANCELED") return;
        session.failed(error);
      },
    ),
  );
  return true;
}
