import { type BlockDriver, directChild } from "@blocklayer/block-api";
import { driverSuite } from "@blocklayer/conformance";
import { openMemory } from "@blocklayer/memory";
import { BlkdebugDriver } from "../src/blkdebug/driver.js";

const NO_RULES = { inject: [], states: [], suspend: [] };

driverSuite({
  name: "blkdebug without rules over memory",
  open: (lengthBytes): BlockDriver =>
    new BlkdebugDriver(directChild(openMemory({ lengthBytes })), NO_RULES),
  capabilities: { write: true, writeZeroes: true, discard: true, truncate: true },
});
