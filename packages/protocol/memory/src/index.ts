/** Byte stores in memory. Start reading in sparse-store.ts. */
export { MemoryDriver, memoryDriver, type MemoryOptions, openMemory } from "./memory-driver.js";
export { NullDriver, nullDriver, type NullOptions, openNull } from "./null-driver.js";
export { SparseStore, type StoredExtent } from "./sparse-store.js";
