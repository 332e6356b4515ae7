// What a guest does to its disk, as a list that three can follow: qemu-io, blocklayer, and a flat array of bytes.
import { Random } from "./content.mjs";

/**
 * @typedef {object} GuestOp
 * @property {"write" | "compressed" | "zeroes" | "unmap" | "discard" | "flush"} kind
 * @property {number} offset - bytes
 * @property {number} length - bytes
 * @property {number} pattern - the byte that a write repeats
 * @property {boolean} [fua] - a write that is on the disk before it counts as done
 * @property {string} [source] - the file whose bytes a compressed write repeats, instead of the pattern
 * @property {boolean} [noFallback] - zeroes that are not to be written as bytes
 */

/**
 * A list of requests. Compressed writes cover whole clusters, as qcow2 wants them. With `forQemu` they come before all others,
 * each into clusters of its own: QEMU 7.2 refuses to compress over what is there, and loses data when a compressed write
 * follows the rewrite of a compressed cluster. Where it is the oracle it must not be asked to.
 *
 * @returns {GuestOp[]}
 */
export function guestOps({ seed, count, lengthBytes, clusterBytes, compressed, forQemu }) {
  const random = new Random(seed);
  const clusters = Math.floor(lengthBytes / clusterBytes);
  const taken = new Set();
  const ops = [];
  for (let i = 0; i < count; i++) {
    const pattern = 1 + random.below(255);
    const early = forQemu ? i < count / 3 : random.below(3) === 0;
    if (compressed && early) {
      const first = random.below(clusters);
      const many = 1 + random.below(Math.min(4, clusters - first));
      const all = Array.from({ length: many }, (_, index) => first + index);
      if (forQemu && all.some((cluster) => taken.has(cluster))) continue;
      for (const cluster of all) taken.add(cluster);
      const [offset, length] = [first * clusterBytes, many * clusterBytes];
      ops.push({ kind: "compressed", offset, length, pattern });
      continue;
    }
    const kind = random.pick(["write", "write", "write", "zeroes", "unmap", "discard", "flush"]);
    ops.push({ kind, ...someRange(random, lengthBytes, clusterBytes), pattern });
  }
  return ops;
}

/**
 * A range within a disk of the length. Half of the ranges are whole clusters, half of whole sectors, and now and then one of any bytes;
 * some touch the end.
 *
 * @param {Random} random
 */
export function someRange(random, lengthBytes, clusterBytes) {
  const unit = random.pick([clusterBytes, clusterBytes, 512, 512, 1]);
  const longest = Math.min(lengthBytes, random.pick([1, 3, 9]) * Math.max(clusterBytes, 8192));
  const length = Math.max(unit, Math.floor((1 + random.below(longest)) / unit) * unit);
  if (random.below(12) === 0) return { offset: lengthBytes - length, length };
  const offset = Math.floor(random.below(lengthBytes - length + 1) / unit) * unit;
  return { offset, length };
}

/** The request in qemu-io's words. @param {GuestOp} op */
export function qemuIoCommand({ kind, offset, length, pattern, fua, source, noFallback }) {
  switch (kind) {
    case "write":
      return `write ${fua ? "-f " : ""}-P ${pattern} ${offset} ${length}`;
    case "compressed":
      return `write -c ${source === undefined ? `-P ${pattern}` : `-s ${source}`} ${offset} ${length}`;
    case "zeroes":
      return `write -z ${noFallback ? "-n " : ""}${offset} ${length}`;
    case "unmap":
      return `write -z -u ${noFallback ? "-n " : ""}${offset} ${length}`;
    case "discard":
      return `discard ${offset} ${length}`;
    case "flush":
      return "flush";
    default:
      throw new Error("no such request");
  }
}

/** The request through the library. @param {import("@blocklayer/block-graph").BlockBackend} disk @param {GuestOp} op */
export async function applyToDisk(disk, { kind, offset, length, pattern, fua }) {
  switch (kind) {
    case "write":
      return disk.write(offset, new Uint8Array(length).fill(pattern), fua ? { fua } : {});
    case "compressed":
      return disk.write(offset, new Uint8Array(length).fill(pattern), { compressed: true });
    case "zeroes":
      return disk.writeZeroes(offset, length);
    case "unmap":
      return disk.writeZeroes(offset, length, { mayUnmap: true });
    case "discard":
      return disk.discard(offset, length);
    case "flush":
      return disk.flush();
    default:
      throw new Error("no such request");
  }
}

/**
 * The request on a flat array.
 *
 * A discard counts for whole clusters, and for the last one of a disk that ends within it. It leaves zeroes; where the image
 * cannot say "zeroes" (version 2 over a backing image, whose bytes would show through) it does nothing.
 *
 * @param {Uint8Array} model
 * @param {GuestOp} op
 * @param {{clusterBytes: number, canDiscard: boolean}} image
 */
export function applyToModel(model, { kind, offset, length, pattern }, image) {
  const end = offset + length;
  if (kind === "write" || kind === "compressed") model.fill(pattern, offset, end);
  else if (kind === "zeroes" || kind === "unmap") model.fill(0, offset, end);
  else if (kind === "discard" && image.canDiscard) {
    const { clusterBytes } = image;
    const first = Math.ceil(offset / clusterBytes) * clusterBytes;
    const last = end === model.length ? end : Math.floor(end / clusterBytes) * clusterBytes;
    if (last > first) model.fill(0, first, last);
  }
}
