/** Lazy refcounts [C8]: the dirty bit, what flushes leave out, and what a repair makes of it. */
import { execFile, spawn } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { promisify } from "node:util";
import { directChild, parseOptions } from "@blocklayer/block-api";
import { BlockError, IoVector } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { SimDisk } from "@blocklayer/sim";
import { describe, expect, test } from "vitest";
import { amendOptions } from "../src/amend/options.js";
import { checkQcow2, formatInfoOf, openQcow2, readHeader } from "../src/index.js";
import { createInMemory } from "./support/images.js";
import { describeWithQemu, qemuImg, useScratch } from "./support/qemu.js";

const run = promisify(execFile);
const CLUSTER = 65536;
const LAZY = { size: 2 ** 24, lazy_refcounts: true };

function filled(length: number, value: number): IoVector {
  return IoVector.of(new Uint8Array(length).fill(value));
}

async function isDirty(bytes: Uint8Array): Promise<boolean> {
  return formatInfoOf(await readHeader(directChild(openMemory({ bytes })))).dirty === true;
}

async function countsOf(bytes: Uint8Array): Promise<object> {
  const file = directChild(openMemory({ bytes }));
  const { corruptions, leaks, checkErrors } = await checkQcow2(file, await readHeader(file));
  return { corruptions, leaks, checkErrors };
}

const CLEAN = { corruptions: 0, leaks: 0, checkErrors: 0 };

/** Writes a few clusters and flushes; what the file holds then is what a crash leaves. */
async function crashed(create: Readonly<Record<string, unknown>> = LAZY): Promise<Uint8Array> {
  const { bytes } = await createInMemory(create);
  const file = new SimDisk({ content: bytes });
  const disk = await openQcow2({ file: directChild(file) });
  for (let i = 0; i < 8; i++) await disk.writev(i * 3 * CLUSTER, filled(CLUSTER, i + 1));
  await disk.discard(3 * CLUSTER, CLUSTER);
  await disk.flushToOs();
  await file.flushToDisk();
  return file.bytes;
}

describe("lazy refcounts", () => {
  test("the dirty bit must be durable before anything else is written [C8]", async () => {
    const { bytes } = await createInMemory(LAZY);
    const seen: string[] = [];
    const file = new SimDisk({
      content: bytes,
      onRequest: (request) => {
        if (request.kind !== "read") seen.push(request.kind);
      },
    });
    const disk = await openQcow2({ file: directChild(file) });
    expect(seen).toEqual([]);
    await disk.writev(0, filled(CLUSTER, 1));
    expect(seen.slice(0, 2)).toEqual(["write", "flush"]);
    expect(await isDirty(file.bytes)).toBe(true);
    await disk.close();
    expect(seen.slice(-2)).toEqual(["write", "flush"]);
    expect(await isDirty(file.bytes)).toBe(false);
    expect(await countsOf(file.bytes)).toEqual(CLEAN);
  });

  test("a snapshot must set the dirty bit too, and be whole after a repair", async () => {
    const memory = await createInMemory(LAZY);
    const first = await openQcow2({ file: directChild(memory) });
    await first.writev(0, filled(CLUSTER, 1));
    await first.close();
    const disk = await openQcow2({ file: directChild(memory) });
    await disk.snapshots.create({ name: "s", dateSeconds: 0, dateNanoseconds: 0 });
    await disk.writev(0, filled(CLUSTER, 2));
    await disk.flushToOs();
    const left = openMemory({ bytes: memory.bytes });
    expect(await isDirty(left.bytes)).toBe(true);
    const repaired = await openQcow2({ file: directChild(left) });
    const target = new Uint8Array(CLUSTER);
    await repaired.readv(0, IoVector.of(target));
    expect(target[0]).toBe(2);
    await repaired.snapshots.apply("s");
    await repaired.readv(0, IoVector.of(target));
    expect(target[0]).toBe(1);
    await repaired.close();
    expect(await countsOf(left.bytes)).toEqual(CLEAN);
    await disk.close();
  });

  test("must end with an amendment that ends them, or that replaces the refcounts", async () => {
    for (const values of [{ compat: "0.10" }, { refcount_bits: 8 }, { lazy_refcounts: false }]) {
      const memory = await createInMemory(LAZY);
      const disk = await openQcow2({ file: directChild(memory) });
      await disk.writev(0, filled(CLUSTER, 1));
      const off = "compat" in values ? { lazy_refcounts: false } : {};
      await disk.amend(parseOptions(amendOptions, { ...values, ...off }, "qcow2"));
      const isLazy = "refcount_bits" in values;
      await disk.writev(5 * CLUSTER, filled(CLUSTER, 2));
      expect(await isDirty(memory.bytes)).toBe(isLazy);
      await disk.close();
      expect(await isDirty(memory.bytes)).toBe(false);
      expect(await countsOf(memory.bytes)).toEqual(CLEAN);
    }
  });

  test("a write that allocates nothing must leave the image clean", async () => {
    const memory = await createInMemory(LAZY);
    const first = await openQcow2({ file: directChild(memory) });
    await first.writev(0, filled(CLUSTER, 1));
    await first.close();
    const disk = await openQcow2({ file: directChild(memory) });
    await disk.writev(4096, filled(4096, 2));
    await disk.flushToOs();
    expect(await isDirty(memory.bytes)).toBe(false);
    await disk.close();
  });

  test("flushToOs() must leave the refcounts out, and close() must write them", async () => {
    const memory = await createInMemory(LAZY);
    const disk = await openQcow2({ file: directChild(memory) });
    await disk.writev(0, filled(CLUSTER, 1));
    await disk.flushToOs();
    expect(disk.statistics()["refcountCacheWrites"]).toBe(0);
    expect(await countsOf(memory.bytes)).not.toEqual(CLEAN);
    expect(disk.flushToOs()).toBeUndefined();
    await disk.close();
    expect(await countsOf(memory.bytes)).toEqual(CLEAN);
  });

  test("check() of an open image must see the refcounts that were put off", async () => {
    const memory = await createInMemory(LAZY);
    const disk = await openQcow2({ file: directChild(memory) });
    await disk.writev(0, filled(CLUSTER, 1));
    expect(await disk.check()).toMatchObject(CLEAN);
    expect(await isDirty(memory.bytes)).toBe(true);
    await disk.close();
  });

  test("reopen() must settle them when it turns the option off, or the image read-only", async () => {
    const memory = await createInMemory(LAZY);
    const disk = await openQcow2({ file: directChild(memory) });
    await disk.writev(0, filled(CLUSTER, 1));
    await disk.reopen({ readOnly: false, options: { "lazy-refcounts": false } });
    expect(await isDirty(memory.bytes)).toBe(false);
    await disk.writev(CLUSTER, filled(CLUSTER, 1));
    expect(await isDirty(memory.bytes)).toBe(false);
    await disk.reopen({ readOnly: false, options: { "lazy-refcounts": true } });
    await disk.writev(5 * CLUSTER, filled(CLUSTER, 1));
    expect(await isDirty(memory.bytes)).toBe(true);
    await disk.reopen({ readOnly: true, options: {} });
    expect(await isDirty(memory.bytes)).toBe(false);
    expect(await countsOf(memory.bytes)).toEqual(CLEAN);
    await disk.close();
  });

  test("close() must keep the dirty bit when a flush failed", async () => {
    const { bytes } = await createInMemory(LAZY);
    const file = new SimDisk({ content: bytes });
    const disk = await openQcow2({ file: directChild(file) });
    await disk.writev(0, filled(CLUSTER, 1));
    file.inject({ kind: "write", nth: 1, times: 1000 });
    await expect(disk.close()).rejects.toBeInstanceOf(BlockError);
    expect(await isDirty(file.bytes)).toBe(true);
  });

  test("the option must need version 3, and overrule the image", async () => {
    const old = await createInMemory({ size: 2 ** 20, compat: "v2" });
    const opening = openQcow2({ file: directChild(old), options: { "lazy-refcounts": true } });
    await expect(opening).rejects.toThrow("at least qemu 1.1 compatibility level");
    const memory = await createInMemory(LAZY);
    const disk = await openQcow2({
      file: directChild(memory),
      options: { "lazy-refcounts": "off" },
    });
    await disk.writev(0, filled(CLUSTER, 1));
    expect(await isDirty(memory.bytes)).toBe(false);
    await disk.close();
  });
});

describe("a dirty image", () => {
  test("must be repaired when it is opened for writing, and read as it is otherwise [C8]", async () => {
    const bytes = await crashed();
    expect(await isDirty(bytes)).toBe(true);
    expect(await countsOf(bytes)).not.toEqual(CLEAN);
    const memory = openMemory({ bytes: bytes.slice() });
    const reader = await openQcow2({ file: directChild(memory), readOnly: true });
    const sector = new Uint8Array(512);
    await reader.readv(6 * CLUSTER, IoVector.of(sector));
    expect(sector[0]).toBe(3);
    await reader.close();
    expect(Buffer.compare(memory.bytes, bytes)).toBe(0);
    const writer = await openQcow2({ file: directChild(memory) });
    expect(await isDirty(memory.bytes)).toBe(false);
    expect(await countsOf(memory.bytes)).toEqual(CLEAN);
    for (let i = 0; i < 8; i++) {
      await writer.readv(i * 3 * CLUSTER, IoVector.of(sector));
      expect(sector[0]).toBe(i === 1 ? 0 : i + 1);
    }
    await writer.close();
  });

  test("must be repaired when it becomes writable, and its tables read anew", async () => {
    const memory = openMemory({ bytes: await crashed() });
    const disk = await openQcow2({ file: directChild(memory), readOnly: true });
    const sector = new Uint8Array(512);
    await disk.readv(0, IoVector.of(sector));
    await disk.reopen({ readOnly: false, options: {} });
    expect(await isDirty(memory.bytes)).toBe(false);
    await disk.writev(40 * CLUSTER, filled(CLUSTER, 9));
    await disk.readv(0, IoVector.of(sector));
    expect(sector[0]).toBe(1);
    await disk.close();
    expect(await countsOf(memory.bytes)).toEqual(CLEAN);
  });

  test("must be refused when it cannot be repaired", async () => {
    const bytes = await crashed();
    const file = new SimDisk({ content: bytes });
    file.inject({ kind: "read", nth: 4, times: 1000 });
    await expect(openQcow2({ file: directChild(file) })).rejects.toBeInstanceOf(BlockError);
    expect(await isDirty(file.bytes)).toBe(true);
  });
});

/** Reads the first byte of a guest cluster, or -1 when the image cannot be read just now. */
async function firstByte(bytes: Uint8Array, guestOffset: number): Promise<number> {
  const sector = new Uint8Array(512);
  try {
    const disk = await openQcow2({ file: directChild(openMemory({ bytes })), readOnly: true });
    await disk.readv(guestOffset, IoVector.of(sector));
    await disk.close();
  } catch (error) {
    if (error instanceof BlockError) return -1;
    throw error;
  }
  return sector[0] as number;
}

/** Writes with qemu-io and kills it before it can close the image, but not before its flush. */
async function killedQemuIo(name: string): Promise<Uint8Array> {
  const commands = ["write -P 1 0 256k", "write -P 2 2M 64k", "flush", "write -P 3 640k 64k"];
  const args = [...commands, "sleep 60000"].flatMap((command) => ["-c", command]);
  const child = spawn("qemu-io", ["-f", "qcow2", ...args, name], { stdio: "ignore" });
  const ended = new Promise((resolve) => child.on("close", resolve));
  while ((await firstByte(new Uint8Array(await readFile(name)), 2 ** 21)) !== 2) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  child.kill("SIGKILL");
  await ended;
  return new Uint8Array(await readFile(name));
}

describeWithQemu("lazy refcounts beside QEMU", () => {
  const scratch = useScratch();

  test("openQcow2() must repair what a killed qemu-io left, and qemu-img find it clean", async () => {
    const name = scratch("killed");
    await qemuImg("create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", name, "16M");
    const bytes = await killedQemuIo(name);
    expect(await isDirty(bytes)).toBe(true);
    const memory = openMemory({ bytes });
    const disk = await openQcow2({ file: directChild(memory) });
    const sector = new Uint8Array(512);
    await disk.readv(131_072, IoVector.of(sector));
    expect(sector[0]).toBe(1);
    await disk.readv(2 ** 21, IoVector.of(sector));
    expect(sector[0]).toBe(2);
    await disk.close();
    await writeFile(name, memory.bytes);
    expect(await qemuImg("check", "-f", "qcow2", name)).toMatchObject({ code: 0, stderr: "" });
  }, 30_000);

  test("QEMU must repair what a crash of ours left", async () => {
    const name = scratch("ours");
    await writeFile(name, await crashed());
    expect((await qemuImg("check", "-f", "qcow2", name)).code).toBe(2);
    await run("qemu-io", ["-f", "qcow2", "-c", "read -P 3 384k 64k", "-c", "write 8M 64k", name]);
    expect(await qemuImg("check", "-f", "qcow2", name)).toMatchObject({ code: 0, stderr: "" });
    const { stdout } = await run("qemu-io", ["-f", "qcow2", "-c", "read -P 8 1344k 64k", name]);
    expect(stdout).not.toContain("failed");
  });

  test("createQcow2() must make the header that qemu-img makes", async () => {
    const name = scratch("header");
    await qemuImg("create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", name, "16M");
    const theirs = new Uint8Array(await readFile(name));
    const { bytes } = await createInMemory(LAZY);
    expect(Buffer.compare(bytes, theirs)).toBe(0);
  });
});
