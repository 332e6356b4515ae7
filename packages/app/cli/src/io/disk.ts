/** Commands about the disk as a whole, and those that are neither reads nor writes. */
import type { PreallocationMode } from "@blocklayer/block-api";
import { diskFormatInfo } from "@blocklayer/image";
import { recordLines } from "../output/info-text.js";
import { type IoCommand, usageOf } from "./command.js";
import { CommandError, reasonOf, ReportedError, storyOf } from "./errors.js";
import { requestLengthOf, sizeOf, sizeText } from "./numbers.js";
import type { IoSession } from "./session.js";
import { transfer } from "./transfer.js";

const UNLIMITED = Number.POSITIVE_INFINITY;
const SECTOR_BYTES = 512;
const PREALLOCATION: readonly PreallocationMode[] = ["off", "metadata", "falloc", "full"];

const DISCARD: IoCommand = {
  name: "discard",
  alias: "d",
  args: "[-Cq] off len",
  help: "say that bytes are no longer needed",
  letters: "Cq",
  leastWords: 2,
  mostWords: UNLIMITED,
  isChange: true,
  async run(words, session) {
    const [at, size, more] = words.operands;
    if (at === undefined || size === undefined || more !== undefined)
      throw new CommandError(usageOf(DISCARD));
    const offset = sizeOf(at);
    const lengthBytes = requestLengthOf(size);
    const { backend, ignoresDiscard } = session.image;
    const request = (): unknown =>
      ignoresDiscard ? undefined : backend.discard(offset, lengthBytes, session.requestOptions);
    const plan = { verb: "discard", failing: "discard", offset, lengthBytes, request };
    return await transfer(session, words, plan);
  },
};

const TRUNCATE: IoCommand = {
  name: "truncate",
  alias: "t",
  args: "[-m prealloc_mode] off",
  help: "set the length of the disk",
  letters: "m:",
  leastWords: 1,
  mostWords: 3,
  isChange: true,
  async run(words, session) {
    const mode = words.value("m") ?? "off";
    const preallocation = PREALLOCATION.find((one) => one === mode);
    if (preallocation === undefined) {
      throw new ReportedError(`Invalid preallocation mode '${mode}'`, true);
    }
    const [size] = words.operands;
    if (size === undefined) throw new CommandError(usageOf(TRUNCATE));
    const lengthBytes = sizeOf(size);
    try {
      await session.image.backend.truncate(lengthBytes, {
        ...session.requestOptions,
        preallocation,
      });
    } catch (error) {
      throw new ReportedError(storyOf(error), true);
    }
    return true;
  },
};

const FLUSH: IoCommand = {
  name: "flush",
  alias: "f",
  args: "",
  help: "make everything that was written survive a crash",
  letters: "",
  leastWords: 0,
  mostWords: 0,
  async run(_, session) {
    await orPrint("flush", () => session.image.backend.flush(session.requestOptions));
    return true;
  },
};

const AIO_FLUSH: IoCommand = {
  name: "aio_flush",
  args: "",
  help: "wait for every request that runs beside the commands",
  letters: "",
  leastWords: 0,
  mostWords: 0,
  async run(_, session) {
    await session.image.settle();
    return true;
  },
};

const LENGTH: IoCommand = {
  name: "length",
  alias: "l",
  args: "",
  help: "print how long the disk is",
  letters: "",
  leastWords: 0,
  mostWords: 0,
  run(_, session) {
    session.print(`${sizeText(session.image.backend.lengthBytes)}\n`);
    return true;
  },
};

const INFO: IoCommand = {
  name: "info",
  alias: "i",
  args: "",
  help: "print what the image says about itself",
  letters: "",
  leastWords: 0,
  mostWords: 0,
  async run(_, session) {
    const { root } = session.image.backend;
    const format = await diskFormatInfo(root);
    const clusterSize = format?.clusterSizeBytes ?? 0;
    session.print(
      `format name: ${root.driverName}\n` +
        `cluster size: ${sizeText(clusterSize)}\n` +
        `vm state offset: ${sizeText(format?.vmStateOffset ?? 0)}\n`,
    );
    if (format === undefined || Object.keys(format.data).length === 0) return true;
    const lines = ["Format specific information:", ...recordLines(format.data, 1)];
    session.print(`${lines.join("\n")}\n`);
    return true;
  },
};

const MAP: IoCommand = {
  name: "map",
  args: "",
  help: "print which parts of the disk this image holds",
  letters: "",
  leastWords: 0,
  mostWords: 0,
  async run(_, session) {
    const { lengthBytes } = session.image.backend;
    for (let at = 0; at < lengthBytes; ) {
      const [length, allocated] = await orReport("Failed to get allocation status", () =>
        allocationAt(session, at, lengthBytes),
      );
      const word = allocated ? "    allocated" : "not allocated";
      session.print(`${withHex(length)} bytes ${word} at offset ${withHex(at)}\n`);
      at += length;
    }
    return true;
  },
};

const ALLOC: IoCommand = {
  name: "alloc",
  alias: "a",
  args: "offset [count]",
  help: "count the bytes that this image holds",
  letters: "",
  leastWords: 1,
  mostWords: 2,
  async run(words, session) {
    const [at = "", size = String(SECTOR_BYTES)] = words.operands;
    const offset = sizeOf(at);
    const end = Math.min(offset + sizeOf(size), session.image.backend.lengthBytes);
    const count = Math.max(end - offset, 0);
    let sum = 0;
    for (let from = offset; from < end; ) {
      const [length, allocated] = await orPrint("is_allocated", () =>
        allocationAt(session, from, end),
      );
      if (allocated) sum += length;
      from += length;
    }
    session.print(`${sum}/${count} bytes allocated at offset ${sizeText(offset)}\n`);
    return true;
  },
};

export const DISK_COMMANDS: readonly IoCommand[] = [
  DISCARD,
  TRUNCATE,
  FLUSH,
  AIO_FLUSH,
  LENGTH,
  INFO,
  MAP,
  ALLOC,
];

/** @throws CommandError `what failed: why` */
async function orPrint<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new CommandError(`${what} failed: ${reasonOf(error)}`);
  }
}

/** @throws ReportedError `what: why` */
async function orReport<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw new ReportedError(`${what}: ${reasonOf(error)}`, true);
  }
}

/** How far the disk goes on as at `offset`, and whether the image itself holds it. */
async function allocationAt(
  session: IoSession,
  offset: number,
  end: number,
): Promise<readonly [length: number, allocated: boolean]> {
  const { backend } = session.image;
  const options = { ...session.requestOptions, wantZero: false };
  const statusAt = (at: number) => backend.blockStatus(at, end - at, options);
  const first = await statusAt(offset);
  let length = first.lengthBytes;
  while (offset + length < end) {
    const next = await statusAt(offset + length);
    if (next.allocated !== first.allocated) break;
    length += next.lengthBytes;
  }
  return [length, first.allocated];
}

function withHex(value: number): string {
  return `${sizeText(value)} (0x${value.toString(16)})`;
}
