/** Finds the parts of a buffer that are worth writing. Pure. */
import { firstNonZero } from "@blocklayer/bytes";

/**
 * Cuts a buffer into runs of data and of zeroes, in units of `granuleBytes`. Zero runs shorter than
 * `minZeroBytes` count as data.
 *
 * @param start - where the buffer lies on the disk: units are counted from offset 0 of the disk
 * @param emit - called in order with positions in the buffer
 */
export function forEachRun(
  bytes: Uint8Array,
  start: number,
  granuleBytes: number,
  minZeroBytes: number,
  emit: (isZero: boolean, from: number, to: number) => void,
): void {
  const { length } = bytes;
  let dataFrom = 0;
  let at = 0;
  while (at < length) {
    const nonZero = firstNonZero(bytes, at);
    const zeroEnd = nonZero === length ? length : unitStart(nonZero, start, granuleBytes);
    // A head or tail that is less than a unit counts: there is nothing else in it.
    if (zeroEnd > at && (zeroEnd - at >= minZeroBytes || (at === 0 && zeroEnd === length))) {
      if (dataFrom < at) emit(false, dataFrom, at);
      emit(true, at, zeroEnd);
      dataFrom = zeroEnd;
    }
    if (nonZero === length) break;
    at = nextUnit(nonZero, start, granuleBytes);
    // Units with data follow each other more often than not: look at each unit's first bytes only.
    while (at < length && bytes[at] !== 0) at += granuleBytes;
    if (at > length) at = length;
  }
  if (dataFrom < length) emit(false, dataFrom, length);
}

function unitStart(position: number, start: number, granule: number): number {
  return Math.max(position - ((start + position) % granule), 0);
}

function nextUnit(position: number, start: number, granule: number): number {
  return position - ((start + position) % granule) + granule;
}
