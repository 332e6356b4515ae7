/** The list of internal snapshots for people, as qemu-img prints it. */
import { encodeName } from "@blocklayer/bytes";
import { formatSize } from "@blocklayer/bytes";
import type { SnapshotInfo } from "@blocklayer/image";

/** All of it, or nothing where there are none. Ends with a line feed. */
export function snapshotListText(snapshots: readonly SnapshotInfo[]): string {
  return snapshotLines(snapshots)
    .map((line) => `${line}\n`)
    .join("");
}

/** Title, columns, and a line for each; none where there are no snapshots. */
export function snapshotLines(snapshots: readonly SnapshotInfo[]): readonly string[] {
  if (snapshots.length === 0) return [];
  const columns = (
    id: string,
    tag: string,
    size: string,
    date: string,
    clock: string,
    count: string,
  ) =>
    `${padded(id, 9)} ${padded(tag, 16)} ${size.padStart(8)}${date.padStart(20)}${clock.padStart(13)}${count.padStart(11)}`;
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

/** As wide as qemu-img makes a text: it counts bytes. */
function padded(text: string, widthBytes: number): string {
  return text + " ".repeat(Math.max(0, widthBytes - encodeName(text).length));
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
