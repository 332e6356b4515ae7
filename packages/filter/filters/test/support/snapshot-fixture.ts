/**
 * Gives an image of ours an internal snapshot, byte by byte: of everything that its active tables show.
 *
 * For tests that need clusters and tables which somebody else holds too. Only images with 16-bit refcounts whose
 * one refcount block has room for two more clusters; what it makes is for `check` to judge.
 *
 * Source: the qcow2 specification, "Snapshots" and "Cluster mapping".
 */
import { strict as assert } from "node:assert";

const OFFSET_MASK = 0x00ff_ffff_ffff_fe00n;
const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;
/** A snapshot's header, with the 24 bytes of extra data that version 3 wants. */
const SNAPSHOT_BYTES = 64;

/** The image with one snapshot more. */
export function withSnapshot(image: Uint8Array): Uint8Array {
  const { fixture, view, clusterSize } = begin(image);
  const clusterBits = Math.log2(clusterSize);
  const l1Size = view.getUint32(36);
  const l1Offset = Number(view.getBigUint64(40));
  const tableOffset = Number(view.getBigUint64(48));
  const refcounts = Number(view.getBigUint64(tableOffset));
  const count = (offset: number): void => {
    const at = refcounts + 2 * Math.floor(offset / clusterSize);
    view.setUint16(at, view.getUint16(at) + 1);
  };
  const l1Copy = image.length + ((clusterSize - (image.length % clusterSize)) % clusterSize);
  const snapshots = l1Copy + clusterSize;
  for (let i = 0; i < l1Size; i++) {
    const at = l1Offset + 8 * i;
    const l2Offset = Number(view.getBigUint64(at) & OFFSET_MASK);
    view.setBigUint64(l1Copy + 8 * i, BigInt(l2Offset));
    if (l2Offset === 0) continue;
    view.setBigUint64(at, BigInt(l2Offset));
    count(l2Offset);
    for (let entry = l2Offset; entry < l2Offset + clusterSize; entry += 8) {
      shareEntry(view, entry, clusterBits, count);
    }
  }
  count(l1Copy);
  count(snapshots);
  view.setUint32(60, 1);
  view.setBigUint64(64, BigInt(snapshots));
  view.setBigUint64(snapshots, BigInt(l1Copy));
  view.setUint32(snapshots + 8, l1Size);
  view.setUint16(snapshots + 12, 1);
  view.setUint16(snapshots + 14, 1);
  view.setUint32(snapshots + 36, 24);
  view.setBigUint64(snapshots + 48, view.getBigUint64(24));
  fixture.set(new TextEncoder().encode("1a"), snapshots + SNAPSHOT_BYTES);
  return fixture;
}

function begin(image: Uint8Array): {
  fixture: Uint8Array;
  view: DataView;
  clusterSize: number;
} {
  const clusterSize = 2 ** new DataView(image.buffer, image.byteOffset).getUint32(20);
  const whole = Math.ceil(image.length / clusterSize) * clusterSize;
  const fixture = new Uint8Array(whole + 2 * clusterSize);
  fixture.set(image);
  const view = new DataView(fixture.buffer);
  assert.equal(view.getUint32(96), 4, "refcounts are 16 bits wide");
  assert.equal(view.getUint32(60), 0, "there is no snapshot yet");
  assert.ok(fixture.length / clusterSize <= clusterSize / 2, "one refcount block counts all");
  return { fixture, view, clusterSize };
}

/** Counts what an L2 entry names once more, and says that it is shared. */
function shareEntry(
  view: DataView,
  at: number,
  clusterBits: number,
  count: (offset: number) => void,
): void {
  const entry = view.getBigUint64(at);
  if ((entry & COMPRESSED) === 0n) {
    const offset = Number(entry & OFFSET_MASK);
    if (offset === 0) return;
    view.setBigUint64(at, entry & ~COPIED);
    count(offset);
    return;
  }
  const offsetBits = BigInt(62 - (clusterBits - 8));
  const offset = Number(entry & ((1n << offsetBits) - 1n));
  const sectors = Number((entry & (COMPRESSED - 1n)) >> offsetBits) + 1;
  const end = offset - (offset % 512) + sectors * 512;
  const clusterSize = 2 ** clusterBits;
  for (let cluster = offset - (offset % clusterSize); cluster < end; cluster += clusterSize) {
    count(cluster);
  }
}
