#!/usr/bin/env node
// Real disks on the way round: raw → qcow2 → compressed qcow2 → raw, with blk and with qemu-img, each reading what the other
// made, and the memory that blk held at most.
//
//   node tools/interop/src/real-disks.mjs [--content-mib 800] [--folder DIR]
import {
  closeSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmSync,
  statfsSync,
  statSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { makeRealDisk } from "@blocklayer/bench/src/disks.mjs";
import { runOnce } from "@blocklayer/bench/src/measure.mjs";
import { Random } from "./content.mjs";
import { BLK, tryProgram } from "./programs.mjs";

const MIB = 2 ** 20;
const TIB = 2 ** 40;

/**
 * @typedef {object} Measured
 * @property {string} what
 * @property {number} seconds
 * @property {number} peakMiB - high-water mark of the process's resident memory
 */

/** Bootable images that Debian packages bring, and the package of each. */
export const BOOT_IMAGES = [
  { package: "grub-rescue-pc", path: "/usr/lib/grub-rescue/grub-rescue-cdrom.iso" },
  { package: "grub-rescue-pc", path: "/usr/lib/grub-rescue/grub-rescue-floppy.img" },
  { package: "ipxe", path: "/usr/lib/ipxe/ipxe.iso" },
];

/**
 * Every kind of conversion whose memory counts. Filled in: `{raw}`, `{qcow2}`, `{compressed}`, `{out}`, and `{scattered}`, whose
 * compressed clusters lie in the order in which QEMU's threads were ready.
 */
const CONVERSIONS = [
  ["raw to qcow2", "-O qcow2 {raw} {out}"],
  ["raw to qcow2, -W -m 16", "-W -m 16 -O qcow2 {raw} {out}"],
  ["raw to qcow2, O_DIRECT", "-t none -T none -O qcow2 {raw} {out}"],
  ["raw to compressed", "-c -O qcow2 {raw} {out}"],
  ["raw to compressed, -W -m 16", "-c -W -m 16 -O qcow2 {raw} {out}"],
  ["raw to compressed, O_DIRECT", "-c -t none -T none -O qcow2 {raw} {out}"],
  ["raw to compressed, O_DIRECT, -W -m 16", "-c -W -m 16 -t none -T none -O qcow2 {raw} {out}"],
  ["raw to compressed, 2M clusters", "-c -o cluster_size=2M -O qcow2 {raw} {out}"],
  ["compressed to raw", "-O raw {compressed} {out}"],
  ["compressed to raw, -W -m 16", "-W -m 16 -O raw {compressed} {out}"],
  ["compressed to raw, O_DIRECT", "-t none -T none -O raw {compressed} {out}"],
  ["scattered compressed to raw", "-O raw {scattered} {out}"],
  ["scattered compressed to raw, -W -m 16", "-W -m 16 -O raw {scattered} {out}"],
  ["scattered compressed to compressed", "-c -O qcow2 {scattered} {out}"],
  ["qcow2 to raw", "-O raw {qcow2} {out}"],
  ["qcow2 to raw, -W -m 16", "-W -m 16 -O raw {qcow2} {out}"],
  ["qcow2 to raw, O_DIRECT, -W -m 16", "-W -m 16 -t none -T none -O raw {qcow2} {out}"],
];

/**
 * A folder with enough room, gone afterwards.
 *
 * @template T
 * @param {number} bytes - the room that is needed
 * @param {(folder: string) => Promise<T>} body
 * @param {string} [parent]
 */
export async function withRoom(bytes, body, parent = tmpdir()) {
  mkdirSync(parent, { recursive: true });
  const { bavail, bsize } = statfsSync(parent);
  if (bavail * bsize < bytes) {
    const [has, needs] = [bavail * bsize, bytes].map((value) => Math.round(value / MIB));
    throw new Error(`${parent} has ${has} MiB of room, and ${needs} are needed`);
  }
  const folder = mkdtempSync(join(parent, "blocklayer-real-"));
  try {
    return await body(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A disk with an ext4 file system of the machine's own files: 1.4 times the content. */
export function makeFileSystemDisk(folder, contentMiB) {
  return makeRealDisk(folder, contentMiB);
}

/** A sparse disk of a tebibyte with 4 MiB of noise in 64 places, some at the borders of L2 tables, one at the end. */
export function makeHugeDisk(path) {
  const random = new Random(11);
  const noise = random.bytes(64 * 1024);
  const file = openSync(path, "w");
  try {
    ftruncateSync(file, TIB);
    writeSync(file, noise, 0, noise.length, 0);
    writeSync(file, noise, 0, noise.length, TIB - noise.length);
    for (let i = 0; i < 62; i++) {
      const table = random.below(2048) * 512 * MIB;
      const at = i % 3 === 0 ? table + 512 * MIB - 32 * 1024 : table + random.below(100_000) * 4096;
      writeSync(file, noise, 0, noise.length, at);
    }
  } finally {
    closeSync(file);
  }
  return path;
}

/**
 * Takes a raw disk the way round with both tools, checks each step with both, and leaves blk's results in the folder.
 *
 * @param {string} raw
 * @param {string} folder
 * @returns {Promise<{steps: Measured[], qcow2: string, compressed: string, back: string}>}
 */
export async function roundTrip(raw, folder) {
  const steps = [];
  const made = {};
  const at = (name) => join(folder, name);
  const forms = [
    { form: "qcow2", words: ["-O", "qcow2"] },
    { form: "compressed", words: ["-c", "-O", "qcow2"] },
  ];
  let from = raw;
  for (const { form, words } of forms) {
    made[form] = at(`ours-${form}.qcow2`);
    steps.push(await blkStep(`to ${form}`, "convert", ...words, from, made[form]));
    await mustBeSound(made[form], steps);
    await mustBeSame(made[form], raw, steps);

    const theirs = at("theirs.qcow2");
    await qemuStep("convert", "-W", "-m", "16", ...words, from, theirs);
    await mustBeSound(theirs, steps);
    await mustBeSame(theirs, raw, steps);
    await blkStep("read theirs", "convert", "-O", "raw", theirs, at("theirs.raw"));
    await mustBeEqualFiles(at("theirs.raw"), raw);
    for (const name of ["theirs.qcow2", "theirs.raw"]) rmSync(at(name));
    from = made[form];
  }
  const back = at("back.raw");
  steps.push(await blkStep("back to raw", "convert", "-O", "raw", from, back));
  await mustBeEqualFiles(back, raw);
  return { steps, qcow2: made.qcow2, compressed: made.compressed, back };
}

/**
 * Runs every kind of conversion and says how much memory each took. Each result is compared with the disk by qemu-img.
 *
 * @param {{raw: string, qcow2: string, compressed: string}} disks
 * @param {string} folder
 * @returns {Promise<Measured[]>}
 */
export async function measureConversions(disks, folder) {
  const out = join(folder, "out.img");
  const scattered = join(folder, "scattered.qcow2");
  const measured = [];
  await qemuStep("convert", "-c", "-W", "-m", "16", "-O", "qcow2", disks.raw, scattered);
  for (const [what, words] of CONVERSIONS) {
    const fill = (word) =>
      word.replace(/\{(\w+)\}/, (_, name) => ({ ...disks, scattered, out })[name]);
    measured.push(await blkStep(what, "convert", ...words.split(" ").map(fill)));
    await qemuStep("compare", "-q", out, disks.raw);
    rmSync(out);
  }
  rmSync(scattered);
  return measured;
}

/**
 * A sparse disk of a tebibyte the way round; checks by both tools.
 *
 * @param {string} folder
 * @returns {Promise<Measured[]>}
 */
export async function hugeRoundTrip(folder) {
  const at = (name) => join(folder, name);
  const raw = makeHugeDisk(at("huge.raw"));
  const steps = [];
  const step = async (...words) => {
    const what = words.map((word) => word.replace(`${folder}/`, "")).join(" ");
    steps.push(await blkStep(`1 TiB: ${what}`, ...words));
  };
  await step("convert", "-O", "qcow2", raw, at("plain.qcow2"));
  await step("convert", "-c", "-O", "qcow2", raw, at("compressed.qcow2"));
  await qemuStep("convert", "-O", "qcow2", raw, at("theirs.qcow2"));
  for (const name of ["plain.qcow2", "compressed.qcow2", "theirs.qcow2"]) {
    await mustBeSound(at(name), steps);
    await qemuStep("compare", "-q", at(name), raw);
    await step("compare", "-q", at(name), raw);
    await step("map", "--output=json", at(name));
    await step("convert", "-O", "raw", at(name), at("back.raw"));
    await step("compare", "-q", at("back.raw"), raw);
    await qemuStep("compare", "-q", at("back.raw"), raw);
    mustBeSparse(at("back.raw"));
    rmSync(at("back.raw"));
  }
  await step(
    "convert",
    "-c",
    "-W",
    "-m",
    "16",
    "-O",
    "qcow2",
    at("theirs.qcow2"),
    at("again.qcow2"),
  );
  await qemuStep("compare", "-q", at("again.qcow2"), raw);
  return steps;
}

/** What a file system of its own says about the disk that came back. */
export async function checkFileSystem(disk) {
  const program = existsSync("/sbin/e2fsck") ? "/sbin/e2fsck" : "e2fsck";
  const { status, stdout, stderr } = await tryProgram(program, ["-fn", disk]);
  if (status !== 0) throw new Error(`e2fsck ended with ${status}\n${stdout}${stderr}`);
}

async function mustBeSound(image, steps) {
  await qemuStep("check", "-q", image);
  steps.push(await blkStep(`check ${image.split("/").at(-1)}`, "check", "-q", image));
}

async function mustBeSame(image, raw, steps) {
  await qemuStep("compare", "-q", image, raw);
  steps.push(await blkStep(`compare ${image.split("/").at(-1)}`, "compare", "-q", image, raw));
}

async function mustBeEqualFiles(a, b) {
  const { status, stdout, stderr } = await tryProgram("cmp", [a, b]);
  if (status !== 0) throw new Error(`the disk that came back differs: ${stdout}${stderr}`);
}

function mustBeSparse(path) {
  const bytes = statSync(path).blocks * 512;
  if (bytes > 64 * MIB) throw new Error(`${path}: 4 MiB of data took ${bytes} bytes of the host`);
}

/** @returns {Promise<Measured>} */
async function blkStep(what, ...words) {
  const { seconds, peakMiB } = await runOnce([...BLK, ...words]);
  return { what, seconds, peakMiB };
}

async function qemuStep(...words) {
  await runOnce(["qemu-img", ...words]);
}

/** The figures as lines of text. @param {readonly Measured[]} measured */
export function table(measured) {
  return measured
    .map(({ what, seconds, peakMiB }) => {
      const [memory, time] = [peakMiB.toFixed(0).padStart(5), seconds.toFixed(2).padStart(7)];
      return `${memory} MiB ${time} s  ${what}`;
    })
    .join("\n");
}

async function main() {
  const { values } = parseArgs({
    options: {
      "content-mib": { type: "string", default: "800" },
      folder: { type: "string", default: tmpdir() },
    },
  });
  const contentMiB = Number(values["content-mib"]);
  await withRoom(
    contentMiB * 8 * MIB,
    async (folder) => {
      const raw = makeFileSystemDisk(folder, contentMiB);
      const { steps, qcow2, compressed, back } = await roundTrip(raw, folder);
      await checkFileSystem(back);
      rmSync(back);
      console.log(table(steps));
      console.log(table(await measureConversions({ raw, qcow2, compressed }, folder)));
    },
    values.folder,
  );
  await withRoom(512 * MIB, async (folder) => console.log(table(await hugeRoundTrip(folder))));
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) await main();
