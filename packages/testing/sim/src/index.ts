/** A disk that crashes on demand. Start reading in sim-disk.ts. */
export { CHUNK_BYTES, type ChunkExtent, ChunkStore } from "./chunk-store.js";
export { type CrashOptions, type CrashState, crashStates } from "./crash-states.js";
export type { Fault, SimRequest, SimRequestKind } from "./faults.js";
export { plainly } from "./plainly.js";
export { Random } from "./random.js";
export {
  type GuestFlush,
  type GuestRequest,
  type Mismatch,
  ReferenceDisk,
  ReferenceMismatchError,
  type ReferenceOptions,
} from "./reference-disk.js";
export { type ScheduleOptions, type SchedulerOptions, SimScheduler } from "./scheduler.js";
export { SimDisk } from "./sim-disk.js";
export type { SimDiskOptions } from "./sim-disk-options.js";
export { readStamp, type Stamp, stampedBytes } from "./stamp.js";
export type { Outcome, TearOptions } from "./tear.js";
export {
  type MarkOptions,
  Trace,
  type TracedDisk,
  type TraceEvent,
  type TraceMark,
  type TraceOp,
} from "./trace.js";
export { type GuestDevice, TrackedGuest } from "./tracked-guest.js";
