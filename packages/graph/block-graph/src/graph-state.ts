/** What all parts of a graph share: its drivers, its nodes, its gate. */
import type { AlignedArena } from "@blocklayer/aligned-io";
import { BlockError, type MaybePromise } from "@blocklayer/bytes";
import type { BlockBackend } from "./backend.js";
import type { BlockNode } from "./node.js";
import { checkNodeName, NodeNamer } from "./node-names.js";
import type { OpenGate } from "./open-gate.js";
import type { DriverRegistry } from "./registry.js";

export class GraphState {
  readonly registry: DriverRegistry;
  readonly arena: AlignedArena;
  readonly openGate: OpenGate;
  readonly resolveFilename: (filename: string) => MaybePromise<string>;
  /** Every node that opens, stands, or closes, by name. */
  readonly nodes: Map<string, BlockNode> = new Map();
  /** Every backend that is open, in the order they were opened. */
  readonly backends: Set<BlockBackend> = new Set();
  readonly #namer = new NodeNamer();

  constructor(
    registry: DriverRegistry,
    arena: AlignedArena,
    openGate: OpenGate,
    resolveFilename: (filename: string) => MaybePromise<string>,
  ) {
    this.registry = registry;
    this.arena = arena;
    this.openGate = openGate;
    this.resolveFilename = resolveFilename;
  }

  /** A name that no node has: the user's, checked, or a fresh one. */
  reserveName(wanted: string | undefined): string {
    if (wanted === undefined) return this.#namer.next();
    checkNodeName(wanted);
    if (!this.nodes.has(wanted)) return wanted;
    throw new BlockError("EEXIST", `there is a node called '${wanted}' already`, { op: "open" });
  }

  /** @throws BlockError `ENOENT` when no node of this name stands */
  find(name: string): BlockNode {
    const node = this.nodes.get(name);
    if (node?.isOpen === true) return node;
    const state = node === undefined ? "there is no node called" : "this node is not open:";
    throw new BlockError("ENOENT", `${state} '${name}'`, { op: "open", node: name });
  }
}
