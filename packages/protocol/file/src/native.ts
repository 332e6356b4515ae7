/**
 * The system calls that Node lacks: reads that do not wait, seeking holes, fallocate, OFD locks, a few ioctls.
 *
 * Everything above takes a `NativeFs | undefined`, and works without one. `loadNative` gives the one that
 * stands on koffi, an optional dependency that is imported when first needed: that costs some 10 ms, which a
 * program that opens no local file should not pay.
 *
 * Errors are numbers, not exceptions: a failed call is an everyday answer here ("this file system has no
 * holes"), and the caller decides.
 */
import { CoSemaphore } from "@blocklayer/co-lock";

/** Modes of `allocate`: Linux' FALLOC_FL_*; 0 sets space aside and grows the file. */
export const FALLOCATE = { keepSize: 1, punchHole: 2, zeroRange: 16 } as const;

/** Where `seek` looks: lseek(2)'s whence. */
export const SEEK = { end: 2, data: 3, hole: 4 } as const;

/** Errnos of `readCached` that are no reason to give up. */
export const NATIVE_ERRNO = { EINTR: 4, EAGAIN: 11, ENOSYS: 38 } as const;

/** The calls. A negative result, or one that is not 0 where the type says so, is an errno. */
export interface NativeFs {
  /** A position in bytes, or a negative errno; `-ENXIO`: nothing of that kind from there on. */
  seek(fd: number, offset: number, whence: number): number;
  /**
   * preadv2(2) of what can be read without waiting: how many bytes, or a negative errno; `-EAGAIN`: the page cache
   * does not hold them.
   */
  readCached(fd: number, offset: number, target: Uint8Array): number;
  /** fallocate(2), off the main thread: 0 or a positive errno. */
  allocate(fd: number, mode: number, offset: number, lengthBytes: number): Promise<number>;
  /** Takes a shared OFD lock on some bytes, without waiting: 0 or a positive errno. */
  lockShared(fd: number, start: number, lengthBytes: number): number;
  /** Lets go of OFD locks: 0 or a positive errno. */
  unlock(fd: number, start: number, lengthBytes: number): number;
  /** Whether somebody else has a lock of any kind there: 1, 0, or a negative errno. */
  isLockedElsewhere(fd: number, start: number, lengthBytes: number): number;
  /** Asks for no copy-on-write (btrfs): 0 or a positive errno. */
  setNoCow(fd: number): number;
  /** Asks for extents of at least this size (XFS): 0 or a positive errno. */
  setExtentSizeHint(fd: number, lengthBytes: number): number;
}

/** What `loadNative` found: the calls, or why there are none. */
export type NativeLoad =
  | { readonly native: NativeFs; readonly reason?: undefined }
  | { readonly native?: undefined; readonly reason: string };

/**
 * 64-bit little-endian Linux machines whose C types and ioctl numbers are those used below. Others have holes and locks as
 * well, but other numbers for them.
 */
const ARCHITECTURES: ReadonlySet<string> = new Set(["x64", "arm64", "riscv64", "loong64"]);

/** koffi refuses the 257th call in its queue; long calls block each other on the disk much earlier. */
const MAX_ALLOCATIONS_IN_FLIGHT = 32;

const RWF_NOWAIT = 8;
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const LOCK = { read: 0, write: 1, none: 2 } as const;
const FS_IOC_GETFLAGS = 0x80086601;
const FS_IOC_SETFLAGS = 0x40086602;
const FS_NOCOW_FL = 0x800000;
const FS_IOC_FSGETXATTR = 0x801c581f;
const FS_IOC_FSSETXATTR = 0x401c5820;
const FS_XFLAG_EXTSIZE = 0x800;
const FSXATTR_BYTES = 28;

let loading: Promise<NativeLoad> | undefined;

/** Loads koffi once per process. Never rejects: without it there is a reason, for `blk info`. */
export function loadNative(): Promise<NativeLoad> {
  loading ??= load();
  return loading;
}

// The global, not "node:process": importing that runs all its getters, which open the standard streams.
async function load(): Promise<NativeLoad> {
  if (process.platform !== "linux" || !ARCHITECTURES.has(process.arch)) {
    return { reason: `native file calls are not known for ${process.platform} on ${process.arch}` };
  }
  try {
    const { default: koffi } = await import("koffi");
    return { native: bind(koffi) };
  } catch (error) {
    const why = error instanceof Error ? error.message.split("\n")[0] : String(error);
    return { reason: `koffi could not be loaded: ${why}` };
  }
}

type Koffi = typeof import("koffi")["default"];

/** The lock record of fcntl(2), as 64-bit Linux lays it out. */
interface FileLock {
  l_type: number;
  l_whence: number;
  l_start: number;
  l_len: number;
  l_pid: number;
}

function bind(koffi: Koffi): NativeFs {
  const libc = koffi.load(null);
  const flock = koffi.struct({
    l_type: "int16",
    l_whence: "int16",
    l_start: "int64",
    l_len: "int64",
    l_pid: "int32",
  });
  const lseek = libc.func("lseek", "int64", ["int", "int64", "int"]);
  const fallocate = libc.func("fallocate", "int", ["int", "int", "int64", "int64"]);
  const fcntl = libc.func("fcntl", "int", ["int", "int", koffi.inout(koffi.pointer(flock))]);
  const ioctl = libc.func("ioctl", "int", ["int", "ulong", koffi.inout("uint8 *")]);
  const permits = new CoSemaphore(MAX_ALLOCATIONS_IN_FLIGHT);

  const errnoUnlessZero = (result: unknown): number => (result === 0 ? 0 : koffi.errno());
  const lock = (fd: number, type: number, start: number, lengthBytes: number): number =>
    errnoUnlessZero(fcntl(fd, F_OFD_SETLK, lockOf(type, start, lengthBytes)));

  return {
    seek(fd, offset, whence) {
      const position = Number(lseek(fd, offset, whence));
      return position >= 0 ? position : -koffi.errno();
    },
    readCached: bindReadCached(koffi, libc),
    async allocate(fd, mode, offset, lengthBytes) {
      const lease = await permits.acquire();
      try {
        return await new Promise<number>((resolve, reject) => {
          fallocate.async(fd, mode, offset, lengthBytes, (error: unknown, result: unknown) => {
            if (error === null || error === undefined) resolve(errnoUnlessZero(result));
            else reject(error as Error);
          });
        });
      } finally {
        lease.release();
      }
    },
    lockShared: (fd, start, lengthBytes) => lock(fd, LOCK.read, start, lengthBytes),
    unlock: (fd, start, lengthBytes) => lock(fd, LOCK.none, start, lengthBytes),
    isLockedElsewhere(fd, start, lengthBytes) {
      // Asking for a write lock finds read locks too. One's own locks are never in one's own way.
      const asked = lockOf(LOCK.write, start, lengthBytes);
      if (fcntl(fd, F_OFD_GETLK, asked) !== 0) return -koffi.errno();
      return asked.l_type === LOCK.none ? 0 : 1;
    },
    setNoCow(fd) {
      const flags = new Uint8Array(8);
      const view = new DataView(flags.buffer);
      if (ioctl(fd, FS_IOC_GETFLAGS, flags) !== 0) return koffi.errno();
      view.setUint32(0, view.getUint32(0, true) | FS_NOCOW_FL, true);
      return errnoUnlessZero(ioctl(fd, FS_IOC_SETFLAGS, flags));
    },
    setExtentSizeHint(fd, lengthBytes) {
      const attributes = new Uint8Array(FSXATTR_BYTES);
      const view = new DataView(attributes.buffer);
      if (ioctl(fd, FS_IOC_FSGETXATTR, attributes) !== 0) return koffi.errno();
      view.setUint32(0, view.getUint32(0, true) | FS_XFLAG_EXTSIZE, true);
      view.setUint32(4, lengthBytes, true);
      return errnoUnlessZero(ioctl(fd, FS_IOC_FSSETXATTR, attributes));
    },
  };
}

/** preadv2, where the C library has it. */
function bindReadCached(koffi: Koffi, libc: ReturnType<Koffi["load"]>): NativeFs["readCached"] {
  let preadv2: ReturnType<typeof libc.func>;
  try {
    preadv2 = libc.func("preadv2", "int64", ["int", "uint8 *", "int", "int64", "int"]);
  } catch {
    return () => -NATIVE_ERRNO.ENOSYS;
  }
  // One struct iovec: where the bytes go, and how many.
  const iovec = new BigUint64Array(2);
  const iovecBytes = new Uint8Array(iovec.buffer);
  return (fd, offset, target) => {
    iovec[0] = koffi.address(target);
    iovec[1] = BigInt(target.length);
    const result = Number(preadv2(fd, iovecBytes, 1, offset, RWF_NOWAIT));
    return result >= 0 ? result : -koffi.errno();
  };
}

function lockOf(type: number, start: number, lengthBytes: number): FileLock {
  return { l_type: type, l_whence: 0, l_start: start, l_len: lengthBytes, l_pid: 0 };
}
