/** `blk info` for people, line by line as qemu-img prints it. */
import { formatSize } from "@blocklayer/bytes";
import type { ImageInfo, SnapshotInfo } from "@blocklayer/image";

/** One image. Ends with a line feed. */
export function infoText(info: ImageInfo): string {
  const actual = info["actual-size"];
  const lines = [
    `image: ${info.filename}`,
    `file format: ${info.format}`,
    `virtual size: ${formatSize(info["virtual-size"])} (${info["virtual-size"]} bytes)`,
    `disk size: ${actual === undefined ? "unavailable" : formatSize(actual)}`,
  ];
  if (info["cluster-size"] !== undefined) lines.push(`cluster_size: ${info["cluster-size"]}`);
  if (info["dirty-flag"]) lines.push("cleanly shut down: no");
  lines.push(...backingLines(info), ...snapshotLines(info.snapshots ?? []));
  const specific = info["format-specific"];
  if (specific !== undefined && Object.keys(specific.data).length > 0) {
    lines.push("Format specific information:", ...recordLines(specific.data, 1));
  }
  return `${lines.join("\n")}\n`;
}

function backingLines(info: ImageInfo): readonly string[] {
  const named = info["backing-filename"];
  if (named === undefined) return [];
  const full = info["full-backing-filename"];
  const actual =
    full === undefined
      ? " (cannot determine actual path)"
      : full === named
        ? ""
        : ` (actual path: ${full})`;
  const format = info["backing-filename-format"];
  return [
    `backing file: ${named}${actual}`,
    ...(format === undefined ? [] : [`backing file format: ${format}`]),
  ];
}

/** A record of the format's own facts; nested ones are indented, and hyphens read as blanks. */
export function recordLines(record: object, depth: number): readonly string[] {
  const indent = "    ".repeat(depth);
  return Object.entries(record).flatMap(([key, value]) => {
    const label = `${indent}${/^\d+$/.test(key) ? `[${key}]` : key.replaceAll("-", " ")}:`;
    if (typeof value !== "object" || value === null) return [`${label} ${String(value)}`];
    return [label, ...recordLines(value, depth + 1)];
  });
}

function snapshotLines(snapshots: readonly SnapshotInfo[]): readonly string[] {
  if (snapshots.length === 0) return [];
  const columns = (
    id: string,
    tag: string,
    size: string,
    date: string,
    clock: string,
    count: string,
  ) =>
    `${id.padEnd(10)}${tag.padEnd(17)}${size.padStart(8)}${date.padStart(20)}${clock.padStart(13)}${count.padStart(11)}`;
  return [
    "Snapshot list:",
    columns("ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT"),
    ...snapshots.map((one) =>
      columns(
        one.id,
        one.name,
        formatSize(one["vm-state-size"]),
        localDate(one["date-sec"]),
        clockText(one["vm-clock-sec"], one["vm-clock-nsec"]),
        one.icount === undefined ? "--" : String(one.icount),
      ),
    ),
  ];
}

function localDate(seconds: number): string {
  const date = new Date(seconds * 1000);
  const two = (value: number) => String(value).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

function clockText(seconds: number, nanoseconds: number): string {
  const two = (value: number) => String(value).padStart(2, "0");
  const hours = two(Math.floor(seconds / 3600));
  const rest = `${two(Math.floor((seconds % 3600) / 60))}:${two(seconds % 60)}`;
  return `${hours}:${rest}.${String(Math.floor(nanoseconds / 1e6)).padStart(3, "0")}`;
}
