/** Any byte range over a device that takes only aligned requests. Start reading in device.ts. */
export { AlignedIo } from "./aligned-io.js";
export { isMemoryAligned } from "./aligned-memory.js";
export {
  AlignedArena,
  type AlignedBuffer,
  type AllocateOptions,
  type ArenaOptions,
} from "./arena.js";
export type { ArenaBacking } from "./arena-memory.js";
export type {
  AlignedDevice,
  AlignedLimits,
  AlignedReadOptions,
  AlignedWriteOptions,
  EdgeListener,
  EdgeMoment,
} from "./device.js";
export type { AlignedIoStatistics } from "./piece-mover.js";
export { sharedArena } from "./shared-arena.js";
