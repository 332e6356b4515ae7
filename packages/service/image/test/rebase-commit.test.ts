/** Other backing files, and commits: the disk stays what it was, whatever the sizes and clusters of a chain are. */
import { BlockError } from "@blocklayer/bytes";
import { qcow2Driver } from "@blocklayer/qcow2";
import { rawDriver } from "@blocklayer/raw";
import { describe, expect, test } from "vitest";
import { checkImage, commitImage, createImage, openImage, rebaseImage } from "../src/index.js";
import { Files } from "./support/files.js";

/** Repeatable random numbers. */
function randomOf(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

class Chain {
  readonly files = new Files();
  readonly drivers = [this.files.driver, rawDriver, qcow2Driver];
  readonly #random: (limit: number) => number;

  constructor(seed: number) {
    this.#random = randomOf(seed);
  }

  /** A layer of any size and any clusters, with some writes and some zeroes. */
  async add(filename: string, backing?: string): Promise<void> {
    const { drivers } = this;
    const clusters = [512, 4096, 65_536][this.#random(3)] ?? 512;
    await createImage({
      drivers,
      filename,
      format: "qcow2",
      sizeBytes: 512 * (100 + this.#random(600)),
      options: { cluster_size: clusters },
      ...(backing === undefined ? {} : { backing: { filename: backing, format: "qcow2" } }),
    });
    await using disk = await openImage(filename, { drivers, readOnly: false });
    for (let i = 0; i < 6; i++) {
      const offset = 512 * this.#random(disk.lengthBytes / 512);
      const length = Math.min(512 * (1 + this.#random(60)), disk.lengthBytes - offset);
      if (i % 3 === 2) await disk.writeZeroes(offset, length);
      else await disk.write(offset, new Uint8Array(length).fill(1 + this.#random(250)));
    }
  }

  async read(filename: string): Promise<Uint8Array> {
    await using disk = await openImage(filename, { drivers: this.drivers });
    return await disk.read(0, disk.lengthBytes);
  }

  /** Corruptions and leaks. */
  async damage(filename: string): Promise<number> {
    await using disk = await openImage(filename, { drivers: this.drivers });
    const { result } = await checkImage(disk, { filename });
    return result.corruptions + result.leaks;
  }
}

async function chainOf(seed: number): Promise<Chain> {
  const chain = new Chain(seed);
  await chain.add("base");
  await chain.add("middle", "base");
  await chain.add("top", "middle");
  await chain.add("other");
  return chain;
}

const SEEDS = Array.from({ length: 12 }, (_, i) => i + 1);

describe("rebaseImage()", () => {
  test.each(SEEDS)(
    "must keep what the disk shows, on any other file, and on none: seed %d",
    async (seed) => {
      const chain = await chainOf(seed);
      const { drivers } = chain;
      const before = await chain.read("top");
      for (const filename of ["other", "base", undefined, "middle"]) {
        const backing = filename === undefined ? {} : { backing: { filename, format: "qcow2" } };
        await rebaseImage("top", { drivers, ...backing });
        expect([filename, Buffer.compare(await chain.read("top"), before)]).toEqual([filename, 0]);
        expect(await chain.damage("top")).toBe(0);
      }
    },
  );

  test("must refuse loops, and leave the image as it was when a write fails", async () => {
    const chain = await chainOf(3);
    const { drivers, files } = chain;
    const before = await chain.read("top");
    const image = files.get("top");
    for (const unsafe of [true, false]) {
      const itself = { backing: { filename: "top", format: "qcow2" }, drivers, unsafe };
      await expect(rebaseImage("top", itself)).rejects.toThrow(/it is the image itself/);
    }
    const above = { backing: { filename: "top", format: "qcow2" }, drivers };
    await expect(rebaseImage("middle", above)).rejects.toThrow(/its chain holds the image/);
    const nameless = { backing: { filename: "other" }, drivers };
    await expect(rebaseImage("top", nameless)).rejects.toThrow(/backing format must be specified/);
    expect(Buffer.compare(files.get("top"), image)).toBe(0);
    files.onWrite = (name) => {
      if (name === "top") throw new BlockError("ENOSPC", "no space");
    };
    const other = { backing: { filename: "other", format: "qcow2" }, drivers };
    await expect(rebaseImage("top", other)).rejects.toThrow(/no space/);
    files.onWrite = undefined;
    expect(Buffer.compare(await chain.read("top"), before)).toBe(0);
  });
});

describe("commitImage()", () => {
  test.each(SEEDS)("must put into the file below what the disk shows: seed %d", async (seed) => {
    const chain = await chainOf(seed);
    const { drivers } = chain;
    const before = await chain.read("top");
    await commitImage("top", { drivers });
    expect(Buffer.compare(await chain.read("top"), before)).toBe(0);
    expect(Buffer.compare((await chain.read("middle")).subarray(0, before.length), before)).toBe(0);
    for (const name of ["top", "middle"]) expect(await chain.damage(name)).toBe(0);
    await using top = await openImage("top", { drivers, backing: null });
    expect(await top.blockStatus(0, top.lengthBytes)).toMatchObject({
      allocated: false,
      lengthBytes: top.lengthBytes,
    });
  });

  test.each(SEEDS)("must reach further down, and leave the image alone: seed %d", async (seed) => {
    const chain = await chainOf(seed);
    const { drivers, files } = chain;
    const before = await chain.read("top");
    const image = files.get("top");
    await commitImage("top", { drivers, base: "base" });
    expect(Buffer.compare((await chain.read("base")).subarray(0, before.length), before)).toBe(0);
    expect(Buffer.compare(files.get("top"), image)).toBe(0);
    expect(await chain.damage("base")).toBe(0);
  });

  test("must keep what a longer base has behind the end of the image, whatever lies between", async () => {
    const { drivers } = new Chain(1);
    const format = "qcow2" as const;
    const make = async (filename: string, sizeBytes: number, below?: string): Promise<void> => {
      const backing = below === undefined ? {} : { backing: { filename: below, format } };
      await createImage({ drivers, filename, format, sizeBytes, ...backing });
      await using disk = await openImage(filename, { drivers, readOnly: false });
      await disk.write(0, new Uint8Array(sizeBytes).fill(filename.charCodeAt(0)));
    };
    await make("base", 8192);
    await make("middle", 12_288, "base");
    await make("top", 2048, "middle");
    await commitImage("top", { drivers, base: "base" });
    await using base = await openImage("base", { drivers });
    const text = Buffer.from(await base.read(0, base.lengthBytes)).toString();
    expect(text).toBe("t".repeat(2048) + "b".repeat(6144));
  });

  test("must not empty the image when the base cannot be written", async () => {
    const chain = await chainOf(5);
    const { drivers, files } = chain;
    const before = await chain.read("top");
    let writes = 0;
    files.onWrite = (name) => {
      if (name === "middle" && ++writes > 2) throw new BlockError("EIO", "the base is broken");
    };
    await expect(commitImage("top", { drivers })).rejects.toThrow(/the base is broken/);
    files.onWrite = undefined;
    expect(Buffer.compare(await chain.read("top"), before)).toBe(0);
    await expect(commitImage("top", { drivers, base: "gone" })).rejects.toThrow(
      "Did not find 'gone' in the backing chain of 'top'",
    );
    await expect(commitImage("base", { drivers })).rejects.toThrow("does not have a backing file");
  });
});
