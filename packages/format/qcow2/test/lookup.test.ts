import { directChild, parseOptions } from "@blocklayer/block-api";
import { IoVector } from "@blocklayer/bytes";
import { expect, test } from "vitest";
import { ENTRY_KIND } from "../src/geometry.js";
import { openQcow2, readHeader } from "../src/index.js";
import { lookup, lookupSlow, Mapping } from "../src/mapping/lookup.js";
import { openImage } from "../src/open.js";
import { openOptions } from "../src/open-options.js";
import { createInMemory } from "./support/images.js";

test("lookupSlow() must show the slice only while it is pinned under the lock", async () => {
  const file = directChild(await createInMemory({ size: 2 ** 20 }));
  const disk = await openQcow2({ file });
  await disk.writev(65536, IoVector.allocate(65536));
  await disk.close();
  const image = await openImage(await readHeader(file), {
    nodeName: "disk",
    file,
    readOnly: true,
    options: parseOptions(openOptions, {}, "qcow2"),
    backing: undefined,
    dataFile: undefined,
    snapshot: undefined,
  });
  const mapping = new Mapping();
  for (const isInMemory of [false, true]) {
    expect(lookup(image, 65536, 4096, mapping)).toBe(isInMemory);
    const seen: unknown[] = [];
    await lookupSlow(image, 65536, 4096, mapping, () => {
      seen.push(image.lock.locked, mapping.view.byteLength > 0, mapping.kind);
    });
    expect(seen).toEqual([true, true, ENTRY_KIND.normal]);
    expect([image.lock.locked, mapping.view.byteLength]).toEqual([false, 0]);
  }
  const failing = lookupSlow(image, 65536, 4096, mapping, () => {
    throw new Error("no use");
  });
  await expect(failing).rejects.toThrow("no use");
  expect([image.lock.locked, mapping.view.byteLength]).toEqual([false, 0]);
});
