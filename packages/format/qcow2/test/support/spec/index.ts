/** All records, by the structure that they are about. */
import { BITMAP_RECORDS } from "./bitmap-records.js";
import { COMPRESSED_RECORDS } from "./compressed-records.js";
import { DATA_FILE_RECORDS } from "./data-file-records.js";
import { EXTENDED_RECORDS } from "./extended-records.js";
import { EXTENSION_RECORDS } from "./extension-records.js";
import { FEATURE_RECORDS } from "./feature-records.js";
import { HEADER_RECORDS } from "./header-records.js";
import { MAPPING_RECORDS } from "./mapping-records.js";
import type { SpecRecord } from "./record.js";
import { REFCOUNT_RECORDS } from "./refcount-records.js";
import { SNAPSHOT_RECORDS } from "./snapshot-records.js";

export const RECORDS = {
  header: HEADER_RECORDS,
  features: FEATURE_RECORDS,
  extensions: EXTENSION_RECORDS,
  refcounts: REFCOUNT_RECORDS,
  mapping: MAPPING_RECORDS,
  compressed: COMPRESSED_RECORDS,
  extended: EXTENDED_RECORDS,
  snapshots: SNAPSHOT_RECORDS,
  bitmaps: BITMAP_RECORDS,
  dataFile: DATA_FILE_RECORDS,
} as const;

export const ALL_RECORDS: readonly SpecRecord[] = Object.values(RECORDS).flat();

/** Images of large clusters cost too much to be broken many times. */
const MAX_MUTATED_BYTES: number = 2 ** 20;

/** An image of every kind that opens without another file, for tests that break images: one of each row. */
export function imagesToBreak(): readonly Uint8Array[] {
  const seen = new Set<string>();
  const images: Uint8Array[] = [];
  for (const { line, build, expected, dataFile } of ALL_RECORDS) {
    const family = line.replaceAll(/\d+/g, "");
    if (expected.read !== undefined || dataFile !== undefined || seen.has(family)) continue;
    seen.add(family);
    const { bytes } = build();
    if (bytes.length <= MAX_MUTATED_BYTES) images.push(bytes);
  }
  return images;
}
