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
import { createOptions, createQcow2, openQcow2, qcow2Driver } from "../src/index.js";

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
