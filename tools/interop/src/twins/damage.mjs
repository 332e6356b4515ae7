// Damage of the kinds that a crash leaves, done to bytes: the same to both twins, which are the same before.
// As a program, for the scripts of failures: node damage.mjs IMAGE WHAT AT
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

/** Offsets of header fields; see the qcow2 specification, "Header". */
const HEADER = {
  clusterBits: 20,
  refcountTable: 48,
  version: 4,
  incompatible: 72,
  refcountOrder: 96,
};
const DIRTY = 1;

/**
 * Damages an image file.
 *
 * @param {string} path
 * @param {"leak" | "lost" | "dirty"} what - a refcount one too high, or 0 where a cluster is in use, or the dirty bit
 * @param {number} at - which of the refcounts, counted round
 * @returns {boolean} false when the image has nothing that could be damaged so
 */
export function damage(path, what, at) {
  const bytes = readFileSync(path);
  const isDone = what === "dirty" ? setDirty(bytes) : changeRefcount(bytes, what, at);
  if (isDone) writeFileSync(path, bytes);
  return isDone;
}

function setDirty(bytes) {
  if (bytes.readUInt32BE(HEADER.version) < 3) return false;
  // Bits 0 to 7 of the 64 are in the last byte.
  bytes[HEADER.incompatible + 7] |= DIRTY;
  return true;
}

/** Of the first refcount block, which counts the header and what follows it. */
function changeRefcount(bytes, what, at) {
  const clusterBytes = 2 ** bytes.readUInt32BE(HEADER.clusterBits);
  const isOld = bytes.readUInt32BE(HEADER.version) < 3;
  const bits = 2 ** (isOld ? 4 : bytes.readUInt32BE(HEADER.refcountOrder));
  const table = Number(bytes.readBigUInt64BE(HEADER.refcountTable));
  const block = Number(bytes.readBigUInt64BE(table));
  const count = Math.min(
    Math.floor(bytes.length / clusterBytes),
    Math.floor((clusterBytes * 8) / bits),
  );
  for (let step = 0; step < count; step++) {
    const counter = new Counter(bytes, block, (at + step) % count, bits);
    if (what === "lost" && counter.value > 0n) return counter.set(0n);
    if (what === "leak" && counter.value < counter.most) return counter.set(counter.value + 1n);
  }
  return false;
}

/** One refcount: of whole bytes, or of bits counted from the lowest one of a byte. */
class Counter {
  #bytes;
  #start;
  #width;
  #shift;
  most;

  constructor(bytes, block, index, bits) {
    this.#bytes = bytes;
    this.#width = Math.max(1, bits / 8);
    this.#start = block + Math.floor((index * bits) / 8);
    this.#shift = BigInt((index * bits) % 8);
    this.most = 2n ** BigInt(bits) - 1n;
  }

  get value() {
    return (this.#word >> this.#shift) & this.most;
  }

  set(value) {
    const kept = this.#word & ~(this.most << this.#shift);
    const hex = (kept | (value << this.#shift)).toString(16).padStart(2 * this.#width, "0");
    Buffer.from(hex, "hex").copy(this.#bytes, this.#start);
    return true;
  }

  get #word() {
    const hex = this.#bytes.subarray(this.#start, this.#start + this.#width).toString("hex");
    return BigInt(`0x${hex}`);
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const [path, what, at] = process.argv.slice(2);
  damage(path, what, Number(at));
}
