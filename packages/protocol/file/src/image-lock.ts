/**
 * The locks that one open file holds against other users of the image, ours and QEMU's.
 *
 * Above: FileDriver, createFile. Below: lock-plan, native, proc-locks.
 * 1. Locks belong to the open file description: two opens in one process are two users, and closing the
 *    descriptor lets go of everything.
 * 2. Own locks are taken first, others' are looked at afterwards. When that finds a conflict, what was added
 *    is let go again and the state is as before.
 * 3. Without the calls to lock (`seen only`), others' locks are looked at and own use stays invisible.
 */
import { BlockError } from "@blocklayer/bytes";
import type { Permissions } from "@blocklayer/block-api";
import { errnoOf } from "./file-error.js";
import type { HostFile } from "./host-file.js";
import { LOCK_BYTES_END, type LockCheck, type LockPlan, lockPlanOf } from "./lock-plan.js";
import type { NativeFs } from "./native.js";
import { readProcLocks } from "./proc-locks.js";

export type LockingMode = "auto" | "on" | "off";

/** How a file is guarded. `seen-only`: others' locks are respected, ours cannot be taken. */
export type LockState = "locked" | "seen-only" | "unlocked";

/** Errnos of a file system that has no locks. */
const NO_LOCKS: ReadonlySet<string> = new Set(["ENOLCK", "EINVAL", "ENOTSUP", "ENOSYS"]);

const NOTHING: LockPlan = { bytes: [], checks: [] };

/** The lock of one open file. */
export class ImageLock {
  readonly #file: HostFile;
  readonly #native: NativeFs | undefined;
  readonly #mode: LockingMode;
  #plan: LockPlan = NOTHING;
  #state: LockState = "unlocked";

  constructor(file: HostFile, native: NativeFs | undefined, mode: LockingMode) {
    this.#file = file;
    this.#native = native;
    this.#mode = mode;
  }

  get state(): LockState {
    return this.#state;
  }

  /**
   * Takes, or changes to, the locks of these permissions.
   *
   * @throws BlockError `EAGAIN` when another user is in the way; `ENOTSUP` when `locking` is `on` and there
   *   are no locks here. After failure: as before.
   */
  async set(permissions: Permissions): Promise<void> {
    if (this.#mode === "off") return;
    const next = lockPlanOf(permissions);
    if (this.#native === undefined) {
      await this.#look(next);
      return;
    }
    const added = next.bytes.filter((byte) => !this.#plan.bytes.includes(byte));
    if (!this.#take(this.#native, this.#file.fd, added)) return;
    try {
      for (const check of next.checks) this.#verify(this.#native, check);
    } catch (error) {
      this.#drop(this.#native, added);
      throw error;
    }
    this.#drop(
      this.#native,
      this.#plan.bytes.filter((byte) => !next.bytes.includes(byte)),
    );
    this.#plan = next;
    this.#state = "locked";
  }

  /**
   * Takes the same locks on another descriptor of the same file, which is about to replace this one. Shared
   * locks do not clash, so for a while both hold them.
   *
   * @returns the lock of the other descriptor; this one goes with its own
   */
  copyTo(file: HostFile): ImageLock {
    const copy = new ImageLock(file, this.#native, this.#mode);
    if (this.#state === "locked" && this.#native !== undefined) {
      this.#take(this.#native, file.fd, this.#plan.bytes);
    }
    copy.#plan = this.#plan;
    copy.#state = this.#state;
    return copy;
  }

  /** Lets go of everything. Closing the descriptor does it too, unless a child process inherited it. */
  release(): void {
    if (this.#state === "locked") {
      this.#native?.unlock(this.#file.fd, 0, LOCK_BYTES_END);
    }
    this.#plan = NOTHING;
    this.#state = "unlocked";
  }

  /** @returns whether there are locks here at all */
  #take(native: NativeFs, fd: number, bytes: readonly number[]): boolean {
    for (const [index, byte] of bytes.entries()) {
      const result = native.lockShared(fd, byte, 1);
      if (result === 0) continue;
      for (const taken of bytes.slice(0, index)) native.unlock(fd, taken, 1);
      const errno = errnoOf(result);
      if (NO_LOCKS.has(errno) && this.#mode === "auto") return false;
      throw this.#error(`Failed to lock byte ${byte}`, result, errno);
    }
    return true;
  }

  #drop(native: NativeFs, bytes: readonly number[]): void {
    for (const byte of bytes) native.unlock(this.#file.fd, byte, 1);
  }

  #verify(native: NativeFs, check: LockCheck): void {
    const found = native.isLockedElsewhere(this.#file.fd, check.byte, 1);
    if (found === 0) return;
    if (found > 0) throw this.#error(check.message, undefined, "EAGAIN");
    throw this.#error(`Failed to look at the lock of byte ${check.byte}`, found, errnoOf(found));
  }

  async #look(plan: LockPlan): Promise<void> {
    if (this.#mode === "on") {
      throw new BlockError(
        "ENOTSUP",
        `Could not open '${this.#file.filename}': locking=on needs OFD locks, which are not available here`,
        { op: "lock", node: this.#file.nodeName },
      );
    }
    const { lockDevice, inode } = this.#file;
    const ranges = await readProcLocks(this.#file.fd, lockDevice, inode);
    if (ranges === undefined) return;
    for (const { byte, message } of plan.checks) {
      if (ranges.some((range) => byte >= range.first && byte <= range.last)) {
        throw this.#error(message, undefined, "EAGAIN");
      }
    }
    this.#plan = plan;
    this.#state = "seen-only";
  }

  #error(message: string, cause: unknown, errno: string): BlockError {
    const { filename, nodeName } = this.#file;
    const question =
      errno === "EAGAIN" || errno === "EACCES"
        ? `\nIs another process using the image [${filename}]?`
        : `: ${errno}`;
    const code = errno === "EAGAIN" || errno === "EACCES" ? "EAGAIN" : "EIO";
    return new BlockError(code, `${message}${question}`, { op: "lock", node: nodeName, cause });
  }
}
