/**
 * Which features of an image this version reads, and which it writes.
 *
 * Above: decode.ts refuses what cannot be read; the driver calls `refuseWriting` before it opens
 * for writing. Below: header.ts.
 *
 * 1. Unknown incompatible features refuse to open, by the names that the image gives them [C15].
 * 2. A corrupt image opens for reading, never for writing.
 *
 * Source: the qcow2 specification, "Header", "Feature name table".
 */
import { BlockError, UnsupportedError } from "@blocklayer/bytes";
import {
  AUTOCLEAR,
  type FeatureName,
  hasFeature,
  hasRawDataFile,
  INCOMPATIBLE,
  type Qcow2Header,
} from "./header.js";

const KNOWN_INCOMPATIBLE: bigint = Object.values(INCOMPATIBLE).reduce((sum, bit) => sum | bit, 0n);

/** The names of the incompatible features in `bits`; one hexadecimal sum for those without a name. */
export function incompatibleFeatureNames(bits: bigint, names: readonly FeatureName[]): string[] {
  const found: string[] = [];
  let rest = bits;
  for (const { set, bit, name } of names) {
    const mask = 1n << BigInt(bit);
    if (set !== "incompatible" || (rest & mask) === 0n) continue;
    found.push(name);
    rest &= ~mask;
  }
  if (rest !== 0n) found.push(`Unknown incompatible feature: ${rest.toString(16)}`);
  return found;
}

/** The incompatible bits that this version has never heard of. */
export function unknownIncompatible(incompatible: bigint): bigint {
  return incompatible & ~KNOWN_INCOMPATIBLE;
}

/**
 * Refuses what this version cannot even read.
 *
 * @throws UnsupportedError that names the feature
 */
export function refuseUnsupported(header: Pick<Qcow2Header, "incompatible" | "cryptMethod">): void {
  const missing: string[] = [];
  if (header.cryptMethod !== 0) {
    missing.push(header.cryptMethod === 1 ? "AES encryption" : "LUKS encryption");
  }
  if (missing.length === 0) return;
  throw new UnsupportedError(`header: not supported yet: ${missing.join(", ")}`, { op: "open" });
}

/**
 * Refuses to open for writing what must not be written.
 *
 * @throws BlockError `EACCES` when the corrupt bit is set
 */
export function refuseWriting(header: Pick<Qcow2Header, "incompatible">, nodeName: string): void {
  if (!hasFeature(header.incompatible, INCOMPATIBLE.corrupt)) return;
  const details = { op: "open", node: nodeName };
  throw new BlockError("EACCES", "Image is corrupt; cannot be opened read/write", details);
}

/**
 * The autoclear bits after a writer of this version has begun: those it does not maintain are gone
 * [C15]. Equal to `header.autoclear`: the header need not be written.
 */
export function autoclearForWriting(
  header: Pick<Qcow2Header, "incompatible" | "autoclear">,
): bigint {
  const raw = hasRawDataFile(header) ? AUTOCLEAR.rawDataFile : 0n;
  return header.autoclear & (AUTOCLEAR.bitmaps | raw);
}

/** Whether the bitmaps extension can be trusted. */
export function bitmapsAreConsistent(header: Pick<Qcow2Header, "autoclear">): boolean {
  return hasFeature(header.autoclear, AUTOCLEAR.bitmaps);
}
