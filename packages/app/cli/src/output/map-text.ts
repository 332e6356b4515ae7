/** `blk map`, a line an extent, as qemu-img prints both forms. */
import { UsageError } from "../command-line.js";
import type { MapEntry } from "@blocklayer/image";

export const MAP_HEADING: string = mapLine("Offset", "Length", "Mapped to", "File");

/**
 * One extent for people; empty when it holds no data.
 *
 * @throws UsageError when the bytes have no place in a file, so that a table would lie
 */
export function mapText(entry: MapEntry): string {
  if (!entry.data || entry.zero) return "";
  if (entry.offset === undefined || entry.filename === undefined) {
    throw new UsageError("File contains external, encrypted or compressed clusters.");
  }
  return mapLine(hex(entry.start), hex(entry.length), hex(entry.offset), entry.filename);
}

/** One extent as an object of the JSON array; the caller puts brackets and commas around it. */
export function mapJson(entry: MapEntry): string {
  const fields = [
    `"start": ${entry.start}`,
    `"length": ${entry.length}`,
    `"depth": ${entry.depth}`,
    `"present": ${entry.present}`,
    `"zero": ${entry.zero}`,
    `"data": ${entry.data}`,
  ];
  if (entry.offset !== undefined) fields.push(`"offset": ${entry.offset}`);
  return `{ ${fields.join(", ")}}`;
}

function mapLine(offset: string, length: string, mappedTo: string, file: string): string {
  return `${offset.padEnd(16)}${length.padEnd(16)}${mappedTo.padEnd(16)}${file}\n`;
}

/** C's `%#x`: zero has no prefix. */
function hex(value: number): string {
  return value === 0 ? "0" : `0x${value.toString(16)}`;
}
