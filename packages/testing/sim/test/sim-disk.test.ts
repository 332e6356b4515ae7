import { BlockError, IoVector } from "@blocklayer/bytes";
import { expect, test } from "vitest";
import { crashStates, plainly, SimDisk, SimScheduler, Trace } from "../src/index.js";

const filled = (value: number, length = 512): Uint8Array => new Uint8Array(length).fill(value);
const write = (disk: SimDisk, offset: number, value: number, length = 512): unknown =>
  disk.writev(offset, IoVector.of(filled(value, length)));
const read = (disk: SimDisk, offset: number, length = 512): Uint8Array => {
  const target = new Uint8Array(length);
  expect(disk.readv(offset, IoVector.of(target))).toBeUndefined();
  return target;
};

test("readv() must see pending writes, and durable must not until the flush", () => {
  const disk = new SimDisk({ lengthBytes: 4096 });
  expect(write(disk, 512, 7)).toBeUndefined();
  expect(read(disk, 512)).toEqual(filled(7));
  expect(disk.pending).toHaveLength(1);
  expect(disk.durable.subarray(512, 1024)).toEqual(filled(0));
  expect(disk.crash().bytes.subarray(512, 1024)).toEqual(filled(0));
  plainly(disk.flushToDisk());
  expect(disk.pending).toHaveLength(0);
  expect(disk.durable.subarray(512, 1024)).toEqual(filled(7));
});

test("writev() must keep its own copy: the buffer is the caller's afterwards", () => {
  const disk = new SimDisk({ lengthBytes: 512 });
  const buffer = filled(1);
  plainly(disk.writev(0, IoVector.of(buffer)));
  buffer.fill(2);
  plainly(disk.flushToDisk());
  expect(disk.durable).toEqual(filled(1));
});

test("writev({ fua }) must be durable at once, and older pending writes must not come back over it", () => {
  const disk = new SimDisk({ lengthBytes: 512 });
  write(disk, 0, 1);
  plainly(disk.writev(0, IoVector.of(filled(2)), { fua: true }));
  expect(disk.durable).toEqual(filled(2));
  plainly(disk.flushToDisk());
  expect(disk.durable).toEqual(filled(2));
});

test("a disk without a volatile cache must make every write durable", () => {
  const disk = new SimDisk({ lengthBytes: 1024, volatileCache: false });
  write(disk, 512, 3);
  expect(disk.durable).toEqual(disk.bytes);
  expect(disk.durable[512]).toBe(3);
});

test("truncate(), discard() and writeZeroes() must be pending like writes", () => {
  const disk = new SimDisk({ content: filled(9, 2048) });
  plainly(disk.writeZeroes(0, 512));
  plainly(disk.discard(512, 512));
  plainly(disk.truncate(1536));
  expect(disk.bytes).toEqual(new Uint8Array([...filled(0, 1024), ...filled(9)]));
  expect(disk.durable).toEqual(filled(9, 2048));
  plainly(disk.flushToDisk());
  expect(disk.durable).toEqual(disk.bytes);
});

test("inject() must fail the nth request that it concerns, and no other", () => {
  const disk = new SimDisk({ lengthBytes: 4096 });
  disk.inject({ kind: "write", nth: 2, code: "ENOSPC", range: { offset: 1024, lengthBytes: 512 } });
  write(disk, 1024, 1);
  write(disk, 0, 1);
  expect(() => write(disk, 1024, 2)).toThrow(expect.objectContaining({ code: "ENOSPC" }));
  expect(read(disk, 1024)).toEqual(filled(1));
  write(disk, 1024, 3);
  expect(read(disk, 1024)).toEqual(filled(3));
});

test("inject() must let a flush fail without making anything durable", () => {
  const disk = new SimDisk({ lengthBytes: 512 });
  write(disk, 0, 1);
  disk.inject({ kind: "flush" });
  expect(() => disk.flushToDisk()).toThrow(expect.objectContaining({ code: "EIO" }));
  expect(disk.durable).toEqual(filled(0));
  plainly(disk.flushToDisk());
  expect(disk.durable).toEqual(filled(1));
});

test("inject({ partialBytes }) must leave the first part of the write", () => {
  const disk = new SimDisk({ lengthBytes: 1024 });
  disk.inject({ kind: "write", partialBytes: 512 });
  expect(() => write(disk, 0, 5, 1024)).toThrow(BlockError);
  expect(disk.bytes).toEqual(new Uint8Array([...filled(5), ...filled(0)]));
});

test("onRequest() must be able to fail and to delay a request", async () => {
  let open: (() => void) | undefined;
  const disk = new SimDisk({
    lengthBytes: 1024,
    onRequest: ({ kind, offset }) => {
      if (kind === "write" && offset === 0) throw new BlockError("EPERM", "not there");
      if (kind === "write") return new Promise<void>((resolve) => (open = resolve));
    },
  });
  expect(() => write(disk, 0, 1)).toThrow("not there");
  const waiting = write(disk, 512, 1);
  expect(waiting).toBeInstanceOf(Promise);
  expect(read(disk, 512)).toEqual(filled(0));
  open?.();
  await waiting;
  expect(read(disk, 512)).toEqual(filled(1));
});

test("maxLengthBytes must stop growth with ENOSPC", () => {
  const disk = new SimDisk({ maxLengthBytes: 1024 });
  write(disk, 512, 1);
  expect(() => write(disk, 1024, 1)).toThrow(expect.objectContaining({ code: "ENOSPC" }));
  expect(disk.lengthBytes).toBe(1024);
});

test("requests that break the declared limits must fail an assertion", () => {
  const disk = new SimDisk({
    lengthBytes: 8192,
    limits: { requestAlignment: 512, maxTransfer: 4096 },
  });
  expect(() => write(disk, 100, 1)).toThrow("aligned to 512");
  expect(() => write(disk, 0, 1, 100)).toThrow("aligned to 512");
  expect(() => write(disk, 0, 1, 8192)).toThrow("maxTransfer");
  expect(() => disk.writeZeroes(0, 0)).toThrow("at least one byte");
});

test("a closed disk must answer ECLOSED, and close() must have flushed", () => {
  const disk = new SimDisk({ lengthBytes: 512 });
  write(disk, 0, 1);
  plainly(disk.close());
  expect(disk.durable).toEqual(filled(1));
  expect(() => read(disk, 0)).toThrow(expect.objectContaining({ code: "ECLOSED" }));
});

test("with a scheduler requests must wait, and complete in an order that the seed decides", async () => {
  const orderOf = async (seed: number): Promise<string> => {
    const trace = new Trace();
    const scheduler = new SimScheduler({ seed });
    const disk = new SimDisk({ lengthBytes: 8192, scheduler, trace });
    const order: number[] = [];
    const send = async (i: number): Promise<void> => {
      await write(disk, i * 512, i);
      order.push(i);
    };
    await scheduler.run(() => Promise.all([0, 1, 2, 3, 4, 5].map(send)));
    expect(disk.bytes[5 * 512]).toBe(5);
    expect(trace.events.filter((event) => event.type === "issue")).toHaveLength(6);
    return order.join("");
  };
  const orders = new Set(await Promise.all([1, 2, 3, 4, 5].map(orderOf)));
  expect(orders.size).toBeGreaterThan(1);
  expect(await orderOf(3)).toBe(await orderOf(3));
});

test("a flush must cover what was complete when it started, and nothing in flight", async () => {
  const scheduler = new SimScheduler({ seed: 1 });
  const disk = new SimDisk({ lengthBytes: 1024, scheduler });
  const first = write(disk, 0, 1);
  scheduler.step(0);
  await first;
  const second = write(disk, 512, 2);
  const flush = disk.flushToDisk();
  expect(scheduler.step(0)).toContain("write");
  expect(scheduler.step(0)).toContain("flush");
  await Promise.all([second, flush]);
  expect(disk.durable).toEqual(new Uint8Array([...filled(1), ...filled(0)]));
  expect(disk.pending).toHaveLength(1);
});

test("a buffer that changes while its write is in flight must fail an assertion", async () => {
  const scheduler = new SimScheduler({ seed: 1 });
  const disk = new SimDisk({ lengthBytes: 512, scheduler });
  const buffer = filled(1);
  const sent = disk.writev(0, IoVector.of(buffer));
  buffer[3] = 2;
  scheduler.step();
  await expect(sent).rejects.toThrow("stays as it is in flight");
});

test("an abort in flight must reject with ECANCELED and leave the disk as it was", async () => {
  const scheduler = new SimScheduler({ seed: 1 });
  const disk = new SimDisk({ lengthBytes: 512, scheduler });
  const controller = new AbortController();
  const sent = disk.writev(0, IoVector.of(filled(1)), controller);
  controller.abort();
  scheduler.step();
  await expect(sent).rejects.toMatchObject({ code: "ECANCELED" });
  expect(disk.bytes).toEqual(filled(0));
});

test("latency must hold one request back while others complete", async () => {
  const scheduler = new SimScheduler({ seed: 3 });
  const latency = ({ nth }: { nth: number }): number => (nth === 1 ? 4 : 0);
  const disk = new SimDisk({ lengthBytes: 4096, scheduler, latency });
  const order: number[] = [];
  const send = async (i: number): Promise<void> => {
    await write(disk, i * 512, i);
    order.push(i);
  };
  await scheduler.run(() => Promise.all([0, 1, 2, 3, 4].map(send)));
  expect(order.at(-1)).toBe(0);
});

test("inject({ losesCache }) must lose what was pending, for ever, and fail every later flush", () => {
  const trace = new Trace();
  const disk = new SimDisk({ lengthBytes: 1024, trace });
  write(disk, 0, 1);
  disk.inject({ kind: "flush", losesCache: "all" });
  expect(() => disk.flushToDisk()).toThrow("injected failure");
  expect(disk.hasLostWrites).toBe(true);
  expect(read(disk, 0)).toEqual(filled(1));
  write(disk, 512, 2);
  expect(() => disk.flushToDisk()).toThrow("injected failure");
  expect(disk.durable).toEqual(filled(0, 1024));
  const found = [...crashStates(trace)].map((state) => [state.bytes[0], state.bytes[512]].join());
  expect(found.at(-1)).toBe("0,2");
  expect(found).toContain("1,0");
  expect(found).not.toContain("1,2");
});

test("inject({ losesCache: 'some' }) must lose a part that its seed decides", () => {
  const lostBy = (lossSeed: number): string => {
    const trace = new Trace();
    const disk = new SimDisk({ lengthBytes: 8192, trace });
    for (let i = 0; i < 16; i++) write(disk, i * 512, 1);
    disk.inject({ kind: "flush", losesCache: "some", lossSeed });
    expect(() => disk.flushToDisk()).toThrow("injected failure");
    expect(disk.pending.length).toBeGreaterThan(0);
    expect(disk.pending.length).toBeLessThan(16);
    return disk.pending.map(({ id }) => id).join();
  };
  expect(new Set([1, 2, 3, 4].map(lostBy)).size).toBeGreaterThan(1);
  expect(lostBy(3)).toBe(lostBy(3));
});

test("a flush that loses the cache must not lose what was written with fua", () => {
  const disk = new SimDisk({ lengthBytes: 512 });
  plainly(disk.writev(0, IoVector.of(filled(4)), { fua: true }));
  disk.inject({ kind: "flush", losesCache: "all" });
  expect(() => disk.flushToDisk()).toThrow("injected failure");
  expect(disk.durable).toEqual(filled(4));
});

test("inject({ tornSeed }) must leave some sectors of the write, whole ones, and never all", () => {
  const left = new Set<string>();
  for (let tornSeed = 0; tornSeed < 20; tornSeed++) {
    const disk = new SimDisk({ lengthBytes: 2048 });
    disk.inject({ kind: "write", tornSeed });
    expect(() => write(disk, 0, 5, 2048)).toThrow(BlockError);
    const sectors = [0, 512, 1024, 1536].map((at) => disk.bytes.subarray(at, at + 512));
    for (const sector of sectors) expect(new Set(sector).size).toBe(1);
    left.add(sectors.map((sector) => sector[0]).join());
  }
  expect(left.size).toBeGreaterThan(3);
  expect(left).not.toContain("5,5,5,5");
  expect(left).not.toContain("0,0,0,0");
});

test("inject({ partialBytes }) must fill the first part of the buffer of a read that fails", () => {
  const disk = new SimDisk({ content: filled(6, 1024) });
  disk.inject({ kind: "read", partialBytes: 512 });
  const target = filled(1, 1024);
  expect(() => disk.readv(0, IoVector.of(target))).toThrow("injected failure");
  expect(target).toEqual(new Uint8Array([...filled(6), ...filled(1)]));
});

test("restart() must give the same disk to the next user", () => {
  const disk = new SimDisk({ lengthBytes: 512 });
  write(disk, 0, 8);
  plainly(disk.close());
  disk.restart();
  expect(read(disk, 0)).toEqual(filled(8));
});
