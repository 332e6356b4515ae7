export { BlockBackend } from "./backend.js";
export type { LayeredStatus } from "./block-status.js";
export type { Extent, ExtentOptions } from "./extents.js";
export { BlockGraph, type GraphOpenOptions, type GraphOptions } from "./graph.js";
export { BlockNode } from "./node.js";
export { MAX_CHAIN_DEPTH } from "./open.js";
export type { GateRequest, OpenGate } from "./open-gate.js";
export {
  type FlatOptions,
  flattenOptions,
  type NodeOptions,
  parseImageOptions,
  parseJsonFilename,
  unflattenOptions,
} from "./options.js";
export { childPermissions, defaultPermissions, NO_PERMISSIONS } from "./permissions.js";
export type { ReadableOptions } from "./readable.js";
export { PROBE_BYTES } from "./registry.js";
export type { ReopenOptions } from "./reopen.js";
