/**
 * The cached bytes of one host cluster, and how far they have come on their way to the file.
 *
 * Above: SeqCache, FlushQueue, overlay.ts. Below: nothing.
 *
 *   0        start        sentEnd        end            cluster size
 *   ├─ not ours ┼─ handed out ─┼─ not handed out ─┼─ room or padding ─┤
 *
 * 1. `start <= sentEnd <= end <= cluster size`. The cached bytes are `[start, end)`.
 * 2. `end` only grows, and only while `finished` is false; the bytes in `[start, end)` never change [S3].
 * 3. `start` only grows: to where a flush that ended has written [S7].
 * 4. Handouts of one entry that are not settled have different ends: nothing is handed out twice at once.
 */
export class Entry {
  /** Host offset of the cluster's first byte. */
  readonly clusterOffset: number;
  /** The same, counted in clusters: the key of the entry. */
  readonly clusterIndex: number;
  /** A whole cluster, wherever in it the data begins: memory is as aligned as the file's bytes are. */
  readonly buffer: Uint8Array;
  /** Age. The queue is kept in this order. */
  readonly serial: number;
  start: number;
  end: number;
  sentEnd: number;
  finished = false;
  /** Whether it still belongs to the cache; false once written or dropped. */
  cached = true;
  /** Whether all bytes behind `end` are zero. Appending keeps that. */
  tailIsZero = false;
  /** Handouts that are not settled. The buffer lives as long as there are any. */
  handoutCount = 0;
  /** Neighbours in the queue; undefined at its ends and outside it. */
  older: Entry | undefined = undefined;
  newer: Entry | undefined = undefined;
  queued = false;

  constructor(
    clusterIndex: number,
    clusterOffset: number,
    start: number,
    buffer: Uint8Array,
    serial: number,
  ) {
    this.clusterIndex = clusterIndex;
    this.clusterOffset = clusterOffset;
    this.buffer = buffer;
    this.serial = serial;
    this.start = start;
    this.end = start;
    this.sentEnd = start;
  }

  /** Host offset behind the last byte: what is written there is appended. */
  get endOffset(): number {
    return this.clusterOffset + this.end;
  }

  /** Whether there are bytes that nobody has been handed. */
  get hasUnsent(): boolean {
    return this.sentEnd < this.end;
  }
}
