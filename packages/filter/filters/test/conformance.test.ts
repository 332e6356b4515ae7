import { type BlockDriver, directChild } from "@blocklayer/block-api";
import { driverSuite } from "@blocklayer/conformance";
import { openMemory } from "@blocklayer/memory";
import { BlkdebugDriver, type BlkdebugOptions } from "../src/blkdebug/driver.js";

const NO_RULES = { inject: [], states: [], suspend: [] };
const CAPABILITIES = { write: true, writeZeroes: true, discard: true, truncate: true };

const SHAPES: Readonly<Record<string, BlkdebugOptions>> = {
  "without options": {},
  "aligned to 512": { align: 512 },
  "aligned to 4096": { align: 4096 },
  "of short transfers": { align: 512, maxTransfer: 4096, maxWriteZero: 8192, maxDiscard: 8192 },
};

for (const [shape, options] of Object.entries(SHAPES)) {
  driverSuite({
    name: `blkdebug ${shape} over memory`,
    open: (lengthBytes): BlockDriver =>
      new BlkdebugDriver(directChild(openMemory({ lengthBytes })), NO_RULES, options),
    capabilities: CAPABILITIES,
  });
}
