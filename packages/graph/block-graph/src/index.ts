/** A graph of block nodes. Start reading in graph.ts and backend.ts. */
export { BlockBackend } from "./backend.js";
export type { LayeredStatus } from "./block-status.js";
export type { Extent, ExtentOptions } from "./extents.js";
export { BlockGraph, type GraphOpenOptions, type GraphOptions } from "./graph.js";
export { BlockNode } from "./node.js";
export type { GateRequest, OpenGate } from "./open-gate.js";
export { type NodeOptions, parseImageOptions, parseJsonFilename } from "./options.js";
export type { ReadableOptions } from "./readable.js";
export type { ReopenOptions } from "./reopen.js";
export { snapshotKeeper } from "./snapshots.js";
