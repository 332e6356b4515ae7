/** One driver for each class of defect. Each is right but for the one thing that its name says. */
import { alignDown, BlockError, IoVector, type MaybePromise } from "@blocklayer/bytes";
import {
  type BlockCapabilities,
  type BlockLimits,
  type BlockStatus,
  limitsOf,
  type ReopenRequest,
  type RequestOptions,
  storeCapabilities,
  type WriteOptions,
  type WriteZeroesOptions,
} from "@blocklayer/block-api";
import { ArrayDriver, type Medium } from "./array-driver.js";

type Broken = new (medium: Medium) => ArrayDriver;

class ForgetsLastPartOfVector extends ArrayDriver {
  override writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    const parts = source.parts.length > 1 ? source.parts.slice(0, -1) : source.parts;
    return super.writev(offset, IoVector.from(parts), options);
  }
}

class StopsAtIovMax extends ArrayDriver {
  override readv(offset: number, target: IoVector, options?: RequestOptions): MaybePromise<void> {
    return super.readv(offset, IoVector.from(target.parts.slice(0, 1024)), options);
  }
}

class TakesPartsForOneBuffer extends ArrayDriver {
  override readv(offset: number, target: IoVector, options?: RequestOptions): MaybePromise<void> {
    const first = target.parts[0] as Uint8Array;
    const room = first.buffer.byteLength - first.byteOffset;
    const whole = new Uint8Array(
      first.buffer,
      first.byteOffset,
      Math.min(target.lengthBytes, room),
    );
    return super.readv(offset, IoVector.of(whole), options);
  }
}

class SwapsParts extends ArrayDriver {
  override writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    return super.writev(offset, IoVector.from([...source.parts].reverse()), options);
  }
}

class LosesLastByteOfDisk extends ArrayDriver {
  override writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    const isAtEnd = offset + source.lengthBytes === this.lengthBytes;
    const kept = isAtEnd ? source.slice(0, source.lengthBytes - 1) : source;
    return super.writev(offset, kept, options);
  }
}

class WritesOneByteTooMany extends ArrayDriver {
  override writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    const result = super.writev(offset, source, options);
    const end = offset + source.lengthBytes;
    if (end < this.lengthBytes && end % 4096 !== 0) this.bytes[end] = 0;
    return result;
  }
}

class ForgetsSecondPage extends ArrayDriver {
  override writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    const cut = 65536 - (offset % 65536);
    return super.writev(offset, source.slice(0, Math.min(cut, source.lengthBytes)), options);
  }
}

class KeepsCallersBuffer extends ArrayDriver {
  #held: { offset: number; source: IoVector } | undefined;
  override writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    this.#settle();
    this.#held = { offset, source };
    return super.writev(offset, source, options);
  }
  override readv(offset: number, target: IoVector, options?: RequestOptions): MaybePromise<void> {
    this.#settle();
    return super.readv(offset, target, options);
  }
  #settle(): void {
    if (this.#held !== undefined) void super.writev(this.#held.offset, this.#held.source);
    this.#held = undefined;
  }
}

class ScribblesOnSource extends ArrayDriver {
  override writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    const result = super.writev(offset, source, options);
    source.fill(0);
    return result;
  }
}

class ZeroesTooLittle extends ArrayDriver {
  override writeZeroes(offset: number, length: number, options?: WriteZeroesOptions) {
    return super.writeZeroes(offset, length - 1, options);
  }
}

class ZeroesWholePages extends ArrayDriver {
  override writeZeroes(offset: number, length: number, options?: WriteZeroesOptions) {
    const start = alignDown(offset, 4096);
    return super.writeZeroes(start, offset + length - start, options);
  }
}

class UnmapLeavesData extends ArrayDriver {
  override writeZeroes(offset: number, length: number, options?: WriteZeroesOptions) {
    if (options?.mayUnmap === true) return;
    return super.writeZeroes(offset, length, options);
  }
}

class DiscardLeavesGarbage extends ArrayDriver {
  override discard(offset: number, length: number, options?: RequestOptions): void {
    this.begin(options, true);
    this.bytes.fill(0xff, offset, offset + length);
  }
}

class DiscardHitsNeighbours extends ArrayDriver {
  override discard(offset: number, length: number, options?: RequestOptions): MaybePromise<void> {
    const start = alignDown(offset, 65536);
    return super.discard(start, offset + length - start, options);
  }
}

class StaleAfterDiscard extends ArrayDriver {
  readonly #discarded = new Set<number>();
  override discard(offset: number, length: number, options?: RequestOptions): MaybePromise<void> {
    for (let at = alignDown(offset, 4096); at < offset + length; at += 4096) {
      if (at >= offset && at + 4096 <= offset + length) this.#discarded.add(at);
    }
    return super.discard(offset, length, options);
  }
  override writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    const result = super.writev(offset, source, options);
    // A whole page that was discarded is thought to be free still.
    for (const at of this.#discarded) {
      const isCovered = at > offset && at + 4096 < offset + source.lengthBytes;
      if (isCovered) this.bytes.fill(0, at, at + 4096);
    }
    return result;
  }
}

class LiesAboutZero extends ArrayDriver {
  override blockStatus(offset: number, length: number, options?: RequestOptions): BlockStatus {
    this.begin(options, false);
    return { lengthBytes: length, allocated: true, data: false, zero: true, compressed: false };
  }
}

class LiesAboutAllocation extends ArrayDriver {
  override blockStatus(offset: number, length: number, options?: RequestOptions): BlockStatus {
    this.begin(options, false);
    return { lengthBytes: length, allocated: false, data: false, zero: false, compressed: false };
  }
}

class StatusOfNoLength extends ArrayDriver {
  override blockStatus(offset: number, length: number, options?: RequestOptions): BlockStatus {
    this.begin(options, false);
    const lengthBytes = offset < 100_000 ? Math.min(length, 100_000 - offset) : 0;
    return { lengthBytes, allocated: true, data: true, zero: false, compressed: false };
  }
}

class StatusTooLong extends ArrayDriver {
  override blockStatus(_offset: number, length: number, options?: RequestOptions): BlockStatus {
    this.begin(options, false);
    const lengthBytes = Math.ceil(length / 65536) * 65536;
    return { lengthBytes, allocated: true, data: true, zero: false, compressed: false };
  }
}

class LosesParallelNeighbour extends ArrayDriver {
  /** Read-modify-write of whole pages without a lock. */
  override async writev(offset: number, source: IoVector, options?: WriteOptions): Promise<void> {
    this.begin(options, true);
    if (options?.compressed === true) return super.writev(offset, source, options);
    const start = alignDown(offset, 4096);
    const end = Math.min(Math.ceil((offset + source.lengthBytes) / 4096) * 4096, this.lengthBytes);
    const pages = this.bytes.slice(start, Math.max(end, offset + source.lengthBytes));
    await Promise.resolve();
    source.copyTo(pages.subarray(offset - start, offset - start + source.lengthBytes));
    await super.writev(start, IoVector.of(pages));
  }
}

class ParallelWritesShareBounceBuffer extends ArrayDriver {
  #bounce = new Uint8Array(0);
  override async writev(offset: number, source: IoVector, options?: WriteOptions): Promise<void> {
    this.begin(options, true);
    if (options?.compressed === true) return super.writev(offset, source, options);
    const length = source.lengthBytes;
    if (this.#bounce.length < length) this.#bounce = new Uint8Array(length);
    source.copyTo(this.#bounce.subarray(0, length));
    await Promise.resolve();
    await super.writev(offset, IoVector.of(this.#bounce.slice(0, length)));
  }
}

class GrowsWithGarbage extends ArrayDriver {
  override resize(length: number): void {
    const before = this.lengthBytes;
    super.resize(length);
    if (length > before) this.bytes.fill(0xaa, before);
  }
}

class KeepsWhatWasCutOff extends ArrayDriver {
  #length = this.bytes.length;
  override get lengthBytes(): number {
    return this.#length;
  }
  override resize(length: number): void {
    this.#length = length;
    if (length > this.bytes.length) super.resize(length);
  }
}

class IgnoresTruncate extends ArrayDriver {
  override truncate(_length: number, options?: RequestOptions): void {
    this.begin(options, true);
  }
}

class FlushDropsData extends ArrayDriver {
  override flushToDisk(): void {
    this.bytes.fill(0, 140_000, 140_512);
  }
}

class CloseDoesNotFlush extends ArrayDriver {
  readonly #stable: Medium;
  constructor(medium: Medium) {
    super({ bytes: medium.bytes.slice() });
    this.#stable = medium;
  }
  override flushToDisk(): void {
    this.#stable.bytes = this.bytes.slice();
  }
}

class SavesOnce extends CloseDoesNotFlush {
  static readonly #saved = new WeakSet<Medium>();
  readonly #first: Medium;
  constructor(medium: Medium) {
    super(medium);
    this.#first = medium;
  }
  override close(): void {
    if (!SavesOnce.#saved.has(this.#first)) this.flushToDisk();
    SavesOnce.#saved.add(this.#first);
  }
}

class FlushDoesNothing extends CloseDoesNotFlush {
  override flushToDisk(): void {}
}

class IgnoresAbort extends ArrayDriver {
  override begin(_options: RequestOptions | undefined, isChange: boolean): void {
    super.begin(undefined, isChange);
  }
}

class AbortsAfterTheFact extends ArrayDriver {
  override writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    void super.writev(offset, source);
    return super.writev(offset, source, options);
  }
}

class ReadOnlyButWrites extends ArrayDriver {
  override get capabilities(): BlockCapabilities {
    return storeCapabilities(false);
  }
}

class ReadOnlyPretends extends ArrayDriver {
  override get capabilities(): BlockCapabilities {
    return storeCapabilities(false);
  }
  override writev(_offset: number, _source: IoVector, options?: WriteOptions): void {
    super.begin(options, false);
  }
}

class PretendsToCompress extends ArrayDriver {
  override writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    if (options?.compressed === true) return;
    return super.writev(offset, source, options);
  }
}

class ReopenForgets extends ArrayDriver {
  override reopen(request: ReopenRequest): void {
    if (request.readOnly) this.bytes.fill(0, 60_000, 61_000);
    this.writable = !request.readOnly;
  }
}

class ReopenIgnoresMode extends ArrayDriver {
  override reopen(): void {}
}

class WritesWhileInactive extends ArrayDriver {
  override inactivate(): void {}
}

class ActivatesStale extends ArrayDriver {
  readonly #stale = this.bytes.slice();

  override activate(): void {
    void super.activate();
    this.bytes.set(this.#stale);
  }
}

class UnusableLimits extends ArrayDriver {
  override readonly limits: BlockLimits = { ...limitsOf({}), requestAlignment: 3 };
}

class WaitsForNothing extends ArrayDriver {
  override async readv(offset: number, target: IoVector, options?: RequestOptions): Promise<void> {
    await super.readv(offset, target, options);
  }
}

class FreshDiskIsDirty extends ArrayDriver {
  constructor(medium: Medium) {
    super(medium);
    this.bytes[5000] = 1;
  }
}

class ForgetsFua extends ArrayDriver {
  override writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    if (options?.fua === true) return this.begin(options, true);
    return super.writev(offset, source, options);
  }
}

class CannotGrow extends ArrayDriver {
  override writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    const fits = Math.min(source.lengthBytes, Math.max(this.lengthBytes - offset, 0));
    return super.writev(offset, source.slice(0, fits), options);
  }
}

class ShortensLongReads extends ArrayDriver {
  override readv(offset: number, target: IoVector, options?: RequestOptions): MaybePromise<void> {
    return super.readv(offset, target.slice(0, Math.min(target.lengthBytes, 1_000_000)), options);
  }
}

class HasNoName extends ArrayDriver {
  override readonly driverName: string = "";
}

class ReadsFromPageStart extends ArrayDriver {
  override readv(offset: number, target: IoVector, options?: RequestOptions): MaybePromise<void> {
    const isShort = target.lengthBytes < 512 && offset % 4096 !== 0;
    return super.readv(isShort ? alignDown(offset, 512) : offset, target, options);
  }
}

class ReadsGarbageAtTheEnd extends ArrayDriver {
  override readonly limits: BlockLimits = limitsOf({ requestAlignment: 512 });
  override readv(offset: number, target: IoVector, options?: RequestOptions): MaybePromise<void> {
    this.begin(options, false);
    target.fill(0xff);
    const fits = Math.min(target.lengthBytes, alignDown(this.lengthBytes, 512) - offset);
    if (fits > 0) return super.readv(offset, target.slice(0, fits), options);
  }
}

class ZeroedStaysZero extends ArrayDriver {
  readonly #zeroed = new Uint8Array(this.bytes.length);
  override writeZeroes(offset: number, length: number, options?: WriteZeroesOptions) {
    this.#zeroed.fill(1, offset, offset + length);
    return super.writeZeroes(offset, length, options);
  }
  override writev(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void> {
    const result = super.writev(offset, source, options);
    for (let i = 0; i < source.lengthBytes; i++) {
      if (this.#zeroed[offset + i] === 1) this.bytes[offset + i] = 0;
    }
    return result;
  }
}

class RefusesAfterZeroing extends ArrayDriver {
  override writeZeroes(offset: number, length: number, options?: WriteZeroesOptions) {
    const result = super.writeZeroes(offset, length, options);
    if (options?.noFallback === true) throw new BlockError("ENOTSUP", "array: would be slow");
    return result;
  }
}

class ZeroingUndoesParallelWrites extends ArrayDriver {
  override async writeZeroes(offset: number, length: number, options?: WriteZeroesOptions) {
    this.begin(options, true);
    const before = this.bytes.slice();
    await Promise.resolve();
    await Promise.resolve();
    this.bytes = before;
    await super.writeZeroes(offset, length);
  }
}

class OverlapMakesThirdValue extends ArrayDriver {
  #inFlight = 0;
  override async writev(offset: number, source: IoVector, options?: WriteOptions): Promise<void> {
    this.begin(options, true);
    this.#inFlight++;
    await Promise.resolve();
    await super.writev(offset, source, options);
    if (this.#inFlight > 1) this.bytes[offset + 3] = 0;
    this.#inFlight--;
  }
}

class SameLengthClears extends ArrayDriver {
  override resize(length: number): void {
    if (length === this.lengthBytes) this.bytes.fill(0);
    super.resize(length);
  }
}

class FlushWritesHeaderIntoDisk extends ArrayDriver {
  override flushToOs(): void {
    this.bytes[7] = 1;
  }
}

class ForgetsNewLength extends CloseDoesNotFlush {
  readonly #first: Medium;
  constructor(medium: Medium) {
    super(medium);
    this.#first = medium;
  }
  override close(): void {
    const length = this.#first.bytes.length;
    this.#first.bytes = this.bytes.slice(0, length);
  }
}

class AbortCorrupts extends ArrayDriver {
  override async writev(offset: number, source: IoVector, options?: WriteOptions): Promise<void> {
    this.begin(options, true);
    await Promise.resolve();
    await super.writev(offset, source, options?.compressed === true ? options : undefined);
    if (options?.signal?.aborted !== true) return;
    this.bytes.fill(0, offset, offset + source.lengthBytes);
    this.begin(options, true);
  }
}

/** The drivers, each with a part of the name of a check that must catch it. */
export const brokenDrivers: readonly (readonly [Broken, string])[] = [
  [ForgetsLastPartOfVector, "writev() takes a vector of many"],
  [StopsAtIovMax, "readv() fills a vector of many"],
  [TakesPartsForOneBuffer, "readv() fills a vector of many"],
  [SwapsParts, "writev() takes a vector of many"],
  [LosesLastByteOfDisk, "writev() at every kind of range"],
  [WritesOneByteTooMany, "writev() over earlier writes"],
  [ForgetsSecondPage, "writev() at every kind of range"],
  [KeepsCallersBuffer, "the buffer is the caller's again"],
  [ScribblesOnSource, "the buffer is the caller's again"],
  [ZeroesTooLittle, "writeZeroes() at every kind"],
  [ZeroesWholePages, "writeZeroes() at every kind"],
  [UnmapLeavesData, "writeZeroes({ mayUnmap })"],
  [DiscardLeavesGarbage, "discard() leaves each byte"],
  [DiscardHitsNeighbours, "discard() leaves each byte"],
  [StaleAfterDiscard, "writev() after discard()"],
  [LiesAboutZero, "blockStatus() tiles a disk with data"],
  [LiesAboutAllocation, "blockStatus() tiles a disk with data"],
  [StatusOfNoLength, "blockStatus() tiles a fresh disk"],
  [StatusTooLong, "blockStatus() of any range"],
  [LosesParallelNeighbour, "side by side on neighbouring ranges"],
  [ParallelWritesShareBounceBuffer, "side by side on neighbouring ranges"],
  [GrowsWithGarbage, "truncate() to more"],
  [KeepsWhatWasCutOff, "truncate() to less and back"],
  [IgnoresTruncate, "truncate() to more"],
  [FlushDropsData, "a flush leaves every byte"],
  [CloseDoesNotFlush, "close() flushes"],
  [SavesOnce, "close() flushes"],
  [FlushDoesNothing, "what was flushed is there"],
  [IgnoresAbort, "whose signal is aborted"],
  [AbortsAfterTheFact, "whose signal is aborted"],
  [ReadOnlyButWrites, "a read-only disk refuses"],
  [ReadOnlyPretends, "a read-only disk refuses"],
  [PretendsToCompress, "what a driver's capabilities deny"],
  [ReopenForgets, "reopen() to read-only and back"],
  [ReopenIgnoresMode, "reopen() to read-only and back"],
  [WritesWhileInactive, "inactivate() and activate()"],
  [ActivatesStale, "inactivate() and activate()"],
  [UnusableLimits, "limits hold together"],
  [WaitsForNothing, "return plainly"],
  [FreshDiskIsDirty, "a fresh disk returns"],
  [ForgetsFua, "writev() with fua"],
  [CannotGrow, "writev() past the end grows"],
  [ShortensLongReads, "maxTransfer"],
  [ReadOnlyButWrites, "capabilities are what the source promises"],
  [HasNoName, "driverName is a word"],
  [ReadsFromPageStart, "readv() at every kind of range"],
  [ReadsGarbageAtTheEnd, "the last, partial unit"],
  [ZeroedStaysZero, "writeZeroes() takes effect on a fresh disk"],
  [RefusesAfterZeroing, "writeZeroes({ noFallback })"],
  [ZeroingUndoesParallelWrites, "reads, writes, zeroes and flushes side by side"],
  [OverlapMakesThirdValue, "writev() twice at once"],
  [SameLengthClears, "truncate() to the same length"],
  [FlushWritesHeaderIntoDisk, "a flush of a fresh disk"],
  [ForgetsNewLength, "truncate() lasts"],
  [AbortCorrupts, "an abort in flight"],
  [ForgetsLastPartOfVector, "random operations"],
];

/** Those that the random operations alone must find. */
export const modelMustFind: readonly Broken[] = [
  ForgetsLastPartOfVector,
  LosesLastByteOfDisk,
  ForgetsSecondPage,
  ZeroesTooLittle,
  ZeroesWholePages,
  UnmapLeavesData,
  DiscardLeavesGarbage,
  DiscardHitsNeighbours,
  StaleAfterDiscard,
  LiesAboutZero,
  LosesParallelNeighbour,
  ParallelWritesShareBounceBuffer,
  GrowsWithGarbage,
  KeepsWhatWasCutOff,
  FlushDropsData,
  CloseDoesNotFlush,
  ForgetsFua,
];
