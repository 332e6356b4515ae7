/**
 * How one header becomes another, a sector at a time.
 *
 * Above: replace.ts carries the steps out, each durable before the next. Below: encode.ts. Pure.
 *
 * A disk writes a sector whole or not at all, and a header with feature names and a backing file is longer than one. So
 * a header that does not change in one sector alone passes through others, each sound by itself [C1]. The first way that
 * has room is taken:
 *
 *   short    the old header, or the new one, without feature names in the first sector alone ▶ the other sectors as they
 *            shall be ▶ the first one. The table of feature names nobody needs to open the image.
 *   name     the same for a name that is too long: first the old header without feature names, its name where it lies;
 *            then the new name, behind all that is in use; then the new header with that name; then the rest.
 *   fields   for extensions that are too long: the new ones and the name, behind all that is in use; then the first
 *            sector, whose `header_length` reaches up to there; then the rest. In between, old extensions count as
 *            fields that nobody knows.
 *
 * Without a way the header is written at once, as QEMU always does it, and a crash in the middle may leave a part of each:
 * version 2 with more than about 400 bytes of extensions that nobody knows, and a cluster that has no room behind a
 * header of several sectors: 1 KiB with a name of more than about 300 bytes.
 */
import { alignUp, SECTOR_SIZE_BYTES, viewOf, writeU64 } from "@blocklayer/bytes";
import type { HostOffset } from "../geometry.js";
import { backingNameOf, encodeHeader, extensionsEnd } from "./encode.js";
import { COMPRESSION_TYPE_POSITION, EXTENSION, type Qcow2Header } from "./header.js";

/** Where the place and the length of the backing file's name lie. */
const NAME_OFFSET_POSITION = 8;

/** A write of whole sectors. */
export interface HeaderStep {
  readonly at: HostOffset;
  readonly bytes: Uint8Array;
}

/**
 * The writes, each to be durable before the next one.
 *
 * @param old - as it is in the file
 * @param current - the file's bytes from its start on, as many as the new header has, to the end of a sector
 * @throws BlockError as `encodeHeader`
 */
export function stepsTo(
  old: Qcow2Header,
  next: Qcow2Header,
  current: Uint8Array,
): readonly HeaderStep[] {
  const whole = padded(encodeHeader(next));
  return (
    inOneSector(whole, current) ??
    throughShort(old, next, whole) ??
    throughName(old, next, whole) ??
    throughFields(old, next, whole) ?? [{ at: 0, bytes: whole }]
  );
}

function inOneSector(whole: Uint8Array, current: Uint8Array): readonly HeaderStep[] | undefined {
  // What lies in the other sectors then means nothing.
  if (whole.length <= SECTOR_SIZE_BYTES) return [{ at: 0, bytes: whole }];
  const changed: HeaderStep[] = [];
  for (let at = 0; at < whole.length; at += SECTOR_SIZE_BYTES) {
    const bytes = whole.subarray(at, at + SECTOR_SIZE_BYTES);
    if (bytes.some((byte, index) => byte !== current[at + index])) changed.push({ at, bytes });
  }
  return changed.length <= 1 ? changed : undefined;
}

function throughShort(
  old: Qcow2Header,
  next: Qcow2Header,
  whole: Uint8Array,
): readonly HeaderStep[] | undefined {
  if (endInFile(old) <= SECTOR_SIZE_BYTES) return lastSteps(whole);
  const short = [old, next]
    .map((header) => encodeHeader(withoutFeatureNames(header)))
    .find(({ length }) => length <= SECTOR_SIZE_BYTES);
  return short === undefined ? undefined : [{ at: 0, bytes: padded(short) }, ...lastSteps(whole)];
}

function throughName(
  old: Qcow2Header,
  next: Qcow2Header,
  whole: Uint8Array,
): readonly HeaderStep[] | undefined {
  const name = padded(backingNameOf(next));
  const nameAt = freeFrom(old, whole);
  const oldBare = bareSector(old, old.backingFileOffset);
  const nextBare = bareSector(next, nameAt);
  const fits = nameAt + name.length <= 2 ** next.clusterBits;
  if (!fits || oldBare === undefined || nextBare === undefined) return undefined;
  return [
    { at: 0, bytes: oldBare },
    ...(name.length === 0 ? [] : [{ at: nameAt, bytes: name }]),
    { at: 0, bytes: nextBare },
    ...lastSteps(whole),
  ];
}

function throughFields(
  old: Qcow2Header,
  next: Qcow2Header,
  whole: Uint8Array,
): readonly HeaderStep[] | undefined {
  const headerLength = freeFrom(old, whole);
  if (next.version < 3 || headerLength >= 2 ** next.clusterBits) return undefined;
  const unknownFields = new Uint8Array(headerLength - COMPRESSION_TYPE_POSITION - 1);
  unknownFields.set(next.unknownFields);
  const far = { ...next, headerLength, unknownFields };
  if (extensionsEnd(far) + backingNameOf(far).length > 2 ** next.clusterBits) return undefined;
  const bytes = padded(encodeHeader(far));
  return [
    { at: headerLength, bytes: bytes.subarray(headerLength) },
    { at: 0, bytes: bytes.subarray(0, SECTOR_SIZE_BYTES) },
    ...lastSteps(whole),
  ];
}

/** The end of every way. Requires: the header in the file does not look at the sectors behind the first one. */
function lastSteps(whole: Uint8Array): readonly HeaderStep[] {
  return [
    { at: SECTOR_SIZE_BYTES, bytes: whole.subarray(SECTOR_SIZE_BYTES) },
    { at: 0, bytes: whole.subarray(0, SECTOR_SIZE_BYTES) },
  ];
}

/**
 * A header in one sector: without feature names, its backing file's name elsewhere.
 *
 * @returns undefined when it does not fit in front of the name
 */
function bareSector(header: Qcow2Header, nameAt: HostOffset): Uint8Array | undefined {
  const { backingFilename: _text, backingFilenameBytes: _bytes, ...rest } = header;
  const bytes = encodeHeader(withoutFeatureNames(rest));
  const name = backingNameOf(header);
  const limit = name.length === 0 ? SECTOR_SIZE_BYTES : Math.min(nameAt, SECTOR_SIZE_BYTES);
  if (bytes.length > limit) return undefined;
  const sector = padded(bytes);
  const view = viewOf(sector);
  writeU64(view, NAME_OFFSET_POSITION, name.length === 0 ? 0 : nameAt);
  view.setUint32(NAME_OFFSET_POSITION + 8, name.length);
  // What lies in the first sector of a name that begins there stays.
  const inside = Math.max(0, SECTOR_SIZE_BYTES - nameAt);
  if (name.length > 0 && inside > 0) sector.set(name.subarray(0, inside), nameAt);
  return sector;
}

function withoutFeatureNames(header: Qcow2Header): Qcow2Header {
  const extensions = header.extensions.filter(({ type }) => type !== EXTENSION.featureNames);
  return { ...header, extensions };
}

/** Where a header ends, with a name that may lie anywhere in the cluster. */
function endInFile(header: Qcow2Header): number {
  const nameEnd = header.backingFileOffset + backingNameOf(header).length;
  return Math.max(extensionsEnd(header), nameEnd);
}

/** The first sector that neither the old header nor the new one has. */
function freeFrom(old: Qcow2Header, whole: Uint8Array): HostOffset {
  return Math.max(alignUp(endInFile(old), SECTOR_SIZE_BYTES), whole.length);
}

function padded(bytes: Uint8Array): Uint8Array {
  const whole = new Uint8Array(alignUp(bytes.length, SECTOR_SIZE_BYTES));
  whole.set(bytes);
  return whole;
}
