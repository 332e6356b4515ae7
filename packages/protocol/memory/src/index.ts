export { MemoryDriver, memoryDriver, type MemoryOptions, openMemory } from "./memory-driver.js";
export { NullDriver, nullDriver, type NullOptions, openNull } from "./null-driver.js";
export { CHUNK_BYTES, SparseStore, type StoredExtent } from "./sparse-store.js";
