/** One sequence of qemu-io commands, run by qemu-io on a file and by our driver in memory. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { type BlockChild, directChild } from "@blocklayer/block-api";
import { alignDown, alignUp, IoVector, parseSize } from "@blocklayer/bytes";
import { type MemoryDriver, openMemory } from "@blocklayer/memory";
import { openQcow2, type Qcow2Driver } from "../../src/index.js";

const run = promisify(execFile);

/**
 * Runs commands in one qemu-io process.
 *
 * @param flags - before the commands: `-t unsafe` keeps flushes from the disk
 */
export async function runQemuIo(
  filename: string,
  commands: readonly string[],
  flags: readonly string[] = [],
): Promise<void> {
  const args = commands.flatMap((command) => ["-c", command]);
  const { stdout } = await run("qemu-io", ["-f", "qcow2", ...flags, ...args, filename], {
    maxBuffer: 2 ** 26,
  });
  const bad = stdout.split("\n").find((line) => /failed|error|invalid/i.test(line));
  if (bad !== undefined) throw new Error(`qemu-io: ${bad}`);
}

/** Runs one command on a driver: write (with -P, -z, -u, -c), discard, flush, read with -P. */
export async function runCommand(disk: Qcow2Driver, command: string): Promise<void> {
  const words = command.split(" ");
  let pattern = 0xcd;
  const flags = new Set<string>();
  const numbers: number[] = [];
  for (let i = 1; i < words.length; i++) {
    const word = words[i] as string;
    if (word === "-P") pattern = Number(words[++i]);
    else if (word.startsWith("-")) flags.add(word);
    else numbers.push(parseSize(word));
  }
  const [offset = 0, length = 0] = numbers;
  switch (words[0]) {
    case "write":
      if (flags.has("-z")) await writeZeroes(disk, offset, length, flags.has("-u"));
      else {
        const bytes = IoVector.of(new Uint8Array(length).fill(pattern));
        await disk.writev(offset, bytes, { compressed: flags.has("-c") });
      }
      break;
    case "discard":
      await disk.discard(offset, length);
      break;
    case "read":
      await disk.readv(offset, IoVector.allocate(length));
      break;
    case "flush":
      await disk.flushToOs();
      break;
    case "truncate":
      await disk.truncate(offset);
      break;
    default:
      throw new Error(`unknown command ${command}`);
  }
}

/** Zeroes in up to three pieces, as a block layer cuts them: QEMU's, and our graph's. */
async function writeZeroes(
  disk: Qcow2Driver,
  offset: number,
  length: number,
  mayUnmap: boolean,
): Promise<void> {
  const unit = disk.limits.writeZeroesAlignment;
  const end = offset + length;
  const middle = Math.min(end, alignUp(offset, unit));
  const tail = Math.max(middle, alignDown(end, unit));
  for (const [from, to] of [
    [offset, middle],
    [middle, tail],
    [tail, end],
  ] as const) {
    if (from < to) await disk.writeZeroes(from, to - from, { mayUnmap });
  }
}

/** Runs commands on an image in memory, and closes it. */
export async function replay(
  bytes: Uint8Array,
  commands: readonly string[],
  backing?: BlockChild,
): Promise<MemoryDriver> {
  const memory = openMemory({ bytes });
  const disk = await openQcow2({
    file: directChild(memory),
    ...(backing === undefined ? {} : { backing }),
  });
  try {
    for (const command of commands) await runCommand(disk, command);
  } finally {
    await disk.close();
  }
  return memory;
}
