/** `blk info` for people, line by line as qemu-img prints it. */
import { formatSize } from "@blocklayer/bytes";
import type { ImageInfo } from "@blocklayer/image";
import { snapshotLines } from "./snapshot-list.js";

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
