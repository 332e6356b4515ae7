/** The graph's own named moments. */
import type { BlockDriver, DebugEvent, DriverDefinition } from "@blocklayer/block-api";
import { openMemory } from "@blocklayer/memory";
import { rawDriver } from "@blocklayer/raw";
import { expect, test } from "vitest";
import { nodeDevice } from "../src/announcing-device.js";
import { BlockGraph } from "../src/graph.js";
import type { BlockBackend } from "../src/backend.js";

const KiB = 1024;

/** A store that writes down what it hears. */
function listener(alignment: number, heard: DebugEvent[]): DriverDefinition {
  return {
    name: "listener",
    kind: "protocol",
    openOptions: {},
    open: ({ readOnly }): BlockDriver => {
      const limits = { requestAlignment: alignment };
      const driver = openMemory({ lengthBytes: 64 * KiB, readOnly, limits });
      return Object.assign(driver, { debugEvent: (event: DebugEvent) => void heard.push(event) });
    },
  };
}

async function opened(
  alignment: number,
  heard: DebugEvent[],
  under: "root" | "raw",
): Promise<BlockBackend> {
  const graph = new BlockGraph({ drivers: [listener(alignment, heard), rawDriver] });
  const store = { driver: "listener" };
  return await graph.open(under === "root" ? store : { driver: "raw", file: store });
}

test("a node must tell its own driver of writes and zero writes, and of no read", async () => {
  const heard: DebugEvent[] = [];
  await using disk = await opened(1, heard, "root");
  await disk.read(0, 512);
  expect(heard).toEqual([]);
  await disk.write(100, new Uint8Array(10));
  expect(heard.splice(0)).toEqual(["pwritev", "pwritev_done"]);
  await disk.writeZeroes(0, 4 * KiB);
  expect(heard.splice(0)).toEqual(["pwritev_zero", "pwritev_done"]);
  await disk.discard(0, 4 * KiB);
  expect(heard.splice(0)).toEqual([]);
});

test.each([
  [1000, 100, ["head", "tail", "after_head", "after_tail"]],
  [1000, 20_000, ["head", "after_head", "tail", "after_tail"]],
  [0, 1000, ["tail", "after_tail"]],
  [4096, 5000, ["tail", "after_tail"]],
  [1000, 3096, ["head", "after_head"]],
  [4096, 4096, []],
])(
  "a write at %d of %d bytes must announce the blocks that it reads",
  async (at, length, edges) => {
    const heard: DebugEvent[] = [];
    await using disk = await opened(4 * KiB, heard, "root");
    await disk.write(at, new Uint8Array(length).fill(7));
    const read = edges.map((edge) => `pwritev_rmw_${edge}`);
    expect(heard).toEqual([...read, "pwritev", "pwritev_done"]);
    const bytes = await disk.read(0, 32 * KiB);
    expect(
      bytes.every((byte, index) => byte === (index >= at && index < at + length ? 7 : 0)),
    ).toBe(true);
  },
);

test("a flush must be told to the child, and its second half only when something was written", async () => {
  const heard: DebugEvent[] = [];
  await using disk = await opened(1, heard, "raw");
  await disk.write(0, new Uint8Array(512));
  expect(heard.splice(0)).toEqual(["write_aio", "pwritev", "pwritev_done"]);
  await disk.flush();
  expect(heard.splice(0)).toEqual(["flush_to_os", "flush_to_disk"]);
  await disk.flush();
  expect(heard.splice(0)).toEqual(["flush_to_os"]);
  await disk.read(0, 512);
  expect(heard.splice(0)).toEqual(["read_aio"]);
});

test("a write that fails must be announced as done, too", async () => {
  const heard: DebugEvent[] = [];
  await using disk = await opened(1, heard, "root");
  const { driver } = disk.root;
  Object.assign(driver, {
    writev: () => Promise.reject(Object.assign(new Error("no"), { code: "EIO" })),
  });
  await expect(disk.write(0, new Uint8Array(512))).rejects.toThrow("no");
  expect(heard).toEqual(["pwritev", "pwritev_done"]);
});

test("nodeDevice() must be the driver itself when it does not listen", () => {
  const driver = openMemory({ lengthBytes: 512 });
  expect(nodeDevice(driver)).toBe(driver);
});
