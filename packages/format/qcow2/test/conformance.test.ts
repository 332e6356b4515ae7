import { directChild } from "@blocklayer/block-api";
import { driverSuite, type DriverTarget } from "@blocklayer/conformance";
import { openMemory } from "@blocklayer/memory";
import { openQcow2 } from "../src/index.js";
import { createInMemory } from "./support/images.js";

const SHAPES: readonly Readonly<Record<string, unknown>>[] = [
  {},
  { cluster_size: 512, refcount_bits: 1 },
  { cluster_size: 4096, compat: "v2" },
  { cluster_size: "16k", extended_l2: "on" },
  { extended_l2: "on", refcount_bits: 8 },
  { cluster_size: "2M", extended_l2: "on" },
];

for (const shape of SHAPES) {
  driverSuite({
    name: `qcow2 ${JSON.stringify(shape)}`,
    modelRuns: 5,
    capabilities: {
      write: true,
      compressedWrite: true,
      writeZeroes: true,
      discard: true,
      truncate: true,
      backing: true,
    },
    async open(lengthBytes): Promise<DriverTarget> {
      const image = await createInMemory({ size: lengthBytes, ...shape });
      const memory = openMemory({ bytes: image.bytes });
      return {
        driver: await openQcow2({ file: directChild(memory) }),
        reopen: () => openQcow2({ file: directChild(memory) }),
      };
    },
  });
}
