// The comparison of the twins: the same disks, the same maps, both sound, for both tools on both sides.
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { DRIVERS } from "@blocklayer/cli";
import { openImage } from "@blocklayer/image";
import { answersAbout, isSame } from "../agreement.mjs";
import { blk, tryProgram } from "../programs.mjs";
import { LOOSE } from "./looseness.mjs";
import { Difference } from "./twin-pair.mjs";

/**
 * Compares every image of the twins.
 *
 * @param {import("./twin-pair.mjs").TwinPair} pair
 * @throws Difference
 */
export async function judge(pair) {
  const names = readdirSync(pair.theirs).sort();
  const here = readdirSync(pair.ours).sort();
  if (!isSame(names, here)) throw new Difference("the files that there are", here, names);
  for (const name of names) {
    if (name.endsWith(".qcow2")) await judgeImage(pair, name);
    else if (name.endsWith(".raw")) await sameDisk(pair, name, "raw");
  }
}

async function judgeImage(pair, name) {
  const { ours, theirs } = pair.paths(name);
  const ourAnswers = await agreed(ours, "blk's");
  const theirAnswers = await agreed(theirs, "QEMU's");
  const info = ourAnswers.get("info").value;
  const loose = pair.loose.of(`@${name}`, info["backing-filename"] !== undefined);
  for (const [about, answer] of ourAnswers) {
    const form = (one) => twinForm(about, one, loose);
    const [a, b] = [form(answer), form(theirAnswers.get(about))];
    if (!isSame(a, b)) throw new Difference(`${about} of the twins`, a, b);
  }
  await sameDisk(pair, name, "qcow2");
  sameBitmaps(pair, name, info["cluster-size"], await bitmapsOf(ours), await bitmapsOf(theirs));
  for (const { name: snapshot } of info.snapshots ?? []) {
    await sameDisk(pair, name, "qcow2", snapshot);
  }
}

/** What both tools say alike about one image, which must be sound. */
async function agreed(image, whose) {
  const answers = new Map();
  for (const { about, blk: ours, qemu } of await answersAbout(image)) {
    if (about === "check" && (ours.status !== 0 || qemu.status !== 0)) {
      throw new Difference(`check of ${whose} image`, ours, qemu);
    }
    if (!isSame(ours, qemu)) throw new Difference(`${about} of ${whose} image`, ours, qemu);
    answers.set(about, ours);
  }
  return answers;
}

/** An answer without what twins need not share, at a level of looseness.mjs. */
function twinForm(about, { status, value, stderr }, loose) {
  if (about === "map") {
    if (loose === LOOSE.unknown) return { status, stderr };
    return { status, stderr, value: joined((value ?? []).map((entry) => mapForm(entry, loose))) };
  }
  if (about === "info") return { status, value: withoutTimes(value) };
  // Which host cluster was free decides what is next to what, and where the file ends.
  const { filename: _f, "image-end-offset": _e, "fragmented-clusters": _g, ...rest } = value ?? {};
  if (loose > LOOSE.strict) {
    delete rest["allocated-clusters"];
    delete rest["compressed-clusters"];
  }
  return { status, ...rest };
}

/**
 * What of a map's entry counts. Host offsets do not: blk takes a freed cluster again only when its drop is durable, and two
 * deflaters give two lengths.
 */
function mapForm({ start, length, depth, present, zero, data, offset }, loose) {
  const form = { start, length, depth, present };
  if (loose >= LOOSE.zeroed) return form;
  return { ...form, zero, data, ...(loose === LOOSE.strict && { isInFile: offset !== undefined }) };
}

/** Neighbours that differ in nothing but where they are. */
function joined(entries) {
  const found = [];
  for (const { start, length, ...kind } of entries) {
    const last = found.at(-1);
    if (last !== undefined && isSame(last.kind, kind)) last.length += length;
    else found.push({ start, length, kind });
  }
  return found;
}

/** Names of folders, lengths of files and times. */
function withoutTimes(value) {
  if (Array.isArray(value)) return value.map(withoutTimes);
  if (value === null || typeof value !== "object") return value;
  const left = Object.entries(value).filter(
    ([key]) => !/^(actual-size|date-n?sec|full-backing-filename|children)$/.test(key),
  );
  return Object.fromEntries(
    left.map(([key, inner]) => [
      key,
      key.endsWith("filename") ? String(inner).replace(/.*\//, "") : withoutTimes(inner),
    ]),
  );
}

/** Both tools must read the same from both twins: blk reads each, and QEMU compares each with what blk read. */
async function sameDisk(pair, name, format, snapshot) {
  const { ours, theirs } = pair.paths(name);
  const what = snapshot === undefined ? "guest bytes" : "guest bytes of a snapshot";
  const mine = await contentOf(ours, format, snapshot);
  const other = await contentOf(theirs, format, snapshot);
  const at = firstDifference(mine, other);
  if (at !== undefined) throw new Difference(`${what} of the twins`, ...around(at, mine, other));
  const read = `${pair.ours}.read`;
  writeFileSync(read, mine);
  for (const path of [ours, theirs]) {
    const complaint = await complaintAbout(path, format, snapshot, read);
    const whose = path === ours ? "blk's" : "QEMU's";
    if (complaint !== undefined) throw new Difference(`${what} of ${whose} image`, "", complaint);
  }
}

/** What QEMU finds different between an image, or a snapshot in it, and the bytes that blk read. */
async function complaintAbout(path, format, snapshot, read) {
  const where = { cwd: dirname(path) };
  if (snapshot === undefined) {
    const words = ["compare", "-f", format, "-F", "raw", path, read];
    const { status, stdout, stderr } = await tryProgram("qemu-img", words, where);
    return status === 0 ? undefined : stdout + stderr;
  }
  const copy = `${read}.qemu`;
  const words = ["convert", "-f", format, "-l", `snapshot.name=${snapshot}`, "-O", "raw"];
  const { status, stderr } = await tryProgram("qemu-img", [...words, path, copy], where);
  if (status !== 0) return stderr;
  let [mine, other] = [readFileSync(read), readFileSync(copy)];
  rmSync(copy);
  // QEMU 7.2 cuts a snapshot to the length that the disk has today, or lengthens it; blk gives all of it.
  const length = Math.min(mine.length, other.length);
  [mine, other] = [mine.subarray(0, length), other.subarray(0, length)];
  const at = firstDifference(mine, other);
  return at === undefined ? undefined : around(at, mine, other).join(" and ");
}

/** The bytes of a disk, as blk reads them. */
async function contentOf(path, format, snapshot) {
  if (snapshot !== undefined) {
    const copy = `${path}.copy`;
    await blk("convert", "-f", format, "-l", `snapshot.name=${snapshot}`, "-O", "raw", path, copy);
    const bytes = readFileSync(copy);
    rmSync(copy);
    return bytes;
  }
  const disk = await openImage(path, { drivers: DRIVERS, format });
  try {
    return await disk.read(0, disk.lengthBytes);
  } finally {
    await disk.close();
  }
}

/** Every bitmap with what it says is dirty. qemu-img cannot say it, so that blk reads both. */
async function bitmapsOf(path) {
  const disk = await openImage(path, { drivers: DRIVERS, format: "qcow2" });
  try {
    const control = disk.bitmaps;
    const found = [];
    for (const bitmap of (await control?.list()) ?? []) {
      const limit = 100_000;
      const ranges = bitmap.inconsistent ? [] : await control.dirtyRanges(bitmap.name, 0, limit);
      found.push({ ...bitmap, ranges });
    }
    return found.sort((a, b) => (a.name < b.name ? -1 : 1));
  } finally {
    await disk.close();
  }
}

/** See marked-ranges.mjs. */
function sameBitmaps({ marked, hasSwapped, rebased }, image, clusterBytes, ours, theirs) {
  const form = (bitmap) => ({ ...bitmap, ranges: undefined });
  const fail = () => {
    throw new Difference("bitmaps of the twins", ours, theirs);
  };
  if (!isSame(ours.map(form), theirs.map(form))) fail();
  for (const [index, { name, granularityBytes, ranges }] of ours.entries()) {
    const mine = granulesOf(ranges, granularityBytes);
    const other = granulesOf(theirs[index].ranges, granularityBytes);
    // After a swap each image has bitmaps of both tools.
    const unit = rebased.has(`@${image}`) ? clusterBytes : granularityBytes;
    if (!hasSwapped && !isWithin(mine, other, granularityBytes, unit)) fail();
    for (const granule of new Set([...mine, ...other])) {
      if (mine.has(granule) && other.has(granule)) continue;
      const start = granule * granularityBytes;
      if (marked.has(`@${image}`, name, start, start + granularityBytes)) fail();
    }
  }
}

/** Whether each granule of one shares a unit with one of the other. */
function isWithin(mine, other, granularityBytes, unitBytes) {
  const units = new Set();
  for (const granule of other) {
    const start = granule * granularityBytes;
    for (let at = Math.floor(start / unitBytes); at * unitBytes < start + granularityBytes; at++)
      units.add(at);
  }
  return [...mine].every((granule) =>
    units.has(Math.floor((granule * granularityBytes) / unitBytes)),
  );
}

function granulesOf(ranges, granularityBytes) {
  const found = new Set();
  for (const { offset, lengthBytes } of ranges) {
    for (let at = offset; at < offset + lengthBytes; at += granularityBytes)
      found.add(at / granularityBytes);
  }
  return found;
}

function firstDifference(a, b) {
  if (Buffer.compare(a, b) === 0) return undefined;
  const length = Math.min(a.length, b.length);
  for (let at = 0; at < length; at++) if (a[at] !== b[at]) return at;
  return length;
}

function around(at, ...sides) {
  return sides.map((bytes) => {
    const hex = Buffer.from(bytes.subarray(at, at + 8)).toString("hex");
    return `${hex} at 0x${at.toString(16)} of ${bytes.length} bytes`;
  });
}
