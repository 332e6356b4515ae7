/** A change on its way to a SimDisk: from the caller's buffers to an op that never changes. */
import { assert, type IoVector } from "@blocklayer/bytes";
import { describeOp, type TraceOp } from "./trace.js";

/** The change of a request before it has an id. */
export type Change =
  | { readonly kind: "write"; readonly offset: number; readonly source: IoVector; fua: boolean }
  | { readonly kind: "zero"; readonly offset: number; readonly lengthBytes: number; fua: boolean }
  | { readonly kind: "discard"; readonly offset: number; readonly lengthBytes: number }
  | { readonly kind: "truncate"; readonly lengthBytes: number };

/** The op of a change. Bytes are copied: the caller's buffer is its own again when the write ends. */
export function opOf(change: Change, id: number, disk: number): TraceOp {
  if (change.kind !== "write") return { ...change, disk, id };
  const bytes = new Uint8Array(change.source.lengthBytes);
  change.source.copyTo(bytes);
  const { offset, fua } = change;
  return { kind: "write", disk, id, offset, lengthBytes: bytes.length, bytes, fua };
}

/** A buffer belongs to the disk until its write has ended. */
export function assertUnchanged(source: IoVector, op: TraceOp): void {
  if (op.kind !== "write") return;
  let at = 0;
  for (const part of source.parts) {
    let same = 0;
    while (same < part.length && part[same] === op.bytes[at + same]) same++;
    if (same < part.length)
      assert(false, `the buffer of ${describeOp(op)} stays as it is in flight`);
    at += part.length;
  }
}
