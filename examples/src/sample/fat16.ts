/**
 * A FAT16 file system, written in one go: a real disk that needs no tool to make.
 *
 * ```
 * boot sector | FAT | FAT (copy) | root directory (512 entries) | clusters 2, 3, …
 * ```
 * 1. A file's clusters are consecutive, in the order of the files.
 * 2. Names are 8.3 and upper case; there are no folders.
 * 3. All numbers are little-endian.
 *
 * Source: the FAT on-disk format as ECMA-107 and Microsoft's specification give it.
 */
import { divideRoundUp, SECTOR_SIZE_BYTES } from "@blocklayer/bytes";

const SECTORS_PER_CLUSTER = 4;
const CLUSTER_BYTES: number = SECTORS_PER_CLUSTER * SECTOR_SIZE_BYTES;
const ROOT_ENTRIES = 512;
const ENTRY_BYTES = 32;
const FIRST_CLUSTER = 2;
const END_OF_CHAIN = 0xffff;
const MEDIA_FIXED_DISK = 0xf8;
/** 2026-01-01, 00:00: the sample is the same bytes every time. */
const DATE = ((2026 - 1980) << 9) | (1 << 5) | 1;

/** A file to put on the disk. */
export interface SampleFile {
  /** At most eight letters, a dot, at most three: `README.MD`. */
  readonly name: string;
  readonly bytes: Uint8Array;
}

/**
 * Formats a partition and fills it.
 *
 * @param partition - the partition's bytes, all zero; 9 to 128 MiB
 * @param files - in order; those that no longer fit are left out
 * @returns how many files were written
 */
export function writeFat16(partition: Uint8Array, files: readonly SampleFile[]): number {
  const sectorCount = partition.length / SECTOR_SIZE_BYTES;
  const rootSectors = (ROOT_ENTRIES * ENTRY_BYTES) / SECTOR_SIZE_BYTES;
  const fatSectors = divideRoundUp((sectorCount / SECTORS_PER_CLUSTER + 2) * 2, SECTOR_SIZE_BYTES);
  const rootSector = 1 + 2 * fatSectors;
  const dataSector = rootSector + rootSectors;
  writeBootSector(partition, sectorCount, fatSectors);

  const fat = new Uint16Array((fatSectors * SECTOR_SIZE_BYTES) / 2);
  fat[0] = 0xff00 | MEDIA_FIXED_DISK;
  fat[1] = END_OF_CHAIN;
  const clusterCount = Math.floor((sectorCount - dataSector) / SECTORS_PER_CLUSTER);
  let next = FIRST_CLUSTER;
  let written = 0;
  for (const file of files.slice(0, ROOT_ENTRIES)) {
    const needed = divideRoundUp(file.bytes.length, CLUSTER_BYTES);
    if (next + needed > FIRST_CLUSTER + clusterCount) break;
    for (let i = 0; i < needed; i++) fat[next + i] = i + 1 < needed ? next + i + 1 : END_OF_CHAIN;
    const entry = partition.subarray(rootSector * SECTOR_SIZE_BYTES + written * ENTRY_BYTES);
    writeDirectoryEntry(entry, file, needed > 0 ? next : 0);
    const at = dataSector * SECTOR_SIZE_BYTES + (next - FIRST_CLUSTER) * CLUSTER_BYTES;
    partition.set(file.bytes, at);
    next += needed;
    written++;
  }
  for (const copy of [0, 1]) writeFat(partition, fat, 1 + copy * fatSectors);
  return written;
}

function writeFat(partition: Uint8Array, fat: Uint16Array, sector: number): void {
  const view = new DataView(partition.buffer, partition.byteOffset + sector * SECTOR_SIZE_BYTES);
  for (const [index, value] of fat.entries()) view.setUint16(index * 2, value, true);
}

function writeBootSector(partition: Uint8Array, sectorCount: number, fatSectors: number): void {
  const view = new DataView(partition.buffer, partition.byteOffset, SECTOR_SIZE_BYTES);
  partition.set([0xeb, 0x3c, 0x90]); // jump over the parameters
  writeText(partition, 3, "BLKLAYER");
  view.setUint16(11, SECTOR_SIZE_BYTES, true);
  view.setUint8(13, SECTORS_PER_CLUSTER);
  view.setUint16(14, 1, true); // reserved sectors: this one
  view.setUint8(16, 2); // copies of the FAT
  view.setUint16(17, ROOT_ENTRIES, true);
  view.setUint8(21, MEDIA_FIXED_DISK);
  view.setUint16(22, fatSectors, true);
  view.setUint16(24, 63, true); // sectors per track, for old BIOSes
  view.setUint16(26, 255, true); // heads, likewise
  view.setUint32(28, 2048, true); // sectors before the partition
  view.setUint32(32, sectorCount, true);
  view.setUint8(36, 0x80); // drive number
  view.setUint8(38, 0x29); // the three fields that follow are there
  view.setUint32(39, 0xb10c1a7e, true); // serial number
  writeText(partition, 43, "NO NAME    ");
  writeText(partition, 54, "FAT16   ");
  view.setUint16(510, 0xaa55, true);
}

function writeDirectoryEntry(entry: Uint8Array, file: SampleFile, firstCluster: number): void {
  const [stem = "", extension = ""] = file.name.split(".");
  writeText(entry, 0, stem.padEnd(8).slice(0, 8) + extension.padEnd(3).slice(0, 3));
  const view = new DataView(entry.buffer, entry.byteOffset, ENTRY_BYTES);
  view.setUint8(11, 0x20); // an ordinary file
  view.setUint16(24, DATE, true);
  view.setUint16(26, firstCluster, true);
  view.setUint32(28, file.bytes.length, true);
}

function writeText(target: Uint8Array, at: number, text: string): void {
  for (let i = 0; i < text.length; i++) target[at + i] = text.charCodeAt(i);
}
