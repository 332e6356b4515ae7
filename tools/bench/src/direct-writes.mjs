// Counts what a compressed conversion past the page cache asks of the file, with the compressed cache and without.
//
//   npm run bench -- --only direct-writes
//
// A read of one block of the output before a write of the same block is a read-modify-write. Header and tables are told
// apart by where they lie: they are read because something needs to know what they say.
import { execFileSync } from "node:child_process";
import { closeSync, openSync, readFileSync, readSync, rmSync, statSync } from "node:fs";

const CLUSTER = 65536;
const OPTIONS = "driver=qcow2,file.driver=file,file.filename=";

/** Prints one line for each way. */
export async function countDirectWrites(blk, { raw, out, size }) {
  for (const mode of ["auto", "off"]) {
    rmSync(out, { force: true });
    execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", out, size]);
    const log = `${out}.strace`;
    const target = `${OPTIONS}${out},compressed-write-cache=${mode}`;
    const command = ["convert", "-c", "-n", "-t", "none", "--target-image-opts", raw, target];
    const calls = "trace=pwrite64,pwritev,pwritev2,pread64,preadv,preadv2";
    execFileSync("strace", ["-f", "-y", "-e", calls, "-s", "0", "-o", log, ...blk, ...command]);
    const counted = countCalls(readFileSync(log, "utf8"), out, tableClusters(out));
    const clusters = Math.ceil(statSync(out).size / CLUSTER);
    const name = mode === "auto" ? "with the cache   " : "without the cache";
    console.log(
      `${name} ${clusters} host clusters, ${counted.writes} writes (${(counted.writes / clusters).toFixed(2)} a cluster), ` +
        `${counted.readModifyWrites} read-modify-writes`,
    );
    rmSync(log, { force: true });
  }
}

/** The clusters of an image that hold its header, its L1 table and its L2 tables. */
function tableClusters(path) {
  const file = openSync(path);
  const read = (offset, length) => {
    const bytes = Buffer.alloc(length);
    readSync(file, bytes, 0, length, offset);
    return bytes;
  };
  const header = read(0, 104);
  const l1Offset = Number(header.readBigUInt64BE(40));
  const l1 = read(l1Offset, header.readUInt32BE(36) * 8);
  closeSync(file);
  const clusters = new Set([0]);
  for (let at = 0; at < l1.length; at += CLUSTER) clusters.add((l1Offset + at) / CLUSTER);
  for (let at = 0; at < l1.length; at += 8) {
    clusters.add(Number(l1.readBigUInt64BE(at) & 0x00fffffffffffe00n) / CLUSTER);
  }
  return clusters;
}

/**
 * Writes to a file, and those whose first or last block was read a moment before by the same request.
 *
 * strace splits a call that others overtake into two lines; both halves carry the thread's number.
 *
 * @param {Set<number>} [tables] - clusters whose reads do not count
 */
export function countCalls(log, path, tables = new Set()) {
  let writes = 0;
  let readModifyWrites = 0;
  /** By thread: the call that has begun and not ended. */
  const begun = new Map();
  /** Blocks read, not written since. */
  const read = new Set();
  for (const line of log.split("\n")) {
    const [, thread, rest] = /^(\d+) (.*)$/.exec(line) ?? [];
    if (thread === undefined) continue;
    let call = rest;
    if (rest.endsWith("<unfinished ...>")) {
      begun.set(thread, rest.slice(0, -" <unfinished ...>".length));
      continue;
    }
    const resumed = /^<\.\.\. \w+ resumed>(.*)$/.exec(rest);
    if (resumed !== null) call = `${begun.get(thread) ?? ""}${resumed[1]}`;
    if (!call.includes(`<${path}>`)) continue;
    const [, offset, length] = /, (\d+)(?:, 0)?\)\s+= (\d+)$/.exec(call) ?? [];
    if (length === undefined) continue;
    const start = Number(offset);
    const last = start + Number(length) - 512;
    if (call.startsWith("pread")) {
      const isTable = tables.has(Math.floor(start / CLUSTER));
      if (Number(length) <= 4096 && !isTable)
        for (let at = start; at <= last; at += 512) read.add(at);
      continue;
    }
    writes++;
    if (read.has(start) || read.has(last)) readModifyWrites++;
    read.delete(start);
    read.delete(last);
  }
  return { writes, readModifyWrites };
}
