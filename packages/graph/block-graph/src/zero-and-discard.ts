/**
 * Zeroing and discarding within a driver's limits.
 *
 * Above: NodeIo, which holds a tracked request over the range. Below: the driver.
 *
 * 1. `writeZeroes` reaches the driver in pieces that break at its `writeZeroesAlignment`, none above its maximum.
 *    A piece that the driver refuses with `ENOTSUP` is written as zero bytes, unless the caller forbids that.
 * 2. Parts that are not aligned to `requestAlignment` are always written as bytes.
 * 3. `discard` is a hint: what is not aligned is left out, and `ENOTSUP` is no error. The last unit of the disk
 *    counts as whole even when the disk ends inside it.
 */
import { alignDown, alignUp, BlockError, hasCode, IoVector, KiB } from "@blocklayer/bytes";
import type { MaybePromise } from "@blocklayer/bytes";
import type {
  BlockDriver,
  RequestOptions,
  WriteOptions,
  WriteZeroesOptions,
} from "@blocklayer/block-api";
import type { NodeDevice } from "./announcing-device.js";
import { alignedPieces, fixedPieces, forEachPiece } from "./pieces.js";
import { refuseAborted } from "./request-checks.js";

/** What is written where zeroes must be written as bytes: one buffer, named several times in a vector. */
const ZERO_BYTES: Uint8Array = new Uint8Array(64 * KiB);
/** The longest single write of zero bytes. */
const MAX_ZERO_WRITE_BYTES: number = 1024 * KiB;

/** A node's driver, and the two ways of changing what it holds. */
export interface ZeroTarget {
  readonly name: string;
  readonly driver: BlockDriver;
  /** The driver, as zero writes reach it. */
  readonly device: NodeDevice;
  deviceWrite(offset: number, source: IoVector, options?: WriteOptions): MaybePromise<void>;
  deviceChange(
    offset: number,
    lengthBytes: number,
    send: () => MaybePromise<void>,
    options?: RequestOptions,
  ): MaybePromise<void>;
}

/** Makes a range read as zeroes. Requires: the driver is writable; `fua` only when it can. */
export function deviceWriteZeroes(
  target: ZeroTarget,
  offset: number,
  lengthBytes: number,
  options: WriteZeroesOptions,
): MaybePromise<void> {
  const { driver } = target;
  const { requestAlignment, writeZeroesAlignment, maxWriteZeroes } = driver.limits;
  const end = offset + lengthBytes;
  const unit = Math.max(requestAlignment, writeZeroesAlignment);
  const max = Math.max(alignDown(maxWriteZeroes, requestAlignment), requestAlignment);
  const rule = unit === 1 ? fixedPieces(max) : alignedPieces(unit, max, end);
  const request = (at: number, length: number): MaybePromise<void> => {
    refuseAborted("write zeroes", target.name, options.signal);
    const fits = at % requestAlignment === 0 && length % requestAlignment === 0;
    if (!fits) return zeroAround(target, at, length, options);
    return driver.capabilities.writeZeroes
      ? zeroByDriver(target, at, length, options)
      : zeroByBytes(target, at, length, options);
  };
  return forEachPiece(offset, end, rule, request);
}

/** A head or tail that is not aligned: its aligned middle by the driver, what is around it as bytes. */
function zeroAround(
  target: ZeroTarget,
  offset: number,
  length: number,
  options: WriteZeroesOptions,
): MaybePromise<void> {
  const { requestAlignment } = target.driver.limits;
  const end = offset + length;
  const rule = alignedPieces(requestAlignment, Number.MAX_SAFE_INTEGER, end);
  return forEachPiece(offset, end, rule, (at, part) =>
    at % requestAlignment === 0 && part % requestAlignment === 0
      ? zeroByDriver(target, at, part, options)
      : writeZeroBytes(target, at, part, options),
  );
}

function zeroByDriver(
  target: ZeroTarget,
  offset: number,
  length: number,
  options: WriteZeroesOptions,
): MaybePromise<void> {
  const fallBack = (error: unknown): MaybePromise<void> => {
    if (!hasCode(error, "ENOTSUP")) throw error;
    return zeroByBytes(target, offset, length, options, error);
  };
  if (!target.driver.capabilities.writeZeroes) {
    return zeroByBytes(target, offset, length, options);
  }
  try {
    const send = () => target.device.writeZeroes(offset, length, options);
    const result = target.deviceChange(offset, length, send, options);
    return result instanceof Promise ? result.catch(fallBack) : undefined;
  } catch (error) {
    return fallBack(error);
  }
}

function zeroByBytes(
  target: ZeroTarget,
  offset: number,
  length: number,
  options: WriteZeroesOptions,
  cause?: unknown,
): MaybePromise<void> {
  if (options.noFallback === true) {
    const message = `node '${target.name}': driver '${target.driver.driverName}' cannot zero this range cheaply`;
    throw new BlockError("ENOTSUP", message, {
      op: "write zeroes",
      node: target.name,
      offset,
      length,
      cause,
    });
  }
  return writeZeroBytes(target, offset, length, options);
}

function writeZeroBytes(
  target: ZeroTarget,
  offset: number,
  length: number,
  options: WriteZeroesOptions,
): MaybePromise<void> {
  const passed: WriteOptions = writeOptionsOf(options);
  const max = Math.min(MAX_ZERO_WRITE_BYTES, target.driver.limits.maxTransfer);
  return forEachPiece(offset, offset + length, fixedPieces(max), (at, part) => {
    refuseAborted("write zeroes", target.name, options.signal);
    return target.deviceWrite(at, zeroVector(part), passed);
  });
}

function writeOptionsOf({ signal, fua }: WriteZeroesOptions): WriteOptions {
  return {
    ...(signal === undefined ? {} : { signal }),
    ...(fua === undefined ? {} : { fua }),
  };
}

function zeroVector(lengthBytes: number): IoVector {
  const parts: Uint8Array[] = [];
  for (let rest = lengthBytes; rest > 0; rest -= ZERO_BYTES.length) {
    parts.push(rest < ZERO_BYTES.length ? ZERO_BYTES.subarray(0, rest) : ZERO_BYTES);
  }
  return IoVector.from(parts);
}

/** Gives space back where whole units are covered. Requires: the driver is writable and can discard. */
export function deviceDiscard(
  target: ZeroTarget,
  offset: number,
  lengthBytes: number,
  options: RequestOptions | undefined,
): MaybePromise<void> {
  const { driver } = target;
  const { requestAlignment, discardAlignment, maxDiscard } = driver.limits;
  const unit = Math.max(requestAlignment, discardAlignment);
  const start = alignUp(offset, unit);
  const toEnd = offset + lengthBytes >= driver.lengthBytes;
  const wholeEnd = alignDown(offset + lengthBytes, unit);
  const end = toEnd ? alignUp(offset + lengthBytes, requestAlignment) : wholeEnd;
  const max = Math.max(alignDown(maxDiscard, unit), requestAlignment);
  return forEachPiece(start, end, fixedPieces(max), (at, length) => {
    refuseAborted("discard", target.name, options?.signal);
    const send = () => driver.discard(at, length, options);
    return ignoringUnsupported(() => target.deviceChange(at, length, send, options));
  });
}

function ignoringUnsupported(work: () => MaybePromise<void>): MaybePromise<void> {
  const ignore = (error: unknown): void => {
    if (!hasCode(error, "ENOTSUP")) throw error;
  };
  try {
    const result = work();
    return result instanceof Promise ? result.catch(ignore) : undefined;
  } catch (error) {
    ignore(error);
    return undefined;
  }
}
