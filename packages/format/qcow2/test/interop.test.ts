import { readFile, writeFile } from "node:fs/promises";
import { type BlockChild, directChild } from "@blocklayer/block-api";
import { IoVector, viewOf } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { Random } from "@blocklayer/sim";
import { expect, test } from "vitest";
import { openQcow2, type Qcow2Driver, readHeader } from "../src/index.js";
import { makeImage, RECIPES } from "./support/corpus.js";
import { describeWithQemu, qemuImg, useScratch } from "./support/qemu.js";
import { replay, runCommand, runQemuIo } from "./support/replay.js";

/** A disk whose bytes are partly noise, partly text, partly nothing. */
function mixedContent(lengthBytes: number, seed: number): Uint8Array {
  const random = new Random(seed);
  const bytes = new Uint8Array(lengthBytes);
  for (let at = 0; at < lengthBytes; ) {
    const length = Math.min(lengthBytes - at, 1 + random.below(200_000));
    const part = bytes.subarray(at, at + length);
    const kind = random.below(3);
    if (kind === 0) part.set(random.bytes(length));
    else if (kind === 1) for (let i = 0; i < length; i++) part[i] = 97 + ((i * 7) % 23) + (i % 3);
    at += length;
  }
  return bytes;
}

async function loadBytes(filename: string): Promise<Uint8Array> {
  return new Uint8Array(await readFile(filename));
}

/** The whole disk, read in steps of one length, several in flight. */
async function readAll(disk: Qcow2Driver, step: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(disk.lengthBytes);
  const reads: Promise<void>[] = [];
  for (let at = 0; at < bytes.length; at += step) {
    const part = bytes.subarray(at, Math.min(at + step, bytes.length));
    const done = disk.readv(at, IoVector.of(part));
    if (done instanceof Promise) reads.push(done);
  }
  await Promise.all(reads);
  return bytes;
}

describeWithQemu("interop", () => {
  const scratch = useScratch();

  async function ok(...args: readonly string[]): Promise<string> {
    const result = await qemuImg(...args);
    expect(result).toMatchObject({ code: 0 });
    return result.stdout;
  }

  /** Whether our driver reads an image as qemu-img does, in long and in short steps. */
  async function readsAs(
    image: Uint8Array,
    raw: Uint8Array,
    backing?: BlockChild,
  ): Promise<boolean> {
    for (const step of [raw.length, 2 ** 20, 24_000]) {
      const disk = await openQcow2({
        file: directChild(openMemory({ bytes: image })),
        readOnly: true,
        ...(backing === undefined ? {} : { backing }),
      });
      const bytes = await readAll(disk, step);
      await disk.close();
      if (Buffer.compare(bytes, raw) !== 0) return false;
    }
    return true;
  }

  test.each(RECIPES.filter(({ name }) => name !== "large"))(
    "readv() must read what qemu made: $name",
    async (recipe) => {
      const image = await makeImage(recipe, scratch(`${recipe.name}.qcow2`));
      const raw = scratch(`${recipe.name}.raw`);
      await ok("convert", "-O", "raw", scratch(`${recipe.name}.qcow2`), raw);
      expect(await readsAs(image, await loadBytes(raw))).toBe(true);
    },
  );

  test.each(["512", "4k", "64k", "1M", "2M"])(
    "readv() must read compressed clusters of %s",
    async (clusterSize) => {
      const content = mixedContent(2 ** 22 + 512, 7);
      await writeFile(scratch("c.raw"), content);
      const options = `cluster_size=${clusterSize}`;
      await ok("convert", "-c", "-O", "qcow2", "-o", options, scratch("c.raw"), scratch("c.qcow2"));
      expect(await readsAs(await loadBytes(scratch("c.qcow2")), content)).toBe(true);
    },
  );

  test.each(["0.10", "1.1"])(
    "readv() must read through a backing file, compat %s",
    async (compat) => {
      const base = mixedContent(2 ** 20, 3);
      await writeFile(scratch("base.raw"), base);
      const create = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", scratch("base.raw")];
      await ok(...create, "-o", `cluster_size=4k,compat=${compat}`, scratch("top.qcow2"), "2M");
      await runQemuIo(scratch("top.qcow2"), ["write -P 5 10k 3k", "write -P 6 1020k 20k"]);
      await ok("convert", "-O", "raw", scratch("top.qcow2"), scratch("top.raw"));
      const backing = directChild(openMemory({ bytes: base }));
      const theirs = await loadBytes(scratch("top.qcow2"));
      expect(await readsAs(theirs, await loadBytes(scratch("top.raw")), backing)).toBe(true);
    },
  );

  test.each([
    ["64k clusters", ""],
    ["512", "cluster_size=512,refcount_bits=64"],
    ["4k, 1 bit", "cluster_size=4k,refcount_bits=1"],
    ["version 2", "cluster_size=4k,compat=0.10"],
    ["2M", "cluster_size=2M"],
  ])("writev() must leave what qemu-img finds clean and equal: %s", async (_, options) => {
    const size = 2 ** 23;
    const content = mixedContent(size, 11);
    const image = scratch("w.qcow2");
    const extra = options === "" ? [] : ["-o", options];
    await ok("create", "-q", "-f", "qcow2", ...extra, image, String(size));
    const memory = openMemory({ bytes: await loadBytes(image) });
    const disk = await openQcow2({ file: directChild(memory) });
    const random = new Random(5);
    const writes: Promise<void>[] = [];
    for (let at = 0; at < size; ) {
      const compressed = random.below(2) === 0;
      const unit = compressed ? 2 ** 21 : 512;
      const start = Math.ceil(at / unit) * unit;
      const length = compressed ? 2 ** 21 : Math.min(size - start, 512 * (1 + random.below(900)));
      if (start > at) await disk.writev(at, IoVector.of(content.slice(at, start)));
      const part = IoVector.of(content.slice(start, start + length));
      const written = disk.writev(start, part, { compressed });
      if (written instanceof Promise) writes.push(written);
      at = start + length;
    }
    await Promise.all(writes);
    await disk.close();
    await writeFile(image, memory.bytes);
    await writeFile(scratch("w.raw"), content);
    await ok("check", image);
    expect(await ok("compare", "-f", "qcow2", "-F", "raw", image, scratch("w.raw"))).toContain(
      "identical",
    );
  });

  test("writev() must leave the snapshots of qemu-img as they were", async () => {
    const image = scratch("s.qcow2");
    await ok("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", image, "8M");
    await runQemuIo(image, ["write -P 1 0 1M", "write -c -P 9 4M 4k", "write -z 5M 64k"]);
    await ok("snapshot", "-c", "one", image);
    await runQemuIo(image, ["write -P 2 512k 64k"]);
    await ok("snapshot", "-c", "two", image);
    const commands = [
      // Reading first: the slices are in memory when the shared clusters are written.
      "read 0 2M",
      "write -P 8 200k 4k",
      "write -P 3 100k 10k",
      "read 0 2M",
      "write -P 8 220k 4k",
      "write -P 4 4M 2k",
      "write -c -P 5 8k 4k",
      "discard 700k 100k",
      "write -z -u 600k 8k",
      "write -P 6 5M 1k",
      "write -P 7 0 2M",
    ];
    const theirs = await loadBytes(image);
    const ours = await replay(theirs, commands);
    await writeFile(scratch("ours.qcow2"), ours.bytes);
    await runQemuIo(
      image,
      commands.map((one) => one.replace("write -c", "write")),
    );
    await ok("check", scratch("ours.qcow2"));
    expect(await ok("compare", image, scratch("ours.qcow2"))).toContain("identical");
    for (const name of ["one", "two"]) {
      for (const [source, target] of [
        [image, "theirs.raw"],
        [scratch("ours.qcow2"), "ours.raw"],
      ] as const) {
        await ok("convert", "-l", `snapshot.name=${name}`, "-O", "raw", source, scratch(target));
      }
      expect(await ok("compare", scratch("theirs.raw"), scratch("ours.raw"))).toContain(
        "identical",
      );
    }
  });

  test("writev() must not write over what a snapshot needs, checked in full [C16]", async () => {
    const image = scratch("o.qcow2");
    await ok("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", image, "1M");
    await runQemuIo(image, ["write -P 1 0 64k"]);
    await ok("snapshot", "-c", "one", image);
    await runQemuIo(image, ["write -P 2 0 4k"]);
    const bytes = await loadBytes(image);
    const file = directChild(openMemory({ bytes }));
    const header = await readHeader(file);
    const view = viewOf(bytes);
    const snapshotL1 = view.getUint32(header.snapshotsOffset + 4);
    const places = {
      "snapshot table": header.snapshotsOffset,
      "inactive L1 table": snapshotL1,
      "inactive L2 table": view.getUint32(snapshotL1 + 4),
    };
    const l2 = view.getUint32(header.l1TableOffset + 4);
    for (const [structure, place] of Object.entries(places)) {
      const broken = bytes.slice();
      viewOf(broken).setUint32(l2, 0x8000_0000);
      viewOf(broken).setUint32(l2 + 4, place);
      const disk = await openQcow2({
        file: directChild(openMemory({ bytes: broken })),
        options: { "overlap-check": "all" },
      });
      const write = async (): Promise<void> => disk.writev(0, IoVector.allocate(512));
      await expect(write()).rejects.toMatchObject({ code: "ECORRUPT", structure });
      await disk.close().catch(() => undefined);
    }
  });

  test("writev() must hold after a plain write over a compressed cluster [D5]", async () => {
    const image = scratch("d5.qcow2");
    await ok("create", "-q", "-f", "qcow2", image, "1M");
    const memory = openMemory({ bytes: await loadBytes(image) });
    const disk = await openQcow2({ file: directChild(memory) });
    for (const command of [
      "write -c -P 1 0 64k",
      "write -P 2 0 64k",
      "flush",
      "write -P 3 64k 64k",
      "write -c -P 4 128k 64k",
    ]) {
      await runCommand(disk, command);
    }
    const bytes = await readAll(disk, 65536);
    for (const [cluster, value] of [2, 3, 4].entries()) {
      expect(bytes.subarray(cluster * 65536, (cluster + 1) * 65536).every((b) => b === value)).toBe(
        true,
      );
    }
    await disk.close();
    await writeFile(image, memory.bytes);
    await ok("check", image);
  });

  test("writev() over a backing file must leave what qemu-img finds equal", async () => {
    const base = mixedContent(3 * 2 ** 20 + 512, 23);
    await writeFile(scratch("b.raw"), base);
    for (const compat of ["0.10", "1.1"]) {
      const image = scratch(`b-${compat}.qcow2`);
      const create = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", scratch("b.raw")];
      await ok(...create, "-o", `compat=${compat}`, image, "4M");
      const fresh = await loadBytes(image);
      const commands = [
        "write -P 1 1000 3000",
        "write -P 2 100k 200k",
        "write -z 1M 200k",
        "write -z 2000k 1k",
        "write -P 3 3140k 20k",
        "write -P 4 2M 64k",
        "discard 2M 64k",
      ];
      await runQemuIo(image, commands);
      const ours = await replay(fresh, commands, directChild(openMemory({ bytes: base })));
      await writeFile(scratch("ours.qcow2"), ours.bytes);
      await ok("check", scratch("ours.qcow2"));
      expect(await ok("compare", image, scratch("ours.qcow2"))).toContain("identical");
    }
  });
});
