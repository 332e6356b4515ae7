/** An image whose node has failed. */
import { directChild } from "@blocklayer/block-api";
import { IoVector } from "@blocklayer/bytes";
import { SimDisk } from "@blocklayer/sim";
import { expect, test } from "vitest";
import { openQcow2 } from "../src/index.js";
import { createInMemory } from "./support/images.js";

test("a node that failed must not write tables, not even to make room for a read [C17]", async () => {
  const { bytes } = await createInMemory({ size: 2 ** 21, cluster_size: 512 });
  const file = new SimDisk({ content: bytes });
  const options = { "l2-cache-size": "4k", "l2-cache-entry-size": 512 };
  const disk = await openQcow2({ file: directChild(file), options });
  for (let at = 0; at < 2 ** 21; at += 32_768) await disk.writev(at, IoVector.allocate(512));
  await disk.flushToOs();
  for (let at = 0; at < 2 ** 18; at += 32_768) await disk.writev(at + 512, IoVector.allocate(512));
  file.inject({ kind: "flush" });
  await expect(Promise.resolve(disk.flushToOs())).rejects.toThrow("injected failure");
  expect(disk.statistics()["failed"]).toBe(true);
  const { write } = file.counts;
  for (let at = 0; at < 2 ** 21; at += 32_768) {
    try {
      await disk.readv(at, IoVector.allocate(512));
    } catch {
      // A read that has no room for its table may fail: the node has.
    }
  }
  expect(file.counts.write).toBe(write);
  await expect(disk.close()).rejects.toThrow("the image failed");
});
