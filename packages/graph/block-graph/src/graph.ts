/**
 * The block graph: opens nodes from options, stacks them, and closes them.
 *
 * Above: services, jobs, applications. Below: the drivers, which it is given; it imports none.
 *
 * 1. Every node that stands is in `nodes()`, and has a user or is pinned by `add`.
 * 2. Two users of one node never disturb each other: each says what it needs and what it shares (permissions.ts).
 * 3. A file that an image names is opened only through the open gate; without one, never.
 */
import { type AlignedArena, sharedArena } from "@blocklayer/aligned-io";
import type { MaybePromise } from "@blocklayer/bytes";
import { CoMutex } from "@blocklayer/co-lock";
import {
  type BlockChild,
  booleanWord,
  type DriverDefinition,
  type Permissions,
} from "@blocklayer/block-api";
import { activateNodes, type HandedOver, inactivateNodes, inactiveError } from "./activation.js";
import { attach } from "./attach.js";
import { BlockBackend } from "./backend.js";
import { closeNode, ErrorCollector } from "./close.js";
import { GraphState } from "./graph-state.js";
import type { BlockNode } from "./node.js";
import { Opener } from "./open.js";
import { type OpenGate, refuseAll } from "./open-gate.js";
import type { NodeOptions } from "./options.js";
import { defaultPermissions, NO_PERMISSIONS } from "./permissions.js";
import { DriverRegistry } from "./registry.js";
import { reopenNode, type ReopenOptions } from "./reopen.js";
import { closedError } from "./request-checks.js";

/** What a graph is made of. */
export interface GraphOptions {
  readonly drivers: readonly DriverDefinition[];
  /** Decides about files that images name. Absent: all are refused. */
  readonly openGate?: OpenGate;
  /** Lends aligned memory; by default the one that the process shares. */
  readonly arena?: AlignedArena;
  /** One name for each file (a real path), so that loops are found under any name. By default the name itself. */
  readonly resolveFilename?: (filename: string) => MaybePromise<string>;
}

/** How to open. */
export interface GraphOpenOptions {
  /** The default of `read-only` for the root node, and whether the backend may write. */
  readonly readOnly?: boolean;
  /** Every write is stable when it resolves. */
  readonly writethrough?: boolean;
  /** What the backend holds and shares. By default it reads, writes unless read-only, and shares all. */
  readonly permissions?: Permissions;
  /** The root is opened to be checked or repaired: see `OpenContext.forCheck`. */
  readonly forCheck?: boolean;
  /** Whether a node that the caller describes without a driver may be probed. */
  readonly allowProbing?: boolean;
  readonly signal?: AbortSignal;
}

export class BlockGraph implements AsyncDisposable {
  readonly #state: GraphState;
  #closing: Promise<void> | undefined = undefined;
  /** What users held before everything was handed over; `undefined` while the graph is active. */
  #handedOver: HandedOver | undefined = undefined;
  readonly #activation: CoMutex = new CoMutex("activation");

  constructor({ drivers, openGate, arena, resolveFilename }: GraphOptions) {
    this.#state = new GraphState(
      new DriverRegistry(drivers),
      arena ?? sharedArena(),
      openGate ?? refuseAll,
      resolveFilename ?? ((filename) => filename),
    );
  }

  /**
   * Opens a tree of nodes, or takes a node that stands, and gives its disk to a user.
   *
   * @param options - QEMU's `-blockdev` keys, nested or dotted; or a node's name
   * @throws BlockError; nothing that was opened on the way is left
   * @example await graph.open({ driver: "qcow2", file: { driver: "file", filename: "disk.qcow2" } })
   */
  async open(options: NodeOptions | string, how: GraphOpenOptions = {}): Promise<BlockBackend> {
    this.#refuseClosed("open");
    this.#refuseInactive("open");
    const node = typeof options === "string" ? this.#state.find(options) : undefined;
    const root = node ?? (await this.#openNode(options as NodeOptions, how));
    try {
      this.#refuseClosed("open");
      const users = how.permissions ?? defaultPermissions(how.readOnly ?? root.readOnly);
      const edge = await attach({ label: `a backend of '${root.name}'` }, "root", root, users);
      const backend = new BlockBackend(this.#state, edge, how.writethrough === true);
      this.#state.backends.add(backend);
      return backend;
    } catch (error) {
      if (root.isUnused) await closeNode(this.#state, root);
      throw error;
    }
  }

  /**
   * Opens a tree of nodes without a user, for others to name. It stands until `remove`.
   *
   * @param options - usually with a `node-name`
   */
  async add(
    options: NodeOptions,
    how: Pick<GraphOpenOptions, "allowProbing" | "signal"> = {},
  ): Promise<BlockNode> {
    this.#refuseClosed("add");
    this.#refuseInactive("add");
    const node = await this.#openNode(options, { ...how, permissions: NO_PERMISSIONS });
    if (this.#closing !== undefined) {
      await closeNode(this.#state, node);
      this.#refuseClosed("add");
    }
    node.isPinned = true;
    return node;
  }

  /**
   * Takes back an `add`. The node closes now, or with its last user.
   *
   * @throws BlockError `ENOENT`; what its close throws
   */
  async remove(name: string): Promise<void> {
    const node = this.#state.find(name);
    node.isPinned = false;
    if (node.isUnused) await closeNode(this.#state, node);
  }

  /** The nodes that are open. */
  nodes(): readonly BlockNode[] {
    return [...this.#state.nodes.values()].filter((node) => node.isOpen);
  }

  /** The open node of this name. */
  node(name: string): BlockNode | undefined {
    const node = this.#state.nodes.get(name);
    return node?.isOpen === true ? node : undefined;
  }

  /** The driver that is surest of a file's first bytes; `raw` when none is. */
  async probe(file: BlockChild): Promise<string> {
    return await this.#state.registry.probe(file);
  }

  /**
   * Makes a node writable or read-only, with the byte stores below it, and changes options that its driver can
   * change. A backend that is given changes with its root node; others stand in the way if they write.
   *
   * @throws BlockError; everything is as before then
   */
  async reopen(target: BlockBackend | BlockNode | string, options: ReopenOptions): Promise<void> {
    this.#refuseClosed("reopen");
    this.#refuseInactive("reopen");
    if (target instanceof BlockBackend) {
      const edge = options.readOnly === undefined ? undefined : target.edge;
      return await reopenNode(target.root, options, edge);
    }
    const node = typeof target === "string" ? this.#state.find(target) : target;
    await reopenNode(node, options, undefined);
  }

  /**
   * Hands every disk over to another process: all that was written is stable, nothing is held or locked any more,
   * and changes are refused with `EBUSY`, until `activateAll`; so are reads where a driver would have to remember what
   * it read before. Requires: no job runs. Does nothing the second time.
   *
   * @throws the first error of a flush or a driver; everything is active then
   */
  async inactivateAll(): Promise<void> {
    this.#refuseClosed("inactivate");
    await this.#oneAtATime(async () => {
      this.#handedOver ??= await inactivateNodes(this.#state);
    });
  }

  /**
   * Takes every disk back: the locks first, then what another process may have changed is read anew.
   *
   * @throws BlockError when another process holds a lock, what a driver throws; everything is inactive still
   */
  async activateAll(): Promise<void> {
    this.#refuseClosed("activate");
    await this.#oneAtATime(async () => {
      if (this.#handedOver === undefined) return;
      await activateNodes(this.#state, this.#handedOver);
      this.#handedOver = undefined;
    });
  }

  /**
   * Closes every backend, youngest first, then every node that was added.
   *
   * @throws the first error, when everything is closed
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close(): Promise<void> {
    const errors = new ErrorCollector();
    for (const backend of [...this.#state.backends].toReversed()) {
      await errors.try(() => backend.close());
    }
    const pinned = this.nodes().filter((node) => node.isPinned);
    for (const node of pinned) node.isPinned = false;
    for (const node of pinned.toReversed()) {
      if (node.isOpen && node.isUnused) await errors.try(() => closeNode(this.#state, node));
    }
    errors.throwFirst();
  }

  async #openNode(options: NodeOptions, how: GraphOpenOptions): Promise<BlockNode> {
    const { readOnly = false, allowProbing = false, forCheck = false, signal } = how;
    const users = how.permissions ?? plannedPermissions(options, readOnly);
    const opener = new Opener(this.#state, { allowProbing, forCheck, signal });
    return await opener.open(options, {
      role: "root",
      users,
      readOnly,
      depth: 0,
      chain: [],
      isTrusted: true,
    });
  }

  async #oneAtATime(work: () => Promise<void>): Promise<void> {
    const lease = await this.#activation.acquire();
    try {
      await work();
    } finally {
      lease.release();
    }
  }

  #refuseInactive(op: string): void {
    if (this.#handedOver !== undefined) throw inactiveError(op, "the graph");
  }

  #refuseClosed(op: string): void {
    if (this.#closing !== undefined) throw closedError(op, "the graph");
  }
}

/** What the backend to come will hold: it can write when neither it nor the node is read-only. */
function plannedPermissions(options: NodeOptions, readOnly: boolean): Permissions {
  return defaultPermissions(readOnly || booleanWord(options["read-only"]) === true);
}
