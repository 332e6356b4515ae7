/**
 * The sample disk: a partition table and a FAT16 file system that holds this project's own sources, so that there
 * is something real to compress, and blanks to skip.
 */
import { readdirSync, readFileSync } from "node:fs";
import { extname, join } from "node:path";
import { MiB, SECTOR_SIZE_BYTES } from "@blocklayer/bytes";
import { type SampleFile, writeFat16 } from "./fat16.js";
import { writePartitionTable } from "./partition-table.js";

export const SAMPLE_DISK_BYTES: number = 64 * MiB;
const PARTITION_START_SECTOR = 2048;

const KINDS = new Set([".ts", ".js", ".mjs", ".json", ".md", ".map"]);
const LEFT_OUT = new Set(["node_modules", ".git", ".turbo", ".vitest", "coverage"]);
const MAX_FILES = 512;

/** The disk's bytes, and how many files are on it. */
export function makeSampleDisk(projectRoot: string): { disk: Uint8Array; fileCount: number } {
  const disk = new Uint8Array(SAMPLE_DISK_BYTES);
  const sectorCount = SAMPLE_DISK_BYTES / SECTOR_SIZE_BYTES - PARTITION_START_SECTOR;
  writePartitionTable(disk, PARTITION_START_SECTOR, sectorCount);
  const partition = disk.subarray(PARTITION_START_SECTOR * SECTOR_SIZE_BYTES);
  const fileCount = writeFat16(partition, projectFiles(projectRoot));
  return { disk, fileCount };
}

/** Source files of the project, under names of the 8.3 kind. */
function projectFiles(root: string): readonly SampleFile[] {
  const paths = filesBelow(root).slice(0, MAX_FILES);
  return paths.map((path, index) => {
    const extension = extname(path).slice(1, 4).toUpperCase();
    return {
      name: `F${String(index).padStart(5, "0")}.${extension}`,
      bytes: readFileSync(path),
    };
  });
}

function filesBelow(folder: string): readonly string[] {
  const entries = readdirSync(folder, { withFileTypes: true });
  entries.sort((a, b) => (a.name < b.name ? -1 : 1));
  return entries.flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return LEFT_OUT.has(entry.name) ? [] : filesBelow(path);
    return entry.isFile() && KINDS.has(extname(entry.name)) ? [path] : [];
  });
}
