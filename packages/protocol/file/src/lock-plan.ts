/**
 * Which bytes of a file say what its users do and allow: QEMU's protocol for image files.
 *
 * Permission number n (its bit is 2^n) owns two bytes. A shared lock on byte 100 + n says "I use n", one on
 * 200 + n says "I do not let others use n". Locks never clash with each other: whoever comes takes their own
 * first and then looks at the opposite bytes. Two who come at the same time may both give up; they never both
 * go on.
 *
 * The bytes need not exist. Nothing is written to them.
 */
import { PERMISSION, type Permissions } from "@blocklayer/block-api";

/** First of the bytes that say what is used. */
export const USED_BYTES_START = 100;
/** First of the bytes that say what others may not use. */
export const UNSHARED_BYTES_START = 200;
/** QEMU keeps the bytes from 100 to 299 for this. */
export const LOCK_BYTES_END = 300;

/** The permissions by number, in the words of QEMU's messages. */
const NAMES: readonly (readonly [bit: number, name: string])[] = [
  [PERMISSION.consistentRead, "consistent read"],
  [PERMISSION.write, "write"],
  [PERMISSION.writeUnchanged, "write unchanged"],
  [PERMISSION.resize, "resize"],
];

/** A byte that nobody else may have locked. */
export interface LockCheck {
  readonly byte: number;
  /** What it means when somebody has. */
  readonly message: string;
}

/** What to lock, in order, and what to look at afterwards. */
export interface LockPlan {
  readonly bytes: readonly number[];
  readonly checks: readonly LockCheck[];
}

/** The plan for one user of a file. */
export function lockPlanOf(permissions: Permissions): LockPlan {
  const used: number[] = [];
  const unshared: number[] = [];
  const checks: LockCheck[] = [];
  const sharedChecks: LockCheck[] = [];
  for (const [number, [bit, name]] of NAMES.entries()) {
    if ((permissions.held & bit) !== 0) {
      used.push(USED_BYTES_START + number);
      checks.push({
        byte: UNSHARED_BYTES_START + number,
        message: `Failed to get "${name}" lock`,
      });
    }
    if ((permissions.shared & bit) === 0) {
      // A permission that QEMU has in its set but nobody takes ("write unchanged") costs nothing to unshare,
      // and QEMU unshares it too when asked.
      unshared.push(UNSHARED_BYTES_START + number);
      sharedChecks.push({
        byte: USED_BYTES_START + number,
        message: `Failed to get shared "${name}" lock`,
      });
    }
  }
  return { bytes: [...used, ...unshared], checks: [...checks, ...sharedChecks] };
}
