/** Runs of requests that between them meet every event of the qcow2 driver. */
import { Random, stampedBytes } from "@blocklayer/sim";

/** What a workload sends requests to. A request that fails is noted, and the run goes on. */
export interface FaultGuest {
  readonly write: (offset: number, bytes: Uint8Array, compressed?: boolean) => Promise<void>;
  readonly zero: (offset: number, lengthBytes: number, mayUnmap?: boolean) => Promise<void>;
  readonly discard: (offset: number, lengthBytes: number) => Promise<void>;
  /** Reads all of the disk, and compares it with the model. */
  readonly readAll: () => Promise<void>;
  readonly flush: () => Promise<void>;
  readonly truncate: (lengthBytes: number) => Promise<void>;
  /** Writes bytes to the start of the VM state, and reads them again: as written, if both succeed. */
  readonly vmState: (bytes: Uint8Array) => Promise<void>;
}

/** One run, and the image that it runs on. */
export interface FaultWorkload {
  readonly name: string;
  readonly create: Readonly<Record<string, unknown>> & { readonly size: number };
  readonly open?: Readonly<Record<string, unknown>>;
  /** The disk's length at the end, when the run makes it longer. */
  readonly grownBytes?: number;
  /** Bytes of a backing file. */
  readonly backing?: Uint8Array;
  /** What is on the disk before, durable. */
  readonly before?: (guest: FaultGuest) => Promise<void>;
  /** An internal snapshot is made of that. */
  readonly snapshot?: boolean;
  readonly run: (guest: FaultGuest) => Promise<void>;
}

const KIB = 1024;

/** As few tables in memory as can be. */
const tiny = { "l2-cache-size": "4k", "l2-cache-entry-size": 512 };

/** Half of each cluster is random: it is stored in about half a cluster. */
function compressible(tag: number, lengthBytes: number, clusterSize: number): Uint8Array {
  const random = new Random(tag);
  const content = new Uint8Array(lengthBytes).fill(tag);
  for (let at = 0; at < lengthBytes; at += clusterSize) {
    content.set(random.bytes(clusterSize / 2), at + clusterSize / 2);
  }
  return content;
}

const stamped = async (guest: FaultGuest, tag: number, at: number, length: number): Promise<void> =>
  guest.write(at, stampedBytes(tag, at, length));

async function packed(
  guest: FaultGuest,
  tag: number,
  at: number,
  length: number,
  clusterSize = 4 * KIB,
): Promise<void> {
  await guest.write(at, compressible(tag, length, clusterSize), true);
}

/** Compressed clusters, alone and many at once, written over and over. */
async function compressedRun(guest: FaultGuest): Promise<void> {
  for (let i = 0; i < 6; i++) await packed(guest, i + 1, i * 4 * KIB, 4 * KIB);
  await guest.readAll();
  await guest.flush();
  await packed(guest, 11, 64 * KIB, 48 * KIB);
  await stamped(guest, 12, 4 * KIB, 4 * KIB);
  await packed(guest, 13, 8 * KIB, 8 * KIB);
  await guest.discard(64 * KIB, 16 * KIB);
  await guest.readAll();
  await packed(guest, 14, 64 * KIB, 8 * KIB);
  await stamped(guest, 15, 13 * KIB, 2 * KIB);
  await guest.flush();
  await packed(guest, 16, 0, 32 * KIB);
  await guest.readAll();
}

/** Parts and wholes of clusters that are shared, or lie in a file below. */
async function copyOnWriteRun(guest: FaultGuest): Promise<void> {
  await stamped(guest, 21, 5 * KIB, 1 * KIB);
  await stamped(guest, 22, 11 * KIB, 6 * KIB);
  await guest.readAll();
  await guest.flush();
  await stamped(guest, 23, 40 * KIB, 8 * KIB);
  await guest.discard(48 * KIB, 8 * KIB);
  await guest.zero(57 * KIB, 2 * KIB);
  await packed(guest, 24, 20 * KIB, 4 * KIB);
  await stamped(guest, 25, 21 * KIB, 1 * KIB);
  await guest.readAll();
}

export const WORKLOADS: readonly FaultWorkload[] = [
  {
    name: "plain",
    create: { size: 256 * KIB, cluster_size: 512, refcount_bits: 64 },
    open: tiny,
    run: async (guest) => {
      for (let i = 0; i < 12; i++) await stamped(guest, i + 1, i * 20 * KIB, (1 + (i % 4)) * 1536);
      await guest.readAll();
      // Again where something may have failed: what memory and file think of it must be one.
      for (let i = 0; i < 12; i++) await stamped(guest, i + 31, i * 20 * KIB + 512, 4 * KIB);
      await guest.readAll();
    },
  },
  {
    name: "compressed",
    create: { size: 128 * KIB, cluster_size: 4 * KIB, refcount_bits: 8 },
    open: { "compressed-write-cache": "off" },
    run: compressedRun,
  },
  {
    name: "compressed, gathered",
    create: { size: 128 * KIB, cluster_size: 4 * KIB, refcount_bits: 8 },
    open: { "compressed-write-cache": "on" },
    run: compressedRun,
  },
  {
    name: "compressed, gathered, one reference to a cluster at most",
    create: { size: 128 * KIB, cluster_size: 4 * KIB, refcount_bits: 1 },
    open: { "compressed-write-cache": "on" },
    run: compressedRun,
  },
  {
    name: "discard",
    create: { size: 64 * KIB, cluster_size: 512, refcount_bits: 16 },
    open: tiny,
    before: async (guest) => stamped(guest, 1, 0, 48 * KIB),
    run: async (guest) => {
      await guest.discard(0, 8 * KIB);
      await stamped(guest, 2, 2 * KIB, 4 * KIB);
      await guest.flush();
      await guest.discard(6 * KIB, 40 * KIB);
      await guest.flush();
      await stamped(guest, 3, 20 * KIB, 30 * KIB);
      await guest.readAll();
    },
  },
  {
    name: "zeroes",
    create: { size: 64 * KIB, cluster_size: 2 * KIB, refcount_bits: 16 },
    before: async (guest) => stamped(guest, 1, 0, 48 * KIB),
    run: async (guest) => {
      await guest.zero(1 * KIB, 12 * KIB);
      await stamped(guest, 2, 3 * KIB, 512);
      await guest.zero(20 * KIB, 16 * KIB, true);
      await guest.flush();
      await stamped(guest, 3, 20 * KIB, 7 * KIB);
      await guest.zero(50 * KIB, 14 * KIB);
      await guest.readAll();
    },
  },
  {
    name: "zeroes, version 2",
    create: { size: 64 * KIB, cluster_size: 2 * KIB, compat: "v2" },
    before: async (guest) => stamped(guest, 1, 0, 48 * KIB),
    run: async (guest) => {
      await guest.zero(1 * KIB, 12 * KIB, true);
      await guest.zero(20 * KIB, 9 * KIB);
      await guest.flush();
      await stamped(guest, 3, 2 * KIB, 7 * KIB);
      await guest.readAll();
    },
  },
  {
    name: "copy-on-write over a backing file",
    create: { size: 64 * KIB, cluster_size: 4 * KIB, refcount_bits: 16 },
    backing: stampedBytes(99, 0, 48 * KIB),
    run: copyOnWriteRun,
  },
  {
    name: "copy-on-write over a snapshot",
    create: { size: 64 * KIB, cluster_size: 4 * KIB, refcount_bits: 16 },
    open: { "compressed-write-cache": "on" },
    before: async (guest) => {
      await stamped(guest, 1, 0, 16 * KIB);
      await packed(guest, 2, 16 * KIB, 12 * KIB);
      await stamped(guest, 3, 36 * KIB, 24 * KIB);
    },
    snapshot: true,
    run: copyOnWriteRun,
  },
  {
    name: "large clusters, mostly zeroes",
    create: { size: 512 * KIB },
    before: async (guest) => stamped(guest, 1, 0, 128 * KIB),
    run: async (guest) => {
      await guest.discard(0, 64 * KIB);
      await guest.flush();
      await stamped(guest, 2, 260 * KIB, 4 * KIB);
      await stamped(guest, 3, 330 * KIB, 4 * KIB);
      await guest.readAll();
      await stamped(guest, 4, 5 * KIB, 4 * KIB);
      await guest.readAll();
    },
  },
  {
    name: "a longer L1 table",
    create: { size: 64 * 32 * KIB, cluster_size: 512, refcount_bits: 16 },
    grownBytes: 66 * 32 * KIB,
    before: async (guest) => stamped(guest, 1, 0, 4 * KIB),
    run: async (guest) => {
      await stamped(guest, 2, 2 * KIB, 4 * KIB);
      await guest.truncate(66 * 32 * KIB);
      await stamped(guest, 3, 65 * 32 * KIB, 4 * KIB);
      await guest.readAll();
    },
  },
  {
    name: "a shorter disk",
    create: { size: 10 * 128 * KIB, cluster_size: KIB, refcount_bits: 16 },
    open: tiny,
    before: async (guest) => {
      for (let table = 0; table < 10; table += 2)
        await stamped(guest, 1, table * 128 * KIB, 4 * KIB);
    },
    run: async (guest) => {
      const end = 128 * KIB + 512;
      await stamped(guest, 2, end - 512, KIB);
      // The model's disk keeps its length: zeroes stand for what lies past the end.
      await guest.zero(end, 9 * 128 * KIB - 512);
      await guest.flush();
      await guest.truncate(end);
      await guest.readAll();
      await stamped(guest, 3, 2 * KIB, 4 * KIB);
      await guest.truncate(10 * 128 * KIB);
      await guest.readAll();
      await stamped(guest, 4, 4 * 128 * KIB, 4 * KIB);
      await guest.readAll();
    },
  },
  {
    name: "VM state",
    create: { size: 64 * KIB, cluster_size: 512, refcount_bits: 16 },
    open: tiny,
    before: async (guest) => stamped(guest, 1, 0, 8 * KIB),
    run: async (guest) => {
      await guest.vmState(stampedBytes(7, 0, 6 * KIB));
      await stamped(guest, 2, 2 * KIB, 4 * KIB);
      await guest.vmState(stampedBytes(8, 0, 40 * KIB));
      await guest.readAll();
    },
  },
  {
    name: "a longer refcount table",
    create: { size: 2_097_152, cluster_size: 512, refcount_bits: 64 },
    before: async (guest) => stamped(guest, 1, 0, 3960 * 512),
    run: async (guest) => {
      await stamped(guest, 2, 3960 * 512, 4 * KIB);
      await guest.discard(0, 4 * KIB);
      await guest.flush();
      await stamped(guest, 3, 3970 * 512, 4 * KIB);
    },
  },
  {
    name: "side by side",
    create: { size: 128 * KIB, cluster_size: 4 * KIB, refcount_bits: 16 },
    open: { ...tiny, "compressed-write-cache": "on" },
    before: async (guest) => stamped(guest, 1, 0, 64 * KIB),
    run: async (guest) => {
      for (let round = 0; round < 3; round++) {
        const tag = 10 * round;
        await Promise.all([
          stamped(guest, tag + 2, 70 * KIB, 7 * KIB),
          stamped(guest, tag + 3, 75 * KIB, 9 * KIB),
          packed(guest, tag + 4, 16 * KIB, 16 * KIB),
          guest.discard(32 * KIB, 16 * KIB),
          packed(guest, tag + 5, 96 * KIB, 8 * KIB),
          guest.zero(3 * KIB, 9 * KIB),
          guest.flush(),
          stamped(guest, tag + 6, 30 * KIB, 5 * KIB),
        ]);
        await guest.readAll();
      }
    },
  },
  {
    name: "a flush after each request",
    create: { size: 128 * KIB, cluster_size: 4 * KIB, refcount_bits: 16 },
    open: { ...tiny, "compressed-write-cache": "on" },
    run: async (guest) => {
      for (let i = 0; i < 4; i++) {
        await stamped(guest, 10 * i + 1, i * 9 * KIB, 5 * KIB);
        await guest.flush();
        await packed(guest, 10 * i + 2, (64 + 8 * i) * KIB, 8 * KIB);
        await guest.flush();
        await guest.discard(i * 8 * KIB, 4 * KIB);
        await guest.flush();
      }
      await guest.readAll();
    },
  },
];
