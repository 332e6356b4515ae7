/** What happens when the operating system fails: its calls are replaced one at a time. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type BlockError, IoVector, MiB } from "@blocklayer/bytes";
import { afterEach, describe, expect, test, vi } from "vitest";
import { loadNative, type NativeFs, openFile } from "../src/index.js";
import { readAt } from "../src/positional-io.js";
import { failureOf, scratchDirectory } from "./support.js";

type Callback = (error: NodeJS.ErrnoException | null, count: number) => void;
type Positional = (
  fd: number,
  bytes: Uint8Array,
  start: number,
  length: number,
  position: number,
  callback: Callback,
) => void;

/** Stands in for the real calls while a test sets it; `calls` counts them. */
const faults = vi.hoisted(() => ({
  read: undefined as unknown,
  write: undefined as unknown,
  fdatasync: undefined as unknown,
  close: undefined as unknown,
  open: undefined as unknown,
}));

vi.mock("node:fs", async (importOriginal) => {
  const real = await importOriginal<typeof import("node:fs")>();
  const wrap = (name: keyof typeof faults): unknown => {
    return (...args: unknown[]): void => {
      const fault = faults[name] as ((...args: unknown[]) => void) | undefined;
      const call = real[name] as unknown as (...args: unknown[]) => void;
      (fault ?? call)(...args);
    };
  };
  return {
    ...real,
    read: wrap("read"),
    write: wrap("write"),
    fdatasync: wrap("fdatasync"),
    close: wrap("close"),
    // `promisify` gives what a callback got, so a plain wrapper will do.
    open: wrap("open"),
  };
});

const real = await vi.importActual<typeof import("node:fs")>("node:fs");
const directory = scratchDirectory();
let files = 0;

function fresh(lengthBytes: number): string {
  const filename = join(directory, `fault-${files++}.img`);
  writeFileSync(
    filename,
    Uint8Array.from({ length: lengthBytes }, (_, i) => (i % 255) + 1),
  );
  return filename;
}

function errno(code: string): NodeJS.ErrnoException {
  return Object.assign(new Error(code), { code });
}

afterEach(() => {
  for (const name of Object.keys(faults)) faults[name as keyof typeof faults] = undefined;
});

/** Reads that the page cache answers never come to these calls. */
const BY_THREADS = { loadNative: () => Promise.resolve({ reason: "all by threads" }) };

describe("readv() and writev()", () => {
  test("must go on when the system moves fewer bytes than asked", async () => {
    const filename = fresh(1000);
    await using disk = await openFile(filename, BY_THREADS);
    let calls = 0;
    const short: Positional = (fd, bytes, start, length, position, callback) => {
      calls++;
      real.read(fd, bytes, start, Math.min(length, 100), position, callback);
    };
    faults.read = short;
    const target = IoVector.allocate(1000);
    await disk.readv(0, target);
    expect(calls).toBe(10);
    expect(Buffer.compare(target.toBytes(), readFileSync(filename))).toBe(0);
    const shortWrite: Positional = (fd, bytes, start, length, position, callback) => {
      real.write(fd, bytes, start, Math.min(length, 300), position, callback);
    };
    faults.write = shortWrite;
    await disk.writev(500, IoVector.of(new Uint8Array(1000).fill(7)));
    expect(disk.lengthBytes).toBe(1500);
    expect(readFileSync(filename).subarray(500)).toEqual(Buffer.alloc(1000).fill(7));
  });

  test.each(["EINTR", "EAGAIN"])("must try again after %s, but not for ever", async (code) => {
    await using disk = await openFile(fresh(100), BY_THREADS);
    let left = 5;
    const interrupted: Positional = (fd, bytes, start, length, position, callback) => {
      if (left-- > 0) setImmediate(callback, errno(code), 0);
      else real.read(fd, bytes, start, length, position, callback);
    };
    faults.read = interrupted;
    const target = IoVector.allocate(100);
    await disk.readv(0, target);
    expect(target.parts[0]?.[0]).toBe(1);
    left = Number.POSITIVE_INFINITY;
    const failure = await failureOf(() => disk.readv(0, target));
    expect(failure.op).toBe("read");
  });

  test("must say what failed, where, and why", async () => {
    const filename = fresh(100);
    await using disk = await openFile(filename, { nodeName: "disk0" });
    const cause = errno("EIO");
    faults.read = ((...args) => setImmediate(args[5], cause, 0)) satisfies Positional;
    expect(await failureOf(() => disk.readv(4096, IoVector.allocate(512)))).toMatchObject({
      code: "EIO",
      op: "read",
      node: "disk0",
      offset: 4096,
      length: 512,
      cause,
      message: `'${filename}': read of 512 bytes at offset 0x1000: Input/output error`,
    });
  });

  test.each([
    { sizeBytes: 700, outcome: "take it for the end of the file" },
    { sizeBytes: 5000, outcome: "report it when the file goes on" },
  ])("past the page cache, EINVAL after a short read: must $outcome", async ({ sizeBytes }) => {
    let calls = 0;
    faults.read = ((...args) => {
      args[1].fill(5);
      if (calls++ === 0) setImmediate(args[5], null, 700);
      else setImmediate(args[5], errno("EINVAL"), 0);
    }) satisfies Positional;
    const file = {
      fd: 99,
      filename: "x",
      nodeName: "x",
      direct: true,
      noteWritten: () => undefined,
      stat: () => Promise.resolve({ sizeBytes, blocks: 8 }),
    };
    const target = new Uint8Array(1024).fill(9);
    const outcome = await readAt(file, 0, IoVector.of(target)).then(
      () => "read",
      (error: BlockError) => error.code,
    );
    expect(outcome).toBe(sizeBytes === 700 ? "read" : "EINVAL");
    expect(target.subarray(700).every((byte) => byte === 0)).toBe(sizeBytes === 700);
  });

  test("must report a full disk, and know what was written before it", async () => {
    const filename = fresh(0);
    await using disk = await openFile(filename, BY_THREADS);
    let room = 700;
    const full: Positional = (fd, bytes, start, length, position, callback) => {
      if (room === 0) setImmediate(callback, errno("ENOSPC"), 0);
      else {
        const part = Math.min(room, length);
        room -= part;
        real.write(fd, bytes, start, part, position, callback);
      }
    };
    faults.write = full;
    const failure = await failureOf(() => disk.writev(0, IoVector.allocate(1000)));
    expect(failure.code).toBe("ENOSPC");
    expect(disk.lengthBytes).toBe(700);
  });

  test("must take a write that moves nothing for a full disk", async () => {
    await using disk = await openFile(fresh(0), BY_THREADS);
    faults.write = ((...args) => setImmediate(args[5], null, 0)) satisfies Positional;
    expect((await failureOf(() => disk.writev(0, IoVector.allocate(10)))).code).toBe("ENOSPC");
  });

  test("must not settle an aborted request before the kernel is done with the buffer", async () => {
    await using disk = await openFile(fresh(100), BY_THREADS);
    let finish: (() => void) | undefined;
    faults.read = ((...args) => {
      finish = () => args[5](null, 100);
    }) satisfies Positional;
    const controller = new AbortController();
    let settled = false;
    const failing = failureOf(() =>
      disk.readv(0, IoVector.allocate(100), { signal: controller.signal }),
    ).finally(() => {
      settled = true;
    });
    controller.abort();
    await new Promise((resolve) => setImmediate(resolve));
    expect(settled).toBe(false);
    finish?.();
    expect((await failing).code).toBe("ECANCELED");
  });
});

describe("flushToDisk()", () => {
  const failing = (_fd: number, callback: (error: unknown) => void): void => {
    setImmediate(callback, errno("EIO"));
  };

  test("must keep failing with the first cause after it failed once", async () => {
    const filename = fresh(100);
    const disk = await openFile(filename);
    await disk.writev(0, IoVector.allocate(10));
    faults.fdatasync = failing;
    const first = await failureOf(() => disk.flushToDisk());
    expect(first).toMatchObject({ code: "EIO", op: "flush" });
    faults.fdatasync = undefined;
    expect(await failureOf(() => disk.flushToDisk())).toBe(first);
    await disk.writev(0, IoVector.allocate(10));
    expect(await failureOf(() => disk.flushToDisk())).toBe(first);
    expect(await failureOf(() => disk.close())).toBe(first);
    // The descriptor and the locks are gone nevertheless.
    await (await openFile(filename)).close();
  });

  test("must be called by close() when something was written, and its failure reported", async () => {
    const filename = fresh(100);
    const disk = await openFile(filename);
    await disk.writev(0, IoVector.allocate(10));
    faults.fdatasync = failing;
    expect((await failureOf(() => disk.close())).op).toBe("flush");
    faults.fdatasync = undefined;
    await (await openFile(filename)).close();
  });

  test("must see a write that ends while it runs as not yet flushed", async () => {
    const disk = await openFile(fresh(100));
    await disk.writev(0, IoVector.allocate(10));
    let finish: (() => void) | undefined;
    let syncs = 0;
    faults.fdatasync = (_fd: number, callback: (error: null) => void): void => {
      syncs++;
      if (finish === undefined) finish = () => callback(null);
      else callback(null);
    };
    const flushing = disk.flushToDisk();
    await disk.writev(10, IoVector.allocate(10));
    finish?.();
    await flushing;
    await disk.close();
    expect(syncs).toBe(2);
  });

  test("must leave close() nothing to do when nothing was written since", async () => {
    const disk = await openFile(fresh(100));
    await disk.writev(0, IoVector.allocate(10));
    await disk.flushToDisk();
    let syncs = 0;
    faults.fdatasync = (_fd: number, callback: (error: null) => void): void => {
      syncs++;
      callback(null);
    };
    await disk.close();
    expect(syncs).toBe(0);
  });

  test("must keep failing when the sync of preallocation=full took the news of a lost write", async () => {
    const disk = await openFile(fresh(100));
    await disk.writev(0, IoVector.allocate(10));
    faults.fdatasync = failing;
    const first = await failureOf(() => disk.truncate(MiB, { preallocation: "full" }));
    expect(first.op).toBe("flush");
    faults.fdatasync = undefined;
    expect(await failureOf(() => disk.flushToDisk())).toBe(first);
    expect(await failureOf(() => disk.close())).toBe(first);
  });

  test("must not forget a write that ended while two failing flushes ran", async () => {
    const disk = await openFile(fresh(4096), { direct: true }).catch(() => undefined);
    if (disk === undefined) return;
    const memory = new Uint8Array(new WebAssembly.Memory({ initial: 1 }).buffer, 0, 4096);
    await disk.writev(0, IoVector.of(memory));
    const waiting: (() => void)[] = [];
    faults.fdatasync = (_fd: number, callback: (error: unknown) => void): void => {
      waiting.push(() => callback(errno("EIO")));
    };
    const flushes = [failureOf(() => disk.flushToDisk()), failureOf(() => disk.flushToDisk())];
    await disk.writev(0, IoVector.of(memory));
    for (const fail of waiting) fail();
    await Promise.all(flushes);
    faults.fdatasync = failing;
    expect((await failureOf(() => disk.close())).op).toBe("flush");
  });

  test("writev() with fua must flush", async () => {
    await using disk = await openFile(fresh(100));
    faults.fdatasync = failing;
    const failure = await failureOf(() => disk.writev(0, IoVector.allocate(10), { fua: true }));
    expect(failure.op).toBe("flush");
    faults.fdatasync = undefined;
    await disk.close().catch(() => undefined);
  });
});

describe("writeZeroes()", () => {
  test("must stop between two writes when aborted", async () => {
    const controller = new AbortController();
    await using disk = await openFile(fresh(4 * MiB), {
      loadNative: () => Promise.resolve({ reason: "left out for this test" }),
    });
    let writes = 0;
    faults.write = ((...args) => {
      writes++;
      controller.abort();
      real.write(...args);
    }) satisfies Positional;
    const { signal } = controller;
    const failure = await failureOf(() => disk.writeZeroes(0, 4 * MiB, { signal }));
    expect(failure.code).toBe("ECANCELED");
    expect(writes).toBe(1);
  });
});

describe("truncate()", () => {
  test("must bring the old length back when preallocation=full runs out of space", async () => {
    const filename = fresh(1000);
    await using disk = await openFile(filename);
    let writes = 0;
    faults.write = ((...args) => {
      if (++writes > 2) setImmediate(args[5], errno("ENOSPC"), 0);
      else real.write(...args);
    }) satisfies Positional;
    const failure = await failureOf(() => disk.truncate(8 * MiB, { preallocation: "full" }));
    expect(failure.code).toBe("ENOSPC");
    expect(writes).toBe(3);
    expect(disk.lengthBytes).toBe(1000);
    expect(readFileSync(filename).length).toBe(1000);
  });
});

describe("reopen()", () => {
  test("must stand when the descriptor that it replaced fails to close", async () => {
    const disk = await openFile(fresh(100), { readOnly: true });
    faults.close = (fd: number, callback: (error: unknown) => void): void => {
      real.close(fd, () => callback(errno("EIO")));
    };
    await disk.reopen({ readOnly: false, options: {} });
    faults.close = undefined;
    await disk.writev(0, IoVector.allocate(10));
    expect(disk.capabilities.write).toBe(true);
    await disk.close();
  });

  test("must leave a file read-only that auto-read-only opened so", async () => {
    faults.open = (name: string, flags: number, ...rest: unknown[]): void => {
      const callback = rest.at(-1) as (error: unknown, fd?: number) => void;
      if ((flags & real.constants.O_RDWR) !== 0) setImmediate(callback, errno("EROFS"));
      else real.open(name, flags, callback);
    };
    await using disk = await openFile(fresh(100), { autoReadOnly: true });
    // What a graph asks when it only changes permissions.
    await disk.reopen({ readOnly: false, options: {}, permissions: { held: 3, shared: 15 } });
    expect(disk.capabilities.write).toBe(false);
  });
});

describe("a file system that lacks calls", () => {
  /** Refuses some of fallocate's modes. */
  const without = (native: NativeFs, refused: (mode: number) => number): NativeFs & Counted => {
    const counted: NativeFs & Counted = {
      ...native,
      asked: [],
      allocate(fd, mode, offset, lengthBytes) {
        counted.asked.push(mode);
        const errorNumber = refused(mode);
        if (errorNumber !== 0) return Promise.resolve(errorNumber);
        return native.allocate(fd, mode, offset, lengthBytes);
      },
    };
    return counted;
  };
  interface Counted {
    readonly asked: number[];
  }
  const EOPNOTSUPP = 95;
  const EIO = 5;

  test("must be asked once, and zeroes be written instead", async () => {
    const native = (await loadNative()).native;
    if (native === undefined) return;
    const filename = fresh(200000);
    const calls = without(native, () => EOPNOTSUPP);
    await using disk = await openFile(filename, {
      loadNative: () => Promise.resolve({ native: calls }),
    });
    expect(disk.capabilities).toMatchObject({ writeZeroes: true, discard: true });
    await disk.writeZeroes(1000, 100000, { mayUnmap: true });
    expect(calls.asked).toEqual([3, 16]);
    expect(disk.capabilities).toMatchObject({ writeZeroes: false, discard: false });
    await disk.writeZeroes(150000, 100);
    await disk.discard(0, 1000);
    expect(calls.asked).toEqual([3, 16]);
    expect((await failureOf(() => disk.writeZeroes(0, 10, { noFallback: true }))).code).toBe(
      "ENOTSUP",
    );
    const after = readFileSync(filename);
    expect(after.subarray(1000, 101000).every((byte) => byte === 0)).toBe(true);
    expect(after[999]).not.toBe(0);
    expect(after[101000]).not.toBe(0);
    expect(after.subarray(150000, 150100).every((byte) => byte === 0)).toBe(true);
  });

  test("must zero by a hole that is filled again where there is no call for both", async () => {
    const native = (await loadNative()).native;
    if (native === undefined) return;
    const filename = fresh(200000);
    const calls = without(native, (mode) => (mode === 16 ? EOPNOTSUPP : 0));
    await using disk = await openFile(filename, {
      loadNative: () => Promise.resolve({ native: calls }),
    });
    await disk.writeZeroes(65536, 200000);
    expect(calls.asked).toEqual([16, 3, 0]);
    expect(disk.lengthBytes).toBe(265536);
    expect(readFileSync(filename).length).toBe(265536);
    expect(readFileSync(filename)[65535]).not.toBe(0);
    expect(
      readFileSync(filename)
        .subarray(65536)
        .every((byte) => byte === 0),
    ).toBe(true);
  });

  test("must report a failure that is no lack", async () => {
    const native = (await loadNative()).native;
    if (native === undefined) return;
    await using disk = await openFile(fresh(1000), {
      loadNative: () => Promise.resolve({ native: without(native, () => EIO) }),
    });
    expect(await failureOf(() => disk.writeZeroes(0, 1000))).toMatchObject({
      code: "EIO",
      offset: 0,
      length: 1000,
    });
    expect((await failureOf(() => disk.discard(0, 1000))).code).toBe("EIO");
    expect((await failureOf(() => disk.truncate(5000, { preallocation: "falloc" }))).code).toBe(
      "EIO",
    );
    expect(disk.lengthBytes).toBe(1000);
  });

  test("must be taken for data everywhere when seeking fails", async () => {
    const native = (await loadNative()).native;
    if (native === undefined) return;
    const blind: NativeFs = { ...native, seek: () => -EOPNOTSUPP };
    await using disk = await openFile(fresh(1000), {
      loadNative: () => Promise.resolve({ native: blind }),
    });
    expect(await disk.blockStatus(0, 1000)).toMatchObject({ data: true, zero: false });
  });

  test("must go on unlocked with locking=auto where there are no locks, and not with on", async () => {
    const native = (await loadNative()).native;
    if (native === undefined) return;
    const ENOLCK = 37;
    const locked: number[] = [];
    const refusing: NativeFs = {
      ...native,
      lockShared(_fd, start) {
        // The first byte works: what was taken before the refusal must be given back.
        if (locked.length > 0 || start !== 100) return ENOLCK;
        locked.push(start);
        return 0;
      },
      unlock(_fd, start) {
        locked.splice(locked.indexOf(start), 1);
        return 0;
      },
    };
    const load = () => Promise.resolve({ native: refusing });
    const filename = fresh(10);
    await using disk = await openFile(filename, { loadNative: load });
    expect(disk.lockState).toBe("unlocked");
    expect(locked).toEqual([]);
    const failure = await failureOf(() => openFile(filename, { loadNative: load, locking: "on" }));
    expect(failure.message).toContain("Failed to lock byte 101");
  });
});
