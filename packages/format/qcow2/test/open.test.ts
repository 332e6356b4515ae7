import {
  directChild,
  type DriverDefinition,
  parseOptions,
  stringOption,
} from "@blocklayer/block-api";
import { BlockGraph, type GateRequest, type NodeOptions } from "@blocklayer/block-graph";
import { IoVector } from "@blocklayer/bytes";
import { type MemoryDriver, openMemory } from "@blocklayer/memory";
import { rawDriver } from "@blocklayer/raw";
import { afterEach, describe, expect, test } from "vitest";
import {
  type CodecFactory,
  createOptions,
  createQcow2,
  openQcow2,
  qcow2Driver,
  qcow2DriverWith,
} from "../src/index.js";

const CLUSTER = 65536;
const SIZE = 4 * CLUSTER;

/** Files by name, in memory. */
const shelf = new Map<string, MemoryDriver>();

const shelfDriver: DriverDefinition = {
  name: "shelf",
  kind: "protocol",
  openOptions: { filename: { type: "string", help: "Which file" } },
  reopenOptions: [],
  open: ({ options }) => {
    const file = shelf.get(stringOption(options, "filename") ?? "");
    if (file === undefined) throw new Error("no such file");
    return file;
  },
};

/** What the graph asked its gate. */
const asked: GateRequest[] = [];

const graph = new BlockGraph({
  drivers: [shelfDriver, rawDriver, qcow2Driver],
  openGate: (request) => {
    asked.push(request);
    return { driver: "raw", file: { driver: "shelf", filename: request.filename } };
  },
});

function putRaw(name: string, value: number): void {
  shelf.set(name, openMemory({ bytes: new Uint8Array(SIZE).fill(value) }));
}

/** An image with one cluster of its own: the second, filled with 9. */
async function putImage(name: string, backingFile?: string): Promise<void> {
  const file = openMemory();
  shelf.set(name, file);
  const backing =
    backingFile === undefined ? {} : { backing_file: backingFile, backing_fmt: "raw" };
  const options = parseOptions(createOptions, { size: SIZE, ...backing }, "qcow2");
  await createQcow2({ file: directChild(file), options });
  const disk = await openQcow2({ file: directChild(file) });
  await disk.writev(CLUSTER, IoVector.of(new Uint8Array(CLUSTER).fill(9)));
  await disk.close();
}

function image(name: string, more: Partial<NodeOptions> = {}): NodeOptions {
  return { driver: "qcow2", file: { driver: "shelf", filename: name }, ...more };
}

/** The first bytes of the first two clusters. */
async function look(options: NodeOptions): Promise<readonly [number, number]> {
  const disk = await graph.open(options, { readOnly: true });
  try {
    const first = await disk.read(0, 1);
    const second = await disk.read(CLUSTER, 1);
    return [first[0] as number, second[0] as number];
  } finally {
    await disk.close();
  }
}

afterEach(() => {
  shelf.clear();
  asked.length = 0;
});

describe("openDriver() in a graph", () => {
  const given: NodeOptions = { driver: "raw", file: { driver: "shelf", filename: "given" } };

  test("must ask for the backing file that the image names", async () => {
    putRaw("base", 5);
    await putImage("top", "base");
    expect(await look(image("top"))).toEqual([5, 9]);
    expect(asked).toMatchObject([{ kind: "backing", filename: "base", format: "raw" }]);
  });

  test("must use the backing file that the user gave, and ask for none", async () => {
    putRaw("given", 6);
    await putImage("top", "base");
    expect(await look(image("top", { backing: given }))).toEqual([6, 9]);
    expect(asked).toEqual([]);
  });

  test("must use the backing file that the user gave for an image that names none", async () => {
    putRaw("given", 6);
    await putImage("top");
    expect(await look(image("top", { backing: given }))).toEqual([6, 9]);
    expect(asked).toEqual([]);
  });

  test("must do without a backing file when the user says so", async () => {
    await putImage("top", "base");
    expect(await look(image("top", { backing: null }))).toEqual([0, 9]);
    expect(asked).toEqual([]);
  });

  test("must copy on write from the backing file that the user gave", async () => {
    putRaw("given", 6);
    await putImage("top");
    const disk = await graph.open(image("top", { backing: given }));
    await disk.write(512, new Uint8Array(512).fill(1));
    await disk.close();
    // Memory that was closed keeps its bytes, and takes no more requests.
    shelf.set("top", openMemory({ bytes: (shelf.get("top") as MemoryDriver).bytes }));
    expect(await look(image("top"))).toEqual([6, 9]);
  });
});

describe("openQcow2()", () => {
  test("must use the backing file that it is given for an image that names none", async () => {
    putRaw("given", 6);
    await putImage("top");
    const disk = await openQcow2({
      file: directChild(shelf.get("top") as MemoryDriver),
      backing: directChild(shelf.get("given") as MemoryDriver),
    });
    const bytes = new Uint8Array(1);
    await disk.readv(0, IoVector.of(bytes));
    expect(bytes[0]).toBe(6);
    await disk.close();
  });
});

describe("a codec of the caller", () => {
  /** Stores what it gets, uncompressed: no other codec can read it. */
  const names: string[] = [];
  const storing: CodecFactory = (name) => {
    names.push(name);
    return {
      name,
      compress: (clusters) => clusters.map((cluster) => cluster.slice(0, CLUSTER / 2)),
      decompress: (payload, target) => target.set(payload.subarray(0, CLUSTER / 2)),
      decompressMany: (items) => {
        for (const { payload, target } of items) target.set(payload.subarray(0, CLUSTER / 2));
      },
      close: () => undefined,
    };
  };
  const half = new Uint8Array(CLUSTER);
  half.fill(7, 0, CLUSTER / 2);

  test("openQcow2({ createCodec }) must compress and decompress with it, and not make it before", async () => {
    names.length = 0;
    const file = directChild(openMemory());
    await createQcow2({ file, options: parseOptions(createOptions, { size: SIZE }, "qcow2") });
    const disk = await openQcow2({ file, createCodec: storing });
    expect(names).toEqual([]);
    await disk.writev(0, IoVector.of(half), { compressed: true });
    const found = new Uint8Array(CLUSTER);
    await disk.readv(0, IoVector.of(found));
    expect(found).toEqual(half);
    expect(names).toEqual(["deflate"]);
    await disk.close();
    const other = await openQcow2({ file, readOnly: true });
    await expect(other.readv(0, IoVector.of(found))).rejects.toThrow("compressed");
    await other.close();
  });

  test("qcow2DriverWith() must give it to a graph", async () => {
    names.length = 0;
    shelf.set("own-codec", openMemory());
    const file = directChild(shelf.get("own-codec") as MemoryDriver);
    await createQcow2({ file, options: parseOptions(createOptions, { size: SIZE }, "qcow2") });
    const own = new BlockGraph({ drivers: [shelfDriver, qcow2DriverWith(storing)] });
    const disk = await own.open({
      driver: "qcow2",
      file: { driver: "shelf", filename: "own-codec" },
    });
    await disk.write(0, half, { compressed: true });
    expect(await disk.read(0, CLUSTER)).toEqual(half);
    expect(names).toEqual(["deflate"]);
    await own.close();
  });
});
