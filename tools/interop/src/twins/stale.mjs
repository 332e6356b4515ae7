// What twins are asked beside the comparison: fields of a header, a disk's bytes, and what one that was made shorter still
// holds in the cluster that its end cuts.
import { closeSync, openSync, readSync } from "node:fs";
import { DRIVERS } from "@blocklayer/cli";
import { openImage } from "@blocklayer/image";

const SECTOR = 512;

/**
 * Some fields of a qcow2 header.
 *
 * @param {string} path
 * @returns {{version: number, clusterBytes: number, lengthBytes: number, hasDataFile: boolean, hasBacking: boolean}} the
 *   length is the disk's
 */
export function headerOf(path) {
  const bytes = Buffer.alloc(80);
  const file = openSync(path, "r");
  try {
    readSync(file, bytes, 0, bytes.length, 0);
  } finally {
    closeSync(file);
  }
  const lengthBytes = Number(bytes.readBigUInt64BE(24));
  const version = bytes.readUInt32BE(4);
  // Bit 2 of the incompatible features, of which the last byte has the lowest.
  const hasDataFile = version >= 3 && (bytes.readUInt8(79) & 4) !== 0;
  const hasBacking = bytes.readBigUInt64BE(8) !== 0n;
  const clusterBytes = 2 ** bytes.readUInt32BE(20);
  return { version, clusterBytes, lengthBytes, hasDataFile, hasBacking };
}

/** Where the cluster ends that a disk's end cuts. */
export function cutClusterEnd(path, lengthBytes) {
  const { clusterBytes } = headerOf(path);
  return Math.ceil(lengthBytes / clusterBytes) * clusterBytes;
}

/** All of a disk, as blk reads it. @returns {Promise<Buffer>} */
export async function diskBytes(path) {
  const disk = await openImage(path, { drivers: DRIVERS, format: "qcow2" });
  try {
    return Buffer.from(await disk.read(0, disk.lengthBytes));
  } finally {
    await disk.close();
  }
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
