/**
 * A node of the graph: one open driver, its children, its users, and the state of its requests.
 *
 * Above: edges from parent nodes and from backends. Below: the driver, which knows its children as ChildHandles.
 *
 * 1. A node is *opening* until its driver stands, then *open*, then *closed*; it never goes back.
 * 2. No request overlaps `truncate`, a change of snapshots, `reopen` or the driver's `close`: each of them drains the node first. What runs
 *    inside such a section calls the driver itself, never a method of its own node.
 * 3. `parents` and `children` change only in attach.ts.
 */
import {
  assert,
  BlockError,
  type MaybePromise,
  UnsupportedError,
  andThen,
} from "@blocklayer/bytes";
import type { AlignedArena } from "@blocklayer/aligned-io";
import { CoMutex } from "@blocklayer/co-lock";
import {
  type BlockDriver,
  type ChildRole,
  type DebugEvent,
  type DriverDefinition,
  type CheckOptions,
  type CheckResult,
  PERMISSION,
  type Permissions,
  type RequestOptions,
  type TruncateOptions,
} from "@blocklayer/block-api";
import type { Edge } from "./edge.js";
import { FlushWalk } from "./flush.js";
import { NodeIo } from "./node-io.js";
import type { NodeOptions } from "./options.js";
import { combine, NO_PERMISSIONS } from "./permissions.js";
import { abortable, closedError, refuseAborted } from "./request-checks.js";
import { RequestTracker } from "./request-tracker.js";

/** The order in which children are flushed, closed, and listed. */
export const CHILD_ROLES: readonly ChildRole[] = ["data-file", "file", "filtered", "backing"];

const WRITE_PERMISSIONS: number = PERMISSION.write | PERMISSION.writeUnchanged;

/** What a node is made of, before its driver stands. */
export interface NodePlan {
  readonly name: string;
  readonly definition: DriverDefinition;
  /** As given, with children nested. */
  readonly options: NodeOptions;
  /** The driver's own options, checked, with defaults. */
  readonly values: Readonly<Record<string, unknown>>;
  readonly readOnly: boolean;
  /** `read-only` was said for this very node: a reopen of its parent leaves it alone. */
  readonly isReadOnlyFixed: boolean;
  readonly arena: AlignedArena;
}

export class BlockNode {
  readonly name: string;
  readonly definition: DriverDefinition;
  readonly options: NodeOptions;
  /** @internal */
  readonly arena: AlignedArena;
  /** @internal */
  readonly tracker: RequestTracker;
  /** @internal */
  readonly parentEdges: Set<Edge> = new Set();
  /** @internal */
  readonly childEdges: Map<ChildRole, Edge> = new Map();
  /** Somebody asked for the node itself, so that it stays when its last user goes. @internal */
  isPinned = false;
  /** Handed over to another process: see activation.ts. @internal */
  isInactive = false;
  /** What the driver was last told that its users hold and share. @internal */
  granted: Permissions = NO_PERMISSIONS;
  /** @internal */
  writable: boolean;
  /** @internal */
  readonly isReadOnlyFixed: boolean;
  readonly #flushWalk: FlushWalk;
  readonly #sections: CoMutex = new CoMutex();
  #values: Readonly<Record<string, unknown>>;
  #driver: BlockDriver | undefined = undefined;
  #io: NodeIo | undefined = undefined;
  #closed = false;

  /** @internal */
  constructor(plan: NodePlan) {
    this.name = plan.name;
    this.tracker = new RequestTracker(plan.name);
    this.definition = plan.definition;
    this.options = plan.options;
    this.arena = plan.arena;
    this.writable = !plan.readOnly;
    this.isReadOnlyFixed = plan.isReadOnlyFixed;
    this.#values = plan.values;
    this.#flushWalk = new FlushWalk(this);
  }

  /** The driver's options as they are now, with defaults. @internal */
  get values(): Readonly<Record<string, unknown>> {
    return this.#values;
  }

  /** @internal */
  opened(driver: BlockDriver): void {
    assert(this.#driver === undefined, "a node opens once");
    this.#driver = driver;
    this.#io = new NodeIo(this);
  }

  /** The open driver: for what only it can do (`formatInfo`, `check`, the methods of its class). */
  get driver(): BlockDriver {
    if (this.#driver !== undefined) return this.#driver;
    throw new BlockError("EBUSY", `node '${this.name}' is still being opened`, { node: this.name });
  }

  /** @internal */
  get io(): NodeIo {
    assert(this.#io !== undefined, "the node is open");
    return this.#io;
  }

  /** The name of its driver: `qcow2`, `file`. */
  get driverName(): string {
    return this.definition.name;
  }

  get readOnly(): boolean {
    return !this.writable;
  }

  get isOpen(): boolean {
    return this.#driver !== undefined && !this.#closed;
  }

  /** Current length of the disk that the node presents, in bytes. */
  get lengthBytes(): number {
    return this.driver.lengthBytes;
  }

  /** The node that holds this one's bytes, if it has one: its `file`, or what it filters. */
  get file(): BlockNode | undefined {
    return this.child("file") ?? this.child("filtered");
  }

  /** The node that shows where this one has nothing. */
  get backing(): BlockNode | undefined {
    return this.child("backing");
  }

  /** The children by role. */
  get children(): ReadonlyMap<ChildRole, BlockNode> {
    const children = new Map<ChildRole, BlockNode>();
    for (const role of CHILD_ROLES) {
      const node = this.child(role);
      if (node !== undefined) children.set(role, node);
    }
    return children;
  }

  /** The nodes that use this one, without the backends. */
  get parents(): readonly BlockNode[] {
    const parents: BlockNode[] = [];
    for (const { parent } of this.parentEdges)
      if (parent.node !== undefined) parents.push(parent.node);
    return parents;
  }

  /** The child in a role. */
  child(role: ChildRole): BlockNode | undefined {
    return this.childEdges.get(role)?.node;
  }

  /** The name of the file at the bottom, as it was opened; `undefined` for stores without one. */
  get filename(): string | undefined {
    const { filename } = this.options;
    return typeof filename === "string" ? filename : this.file?.filename;
  }

  /** What all users together hold and share. */
  get permissions(): Permissions {
    return combine([...this.parentEdges].map((edge) => edge.permissions));
  }

  /** @internal */
  get mayResize(): boolean {
    return (this.permissions.held & PERMISSION.resize) !== 0;
  }

  /** Whether nothing keeps the node from being closed. @internal */
  get isUnused(): boolean {
    return !this.isPinned && this.parentEdges.size === 0;
  }

  /** How many requests have begun and not ended. */
  get inFlight(): number {
    return this.tracker.inFlight;
  }

  /**
   * Makes every write that has ended survive a crash: this node, and what it writes below it. See flush.ts.
   *
   * @throws what the driver throws; the next flush tries again
   */
  flush(options?: RequestOptions): MaybePromise<void> {
    refuseAborted("flush", this.name, options?.signal);
    const { tracker } = this;
    if (!tracker.clear) {
      return tracker.runSlowly("flush", 0, 0, false, options?.signal, () =>
        this.#flushWalk.flush(),
      );
    }
    return this.flushWithin(options);
  }

  /** The flush for a request in flight, which a drain would wait for. @internal */
  flushWithin(options?: RequestOptions): MaybePromise<void> {
    const { tracker } = this;
    const request = tracker.begin("flush", 0, 0, false);
    try {
      const result = tracker.settle(request, this.#flushWalk.flush());
      return result instanceof Promise
        ? abortable(result, "flush", this.name, options?.signal)
        : result;
    } catch (error) {
      tracker.end(request, false);
      throw error;
    }
  }

  /** The flush inside a drained section. Holds: the drain. @internal */
  flushDrained(): MaybePromise<void> {
    return this.#flushWalk.flush();
  }

  /** Who hears of the steps of a flush: the driver of the main child, if it listens. @internal */
  get flushListener(): ((event: DebugEvent) => MaybePromise<void>) | undefined {
    const driver = this.file?.driver;
    return driver?.debugEvent?.bind(driver);
  }

  /** @internal */
  childFlushes(): readonly (() => MaybePromise<void>)[] {
    const flushes: (() => MaybePromise<void>)[] = [];
    for (const role of CHILD_ROLES) {
      const edge = this.childEdges.get(role);
      if (edge === undefined || (edge.permissions.held & WRITE_PERMISSIONS) === 0) continue;
      flushes.push(() => edge.node.flush());
    }
    return flushes;
  }

  /**
   * Lets no request begin at this node, and resolves when none is in flight. Every drain is followed by one
   * `resume()`. Requests that come meanwhile wait.
   */
  async drain(): Promise<void> {
    await this.tracker.drain();
  }

  /** Undoes one `drain()`. */
  resume(): void {
    this.tracker.resume();
  }

  /** Sets the length, while nothing else runs at the node. @internal */
  truncate(lengthBytes: number, options?: TruncateOptions): MaybePromise<void> {
    this.refuseClosed("truncate");
    if (!this.driver.capabilities.write || !this.driver.capabilities.truncate) {
      const message = `node '${this.name}': driver '${this.driverName}' cannot change the length`;
      const code = this.writable ? "ENOTSUP" : "EPERM";
      throw new BlockError(code, message, { op: "truncate", node: this.name });
    }
    return this.whileDrained(() => {
      this.refuseClosed("truncate");
      refuseAborted("truncate", this.name, options?.signal);
      return settled(
        () => this.driver.truncate(lengthBytes, options),
        () => {
          this.tracker.writeGeneration++;
        },
      );
    });
  }

  /**
   * Looks for broken metadata. A repair runs while nothing else does at the node.
   *
   * @throws UnsupportedError when the driver has no checks; what it throws
   * @internal
   */
  check(options: CheckOptions): MaybePromise<CheckResult> {
    this.refuseClosed("check");
    const { driver } = this;
    if (driver.check === undefined) {
      throw new UnsupportedError(`format '${this.driverName}' has no checks`, {
        op: "check",
        node: this.name,
      });
    }
    if (options.fix === undefined) return driver.check(options);
    return this.whileDrained(() => {
      this.refuseClosed("check");
      return settled(
        () => driver.check?.(options) as MaybePromise<CheckResult>,
        () => {
          this.tracker.writeGeneration++;
        },
      );
    });
  }

  /** Runs `work` while the node is at rest, one after the other. @internal */
  whileDrained<T>(work: () => MaybePromise<T>): MaybePromise<T> {
    return andThen(this.#sections.acquire(), (lease) =>
      settled(
        () => andThen(this.tracker.drain(), work),
        () => {
          this.tracker.resume();
          lease.release();
        },
      ),
    );
  }

  /** For what had to wait, and may find the node closed. @throws BlockError `ECLOSED` @internal */
  refuseClosed(op: string): void {
    if (this.#closed) throw closedError(op, `node '${this.name}'`);
  }

  /** Nobody finds the node by its name any more. @internal */
  closing(): void {
    this.#closed = true;
  }

  /** Nothing reaches the driver any more. Holds: the drain. @internal */
  closed(): void {
    this.tracker.close(closedError("a request", `node '${this.name}'`));
  }

  /**
   * What the driver has become. Holds: the drain.
   *
   * @throws BlockError `ENOTSUP` when the arena has no memory as aligned as the driver wants it; as before then
   * @internal
   */
  reopened(
    readOnly: boolean,
    changed: Readonly<Record<string, unknown>>,
    permissions: Permissions,
  ): void {
    // First, since it may refuse.
    this.io.limitsChanged();
    this.writable = !readOnly;
    this.granted = permissions;
    this.#values = { ...this.#values, ...changed };
  }

  /** Counters of the node, and those of its driver; one that both have is `driver.<name>` for the driver. */
  statistics(): Readonly<Record<string, number | boolean | string>> {
    const merged: Record<string, number | boolean | string> = {
      ...this.tracker.counters,
      inFlight: this.tracker.inFlight,
    };
    for (const [name, value] of Object.entries(this.driver.statistics?.() ?? {})) {
      merged[Object.hasOwn(merged, name) ? `driver.${name}` : name] = value;
    }
    return merged;
  }
}

/** Runs `after` once `work` has ended, well or not, at once when it did so without waiting. */
function settled<T>(work: () => MaybePromise<T>, after: () => void): MaybePromise<T> {
  let result: MaybePromise<T>;
  try {
    result = work();
  } catch (error) {
    after();
    throw error;
  }
  if (result instanceof Promise) return result.finally(after);
  after();
  return result;
}
