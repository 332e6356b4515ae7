/**
 * Limits that options make stricter than the child's.
 *
 * Above: BlkdebugDriver, definition.ts. Below: nothing.
 *
 * Source: QEMU's QAPI type `BlockdevOptionsBlkdebug`, and what the driver refuses.
 */
import { type BlockLimits, limitsOf } from "@blocklayer/block-api";
import { BlockError, isPowerOfTwo } from "@blocklayer/bytes";

/** All in bytes; absent or 0: the child's. */
export interface LimitOverrides {
  readonly align?: number;
  readonly maxTransfer?: number;
  readonly optWriteZero?: number;
  readonly maxWriteZero?: number;
  readonly optDiscard?: number;
  readonly maxDiscard?: number;
}

const INT_MAX = 2 ** 31 - 1;

/** @throws BlockError `EINVAL` that names the option */
export function strictLimits(child: BlockLimits, given: LimitOverrides): BlockLimits {
  const { align = 0 } = given;
  if (align !== 0 && (align >= INT_MAX || !isPowerOfTwo(align))) refuse("align", align);
  const requestAlignment = Math.max(align, child.requestAlignment);
  /** A multiple of `unit` below 2 GiB, or 0. */
  const checked = (name: string, value: number | undefined, unit: number): number => {
    if (value === undefined || value === 0) return 0;
    if (value >= INT_MAX || value % unit !== 0) refuse(name, value);
    return value;
  };
  const maxTransfer = checked("max-transfer", given.maxTransfer, requestAlignment);
  const optWriteZero = checked("opt-write-zero", given.optWriteZero, requestAlignment);
  const maxWriteZero = checked(
    "max-write-zero",
    given.maxWriteZero,
    Math.max(optWriteZero, requestAlignment),
  );
  const optDiscard = checked("opt-discard", given.optDiscard, requestAlignment);
  const maxDiscard = checked(
    "max-discard",
    given.maxDiscard,
    Math.max(optDiscard, requestAlignment),
  );
  const transfer = maxTransfer || child.maxTransfer;
  return limitsOf({
    ...child,
    requestAlignment,
    maxTransfer: Math.max(requestAlignment, transfer - (transfer % requestAlignment)),
    writeZeroesAlignment: Math.max(optWriteZero || child.writeZeroesAlignment, requestAlignment),
    maxWriteZeroes: maxWriteZero || child.maxWriteZeroes,
    discardAlignment: Math.max(optDiscard || child.discardAlignment, requestAlignment),
    maxDiscard: maxDiscard || child.maxDiscard,
  });
}

function refuse(name: string, value: number): never {
  throw new BlockError("EINVAL", `blkdebug: cannot meet constraints with ${name} ${value}`, {
    op: "open",
  });
}
