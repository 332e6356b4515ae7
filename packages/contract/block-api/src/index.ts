/** The contract between drivers and the graph. Start reading in driver.ts. */
export type {
  BitmapControl,
  DirtyBitmap,
  DirtyBitmapOptions,
  DirtyRange,
} from "./bitmaps.js";
export type {
  BackingReference,
  CreateContext,
  CreateFileContext,
  DiskRange,
  DriverDefinition,
  MeasureContext,
  MeasureResult,
  MeasureSource,
  OpenContext,
} from "./definition.js";
export { DEBUG_EVENTS, type DebugControl, type DebugEvent, type DebugObserver } from "./debug.js";
export {
  type AmendDriverOptions,
  type BlockCapabilities,
  type BlockChild,
  type BlockDriver,
  type BlockIo,
  type CheckFinding,
  type CheckOptions,
  type CheckResult,
  directChild,
  type FormatInfo,
  type RepairKind,
  type ReopenRequest,
  storeCapabilities,
  type StoredBitmap,
} from "./driver.js";
export { type BlockLimits, limitsOf, MAX_TRANSFER_BYTES, UNLIMITED } from "./limits.js";
export { parseKeyValues } from "./option-string.js";
export {
  booleanOption,
  booleanWord,
  numberOption,
  type OptionSchema,
  type OptionSpec,
  type OptionValue,
  type OptionValues,
  parseOptions,
  stringOption,
} from "./options.js";
export {
  ALL_PERMISSIONS,
  type ChildRole,
  PERMISSION,
  permissionNames,
  type Permissions,
  type PermissionSet,
} from "./permissions.js";
export type {
  BlockStatusOptions,
  PreallocationMode,
  RequestOptions,
  TruncateOptions,
  WriteOptions,
  WriteZeroesOptions,
} from "./request.js";
export {
  findSnapshot,
  type InternalSnapshot,
  type SnapshotControl,
  type SnapshotCreateOptions,
  type SnapshotSelector,
  snapshotText,
} from "./snapshots.js";
export type { BlockStatus } from "./status.js";
