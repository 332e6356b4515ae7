import { driverSuite } from "@blocklayer/conformance";
import { openMemory } from "../src/index.js";

driverSuite({
  name: "memory",
  open: (lengthBytes) => openMemory({ lengthBytes }),
  capabilities: { write: true, writeZeroes: true, discard: true, truncate: true },
  growsPastEnd: true,
  synchronous: true,
});
