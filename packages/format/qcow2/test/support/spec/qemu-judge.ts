/** What QEMU's tools do with an image of a record. */
import { execFile } from "node:child_process";
import { mkdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { clusterSizeOf, pieceText, WRITTEN } from "./judge.js";
import type { Counts, SpecRecord } from "./record.js";
import { GUEST_CLUSTERS } from "./spec-image.js";

const run = promisify(execFile);

/** Longer disks are not converted. */
const MAX_GUEST_BYTES: number = 40 * 2 ** 20;

/** What they say. */
export interface QemuVerdict {
  /** `qemu-img info` shows it. */
  readonly info: boolean;
  /** It opens read-only. */
  readonly read: boolean;
  /** Its disk, as `Expected.guest`; undefined when a part of it cannot be read, or it is too long to read. */
  readonly guest: string | undefined;
  /** It opens for writing, and its first and last cluster are written. */
  readonly write: boolean;
  /** Undefined when it is not checked. */
  readonly check: Counts | undefined;
  /** What this driver has repaired is clean; undefined when there is none. */
  readonly repaired: boolean | undefined;
  /** What they said on the way, for a failing test. */
  readonly words: string;
}

/** Runs all of them in one shell; each writes into a file of its own. */
const SCRIPT = `
cp image copy
qemu-img info -f qcow2 image >info.out 2>info.err; echo $?
qemu-io -r -f qcow2 -c length image >read.out 2>read.err; echo $?
qemu-img check -f qcow2 --output=json image >check.out 2>check.err; echo $?
if [ "$2" = convert ]; then qemu-img convert -f qcow2 -O raw image raw.out 2>raw.err; echo $?; else echo 1; fi
qemu-io -f qcow2 $1 copy >write.out 2>write.err; echo $?
if [ -f repaired ]; then qemu-img check -f qcow2 repaired >repaired.out 2>repaired.err; echo $?; fi
`;

/** Judges an image. @param folder - a folder for this image alone; it is made */
export async function judgeWithQemu(
  folder: string,
  record: SpecRecord,
  bytes: Uint8Array,
  { guestBytes, repaired }: { readonly guestBytes?: number; readonly repaired?: Uint8Array },
): Promise<QemuVerdict> {
  await mkdir(folder);
  await writeFile(join(folder, "image"), bytes);
  if (repaired !== undefined) await writeFile(join(folder, "repaired"), repaired);
  if (record.backing !== undefined) await writeFile(join(folder, "base.raw"), record.backing());
  if (record.dataFile !== undefined) await writeFile(join(folder, "data.raw"), record.dataFile());
  const converts = guestBytes !== undefined && guestBytes <= MAX_GUEST_BYTES;
  const clusterSize = clusterSizeOf(bytes);
  const last = (GUEST_CLUSTERS - 1) * clusterSize;
  const lengthBytes = guestBytes ?? last + clusterSize;
  const writes = [
    ...(lengthBytes >= clusterSize ? [`write -P ${WRITTEN.first} 0 ${clusterSize}`] : []),
    ...(lengthBytes >= last + clusterSize
      ? [`write -P ${WRITTEN.last} ${last} ${clusterSize}`]
      : []),
    "flush",
  ];
  const quoted = writes.map((command) => `-c '${command}'`).join(" ");
  const script = SCRIPT.replace("$1", quoted).replace("$2", converts ? "convert" : "no");
  const { stdout } = await run("sh", ["-c", script], { cwd: folder, timeout: 60_000 });
  const codes = stdout.trim().split("\n").map(Number);
  const text = async (name: string): Promise<string> => readFile(join(folder, name), "utf8");
  const written = (await text("write.out")).match(/^wrote /gm)?.length ?? 0;
  const words = await Promise.all(["info", "read", "check", "write"].map((n) => text(`${n}.err`)));
  return {
    info: codes[0] === 0,
    read: codes[1] === 0,
    check: countsIn(await text("check.out")),
    write: codes[4] === 0 && written === writes.length - 1,
    guest:
      converts && codes[3] === 0
        ? await guestIn(join(folder, "raw.out"), record.pieceBytes ?? clusterSize)
        : undefined,
    repaired: repaired === undefined ? undefined : codes[5] === 0,
    words: words.join(""),
  };
}

function countsIn(json: string): Counts | undefined {
  if (!json.startsWith("{")) return undefined;
  const found = JSON.parse(json) as Record<string, number>;
  return {
    corruptions: found["corruptions"] ?? 0,
    leaks: found["leaks"] ?? 0,
    checkErrors: found["check-errors"] ?? 0,
  };
}

async function guestIn(name: string, pieceBytes: number): Promise<string> {
  const { size } = await stat(name);
  const bytes = new Uint8Array(await readFile(name));
  let guest = "";
  for (let at = 0; at < size; at += pieceBytes) {
    guest += pieceText(bytes.subarray(at, at + pieceBytes));
  }
  return guest;
}
