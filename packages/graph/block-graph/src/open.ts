/**
 * Opening a tree of nodes from options: children first, then the driver.
 *
 * Above: BlockGraph. Below: the drivers' `open`, and attach.ts.
 *
 * 1. On failure everything that this call opened is closed again, in reverse order; the first error is thrown.
 * 2. A file that an image names is opened only through the open gate, and never probed.
 * 3. Probing happens only where the caller asked for it, for nodes that the caller described.
 * 4. A chain that comes back to a file of its own is refused, and so is one of more than MAX_CHAIN_DEPTH nodes.
 * 5. Permissions are planned from the top down, so that a byte store gets the right locks from the start.
 */
import { BlockError } from "@blocklayer/bytes";
import {
  type BackingReference,
  type BlockChild,
  type ChildRole,
  type OpenContext,
  parseOptions,
  type Permissions,
} from "@blocklayer/block-api";
import { attach } from "./attach.js";
import { ChildHandle } from "./child-handle.js";
import { closeNode } from "./close.js";
import type { GateRequest } from "./open-gate.js";
import type { GraphState } from "./graph-state.js";
import { BlockNode } from "./node.js";
import { type NodeOptions, type SplitOptions, splitOptions, unflattenOptions } from "./options.js";
import { childPermissions, NO_PERMISSIONS } from "./permissions.js";
import { refuseAborted } from "./request-checks.js";

/** The longest chain of nodes, counting every level: a hostile image cannot make us recurse further. */
export const MAX_CHAIN_DEPTH = 200;

/** What holds for a whole `open`. */
export interface OpenSettings {
  readonly allowProbing: boolean;
  /** The root is opened to be checked or repaired. */
  readonly forCheck: boolean;
  readonly signal: AbortSignal | undefined;
}

/** Where a node is to stand. */
export interface Placement {
  readonly role: ChildRole | "root";
  /** What its users will hold and share. */
  readonly users: Permissions;
  readonly readOnly: boolean;
  /** How many nodes stand above it. */
  readonly depth: number;
  /** The files on the way from the root. */
  readonly chain: readonly string[];
  /** The caller described it, so that it may be probed. */
  readonly isTrusted: boolean;
}

export class Opener {
  readonly #state: GraphState;
  readonly #settings: OpenSettings;

  constructor(state: GraphState, settings: OpenSettings) {
    this.#state = state;
    this.#settings = settings;
  }

  /**
   * Opens a node and everything below it. The caller attaches a user to it, or pins it, or closes it.
   *
   * @throws BlockError; nothing that was opened on the way is left
   */
  async open(given: NodeOptions, place: Placement): Promise<BlockNode> {
    refuseAborted("open", place.role, this.#settings.signal);
    if (place.depth >= MAX_CHAIN_DEPTH) {
      throw new BlockError("ELOOP", `open: the chain is more than ${MAX_CHAIN_DEPTH} nodes deep`, {
        op: "open",
      });
    }
    const options = await this.#choose(splitOptions(given), place);
    const definition = this.#state.registry.get(options.driver);
    const readOnly = options.readOnly ?? place.readOnly;
    await this.#refuseLoop(options, place.chain);
    const values = parseOptions(definition.openOptions, options.rest, definition.name);
    const node = new BlockNode({
      name: this.#state.reserveName(options.nodeName),
      definition,
      options: { ...given, driver: definition.name },
      values,
      readOnly,
      isReadOnlyFixed: options.readOnly !== undefined,
      arena: this.#state.arena,
    });
    node.granted = place.users;
    this.#state.nodes.set(node.name, node);
    const below: Below = { node, options, place, children: {}, isBackingTaken: false };
    try {
      await this.#openChildren(below);
      node.opened(await definition.open(this.#context(below, values)));
      refuseUnusedBacking(below);
    } catch (error) {
      await this.#abandon(node);
      throw error;
    }
    return node;
  }

  /** Fills in the driver: as given, by file name, or by probing. */
  async #choose(given: SplitOptions, place: Placement): Promise<ChosenOptions> {
    const { registry } = this.#state;
    const { filename } = given.rest;
    const isBare = given.file === undefined && typeof filename === "string";
    if (given.driver === undefined && isBare && isByteRole(place.role)) {
      const protocol = registry.protocolOf(filename);
      const { filename: _, ...others } = given.rest;
      const named = protocol.parseFilename?.(filename) ?? { filename };
      return { ...given, driver: protocol.name, rest: { ...named, ...others } };
    }
    const options = isBare ? this.#nestFilename(given, filename) : given;
    if (options.driver !== undefined) return { ...options, driver: options.driver };
    if (options.file === undefined) throw missing("option 'driver' is missing");
    if (!place.isTrusted || !this.#settings.allowProbing) {
      throw missing("option 'driver' is missing, and guessing the format is not allowed here");
    }
    const driver = await this.#probe(options.file, place);
    // A driver that takes every file (raw) must not let the guest write what the next probe would take for a format.
    const isWary = Object.hasOwn(registry.get(driver).openOptions, "probed");
    return { ...options, driver, rest: isWary ? { ...options.rest, probed: true } : options.rest };
  }

  /** `{ driver: "qcow2", filename }` means a `file` child of that name; a protocol keeps it. */
  #nestFilename(given: SplitOptions, filename: string): SplitOptions {
    if (given.driver !== undefined) {
      const definition = this.#state.registry.get(given.driver);
      if (Object.hasOwn(definition.openOptions, "filename")) return given;
    }
    const { filename: _, ...rest } = given.rest;
    return { ...given, file: { filename }, rest };
  }

  /** Looks at a file's first bytes through a node that takes no locks and goes again. */
  async #probe(file: NodeOptions | string, place: Placement): Promise<string> {
    const { registry } = this.#state;
    if (typeof file === "string") {
      return await this.#borrow(this.#state.find(file), (child) => registry.probe(child));
    }
    const { "node-name": _, ...anonymous } = unflattenOptions(file);
    const node = await this.open(anonymous, {
      ...place,
      role: "file",
      users: NO_PERMISSIONS,
      readOnly: true,
      depth: place.depth + 1,
    });
    try {
      return await this.#borrow(node, (child) => registry.probe(child));
    } finally {
      await closeNode(this.#state, node);
    }
  }

  async #borrow<T>(node: BlockNode, work: (child: BlockChild) => Promise<T>): Promise<T> {
    const edge = await attach({ label: "a format probe" }, "root", node, NO_PERMISSIONS);
    try {
      return await work(new ChildHandle(edge));
    } finally {
      node.parentEdges.delete(edge);
    }
  }

  /** Only byte stores have file names of their own. */
  async #refuseLoop(options: ChosenOptions, chain: readonly string[]): Promise<void> {
    const { filename } = options.rest;
    if (typeof filename !== "string") return;
    if (!chain.includes(await this.#identity(options.driver, filename))) return;
    throw new BlockError("ELOOP", `'${filename}': the chain of images comes back to this file`, {
      op: "open",
    });
  }

  /** The files from the root down to this node's own. */
  async #chainBelow({ node, place }: Below): Promise<readonly string[]> {
    let store: BlockNode | undefined = node;
    while (store.file !== undefined) store = store.file;
    const { filename } = store;
    if (filename === undefined) return place.chain;
    return [...place.chain, await this.#identity(store.driverName, filename)];
  }

  async #identity(driver: string, filename: string): Promise<string> {
    return `${driver}:${await this.#state.resolveFilename(filename)}`;
  }

  async #openChildren(below: Below): Promise<void> {
    const { definition, name } = below.node;
    const { file, dataFile, backing } = below.options;
    if (definition.kind === "protocol") {
      if (file === undefined && dataFile === undefined && backing === undefined) return;
      throw missing(`node '${name}': driver '${definition.name}' takes no children`);
    }
    const role = definition.kind === "filter" ? "filtered" : "file";
    if (file === undefined) {
      throw missing(`node '${name}': driver '${definition.name}' needs the option 'file'`);
    }
    await this.#openChild(below, role, file, true);
    if (dataFile !== undefined) await this.#openChild(below, "data-file", dataFile, true);
    if (backing !== undefined && backing !== null) {
      await this.#openChild(below, "backing", backing, true);
    }
  }

  /** Opens or finds a child, and gives the driver its handle. */
  async #openChild(
    below: Below,
    role: ChildRole,
    options: NodeOptions | string,
    isTrusted: boolean,
  ): Promise<BlockChild> {
    const { node, place } = below;
    const users = childPermissions(node.definition, role, node.writable, place.users);
    const child =
      typeof options === "string"
        ? this.#state.find(options)
        : await this.open(options, {
            // What a filter passes through is what the node above it wants: a byte store, or a format.
            role: role === "filtered" && isByteRole(place.role) ? "file" : role,
            users,
            readOnly: role === "backing" || node.readOnly,
            depth: place.depth + 1,
            chain: isBelow(role) ? await this.#chainBelow(below) : place.chain,
            isTrusted: isTrusted && place.isTrusted,
          });
    try {
      const edge = await attach({ label: `node '${node.name}'`, node }, role, child, users);
      const handle = new ChildHandle(edge);
      below.children[role] = handle;
      return handle;
    } catch (error) {
      if (typeof options !== "string") await closeNode(this.#state, child);
      throw error;
    }
  }

  #context(below: Below, options: OpenContext["options"]): OpenContext {
    const { node, place } = below;
    const { signal, forCheck } = this.#settings;
    return {
      nodeName: node.name,
      readOnly: node.readOnly,
      forCheck: forCheck && place.role === "root",
      options,
      permissions: place.users,
      children: watchBacking(below),
      openBacking: (reference) => this.#openBacking(below, reference),
      openDataFile: (reference) => this.#openDataFile(below, reference),
      ...(signal === undefined ? {} : { signal }),
    };
  }

  async #openBacking(below: Below, reference: BackingReference): Promise<BlockChild | undefined> {
    below.isBackingTaken = true;
    if (below.children.backing !== undefined) return below.children.backing;
    if (below.options.backing === null) return undefined;
    const options = await this.#ask(below.node, "backing", reference);
    return options === null ? undefined : await this.#openChild(below, "backing", options, false);
  }

  async #openDataFile(below: Below, reference: BackingReference): Promise<BlockChild> {
    const given = below.children["data-file"];
    if (given !== undefined) return given;
    const options = await this.#ask(below.node, "data-file", reference);
    if (options !== null) return await this.#openChild(below, "data-file", options, false);
    throw new BlockError(
      "EACCES",
      `node '${below.node.name}': its data file '${reference.filename}' was not given`,
      { op: "open", node: below.node.name },
    );
  }

  async #ask(
    node: BlockNode,
    kind: GateRequest["kind"],
    reference: BackingReference,
  ): Promise<NodeOptions | null> {
    const { filename, format } = reference;
    const request: GateRequest = {
      kind,
      filename,
      image: node.filename ?? node.name,
      ...(format === undefined ? {} : { format }),
    };
    return await this.#state.openGate(request);
  }

  /** Undoes a node that did not come to stand. */
  async #abandon(node: BlockNode): Promise<void> {
    try {
      await closeNode(this.#state, node);
    } catch {
      // The error that brought us here is the one to report.
    }
  }
}

/** A node on its way, and what stands below it already. */
interface Below {
  readonly node: BlockNode;
  readonly options: ChosenOptions;
  readonly place: Placement;
  readonly children: Partial<Record<ChildRole, BlockChild>>;
  /** The driver looked at the backing file that the user gave. */
  isBackingTaken: boolean;
}

type ChosenOptions = SplitOptions & { readonly driver: string };

/** These roles hold bytes, not formats: their names mean protocols. */
function isByteRole(role: Placement["role"]): boolean {
  return role === "file" || role === "data-file";
}

/** These roles name files besides the node's own, so a chain can come back through them. */
function isBelow(role: ChildRole): boolean {
  return role === "backing" || role === "data-file";
}

function missing(message: string): BlockError {
  return new BlockError("EINVAL", message, { op: "open" });
}

/** The children for the driver. Whether it looks at `backing` tells whether the disk shows it. */
function watchBacking(below: Below): OpenContext["children"] {
  const { backing, ...others } = below.children;
  if (backing === undefined) return others;
  return {
    ...others,
    get backing(): BlockChild {
      below.isBackingTaken = true;
      return backing;
    },
  };
}

/** A backing file that the user gave and the driver ignores would be data that silently is not there. */
function refuseUnusedBacking({ node, options, isBackingTaken }: Below): void {
  if (options.backing === undefined || options.backing === null) return;
  if (isBackingTaken && node.driver.capabilities.backing) return;
  throw missing(`node '${node.name}': driver '${node.driverName}' makes no use of a backing file`);
}
