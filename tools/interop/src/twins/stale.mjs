// What a disk that was made shorter still holds in the cluster that its end cuts.
import { closeSync, openSync, readSync } from "node:fs";
import { DRIVERS } from "@blocklayer/cli";
import { openImage } from "@blocklayer/image";

const SECTOR = 512;

/**
 * Some fields of a qcow2 header.
 *
 * @param {string} path
 * @returns {{version: number, clusterBytes: number, lengthBytes: number}} the length is that of the disk
 */
export function headerOf(path) {
  const bytes = Buffer.alloc(32);
  const file = openSync(path, "r");
  try {
    readSync(file, bytes, 0, bytes.length, 0);
  } finally {
    closeSync(file);
  }
  const lengthBytes = Number(bytes.readBigUInt64BE(24));
  return { version: bytes.readUInt32BE(4), clusterBytes: 2 ** bytes.readUInt32BE(20), lengthBytes };
}

/** Where the cluster ends that a disk's end cuts. */
export function cutClusterEnd(path, lengthBytes) {
  const { clusterBytes } = headerOf(path);
  return Math.ceil(lengthBytes / clusterBytes) * clusterBytes;
}

/** Offsets of the sectors of a range that hold more than zeroes. @returns {Promise<number[]>} */
export async function nonZeroSectors(path, start, end) {
  const disk = await openImage(path, { drivers: DRIVERS, format: "qcow2" });
  try {
    const bytes = await disk.read(start, end - start);
    const found = [];
    for (let at = 0; at < bytes.length; at += SECTOR) {
      if (bytes.subarray(at, at + SECTOR).some((byte) => byte !== 0)) found.push(start + at);
    }
    return found;
  } finally {
    await disk.close();
  }
}
