/**
 * A workload on a qcow2 image whose file fails once, at a chosen occurrence of an event; and what came of it.
 *
 * The stack is a real graph: backend, qcow2, blkdebug with an alignment of 512 bytes, a simulated disk with a
 * volatile cache that refuses unaligned requests.
 */
import { type AlignedArena, sharedArena } from "@blocklayer/aligned-io";
import {
  type BlockChild,
  type BlockDriver,
  type DebugEvent,
  directChild,
  type DriverDefinition,
  parseOptions,
} from "@blocklayer/block-api";
import { type BlockBackend, BlockGraph } from "@blocklayer/block-graph";
import { BlockError, IoVector } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { checkQcow2, openQcow2, qcow2Driver, readHeader } from "@blocklayer/qcow2";
import { ReferenceDisk, SimDisk, TrackedGuest } from "@blocklayer/sim";
import { blkdebugDriver } from "../../src/index.js";
import type { FaultGuest, FaultWorkload } from "./event-workloads.js";
import { withSnapshot } from "./snapshot-fixture.js";

const ALIGNMENT = 512;
/** A run that takes longer waits for something that never comes. */
const DEADLINE_MS = 20_000;
/** Flushes at the end: one may meet the fault that is still armed, the next must not. */
const FLUSHES = 3;

/** The errnos of blkdebug's options. */
export const ERRNOS = { EIO: 5, ENOSPC: 28 } as const;

/** Where a run is to fail: the first request to the file after the nth occurrence of an event. */
export interface EventFault {
  readonly event: DebugEvent;
  readonly nth: number;
  readonly code: keyof typeof ERRNOS;
}

/** What came of a run. */
export interface FaultOutcome {
  /** How often each event occurred, opening and closing included. */
  readonly events: ReadonlyMap<DebugEvent, number>;
  /** Requests that failed, and flushes. */
  readonly failures: number;
  /** Promises that were broken. */
  readonly problems: readonly string[];
}

/** An image for a workload, and what is on it. */
export interface Fixture {
  readonly workload: FaultWorkload;
  readonly image: Uint8Array;
  readonly content: Uint8Array;
}

/** Makes the image that every run of a workload begins with. */
export async function makeFixture(workload: FaultWorkload): Promise<Fixture> {
  const { create, grownBytes = create.size, before, snapshot = false } = workload;
  const memory = openMemory();
  const options = parseOptions(qcow2Driver.createOptions ?? {}, create, "qcow2");
  await qcow2Driver.create?.({ file: directChild(memory), options });
  const run = new FaultRun({ workload, image: memory.bytes, content: new Uint8Array(grownBytes) });
  if (before !== undefined) await run.use(before);
  const bytes = run.file.bytes;
  const image = snapshot ? withSnapshot(bytes) : bytes;
  const content = new Uint8Array(grownBytes);
  content.set(await contentOf(new SimDisk({ content: image }), workload));
  const problems = [...run.problems, ...(await findingsIn(image, true))];
  if (problems.length > 0) throw new Error(`${workload.name}: ${problems.join("; ")}`);
  return { workload, image, content };
}

/** Runs a workload, with a fault or without, to the end of what can be asked of it. */
export async function runWithFault(fixture: Fixture, fault?: EventFault): Promise<FaultOutcome> {
  const run = new FaultRun(fixture, fault);
  let timer: ReturnType<typeof setTimeout> | undefined;
  const deadline = new Promise<void>((resolve) => {
    timer = setTimeout(() => {
      run.problems.push("the run does not end");
      resolve();
    }, DEADLINE_MS);
  });
  await Promise.race([run.use(fixture.workload.run), deadline]);
  clearTimeout(timer);
  return { events: run.events, failures: run.failures, problems: run.problems };
}

class FaultRun {
  readonly file: SimDisk;
  readonly events = new Map<DebugEvent, number>();
  readonly problems: string[] = [];
  failures = 0;
  readonly #workload: FaultWorkload;
  readonly #fault: EventFault | undefined;
  readonly #reference: ReferenceDisk;
  readonly #arena: AlignedArena = sharedArena();

  constructor({ workload, image, content }: Fixture, fault?: EventFault) {
    this.#workload = workload;
    this.#fault = fault;
    this.#reference = new ReferenceDisk({ lengthBytes: content.length, content });
    this.file = new SimDisk({
      content: image,
      lengthBytes: Math.ceil(image.length / ALIGNMENT) * ALIGNMENT,
      limits: { requestAlignment: ALIGNMENT, memoryAlignment: ALIGNMENT },
    });
  }

  /** Opens the image, lets `work` use it, and looks at everything that was promised. */
  async use(work: (guest: FaultGuest) => Promise<void>): Promise<void> {
    const memoryBefore = this.#arena.usedBytes;
    const graph = new BlockGraph({ drivers: [this.#simDriver(), this.#listening(), qcow2Driver] });
    let backend: BlockBackend;
    try {
      backend = await graph.open(this.#nodeOptions());
    } catch (error) {
      this.#noteFailure(error);
      this.#expect(graph.nodes().length === 0, "what was opened is closed after a failed open");
      await this.#look(this.file.bytes, "after a failed open");
      return;
    }
    const guest = new TrackedGuest(backendAsDevice(backend), this.#reference);
    const attempt = (request: () => unknown): Promise<void> => this.#attempt(request);
    await work({
      write: (offset, bytes, compressed = false) =>
        attempt(() => guest.write(offset, bytes, { compressed })),
      zero: (offset, length, mayUnmap = false) =>
        attempt(() => guest.writeZeroes(offset, length, { mayUnmap })),
      discard: (offset, length) => attempt(() => guest.discard(offset, length)),
      flush: () => attempt(() => guest.flush()),
      truncate: (length) => attempt(() => backend.truncate(length)),
      vmState: (bytes) => attempt(() => this.#useVmState(backend, bytes)),
      readAll: () => attempt(() => this.#readAll(backend)),
    });
    await this.#attempt(() => this.#readAll(backend));
    await this.#finalFlushes(guest, backend);
    this.#lookAtRest(backend);
    await this.#close(backend, graph);
    this.#expect(this.#arena.usedBytes === memoryBefore, "every buffer is given back");
    await this.#look(this.file.bytes, "after close");
    await this.#look(this.file.durable, "after a crash at the end");
  }

  /** A flush fails, and the next one succeeds; or every one fails, with the node [C17]. */
  async #finalFlushes(guest: TrackedGuest, backend: BlockBackend): Promise<void> {
    const ends: boolean[] = [];
    for (let i = 0; i < FLUSHES; i++) {
      const before = this.failures;
      await this.#attempt(() => guest.flush());
      ends.push(this.failures === before);
      if (ends[i] === true) await this.#look(this.file.durable, `after flush ${i + 1}`);
    }
    const failed = this.#statistic(backend, "failed") === true;
    const said = `flushes ended ${ends.map((end) => (end ? "well" : "badly")).join(", ")}`;
    this.#expect(ends.every((end) => end !== failed) || !failed, `${said}: a failed node`);
    this.#expect(failed || ends.at(-1) === true, `${said}: a node that has not failed`);
    this.#expect(!ends.join().includes("true,false"), `${said}: a flush after a good one`);
  }

  #lookAtRest(backend: BlockBackend): void {
    const quiet = ["pendingAllocations", "requestsInFlight", "coolingClusters"];
    if (this.#statistic(backend, "failed") !== true) quiet.push("compressedCacheBuffers");
    for (const name of quiet) {
      this.#expect(this.#statistic(backend, name) === 0, `${name} is 0 at rest`);
    }
    this.#expect(this.#statistic(backend, "imageLocked") === false, "no lock is held at rest");
    this.#expect(backend.root.inFlight === 0, "no request is in flight at rest");
  }

  async #close(backend: BlockBackend, graph: BlockGraph): Promise<void> {
    const failed = this.#statistic(backend, "failed") === true;
    const before = this.failures;
    await this.#attempt(() => backend.close());
    const closed = this.failures === before;
    this.#expect(closed !== failed, `close ended ${closed ? "well" : "badly"}`);
    this.#expect(graph.nodes().length === 0, "close leaves no node");
  }

  /** Reads everything, also what lies behind a disk that did not grow: zeroes. */
  async #readAll(backend: BlockBackend): Promise<void> {
    const bytes = new Uint8Array(this.#reference.lengthBytes);
    bytes.set(await backend.read(0, backend.lengthBytes));
    this.#verify(() => this.#reference.check(bytes));
  }

  async #useVmState({ snapshots }: BlockBackend, bytes: Uint8Array): Promise<void> {
    const read = new Uint8Array(bytes.length);
    await snapshots?.writeVmState(0, IoVector.of(bytes));
    await snapshots?.readVmState(0, IoVector.of(read));
    this.#expect(Buffer.compare(read, bytes) === 0, "VM state reads as it was written");
  }

  /** Looks at an image as whoever opens it next: leaks at most, and what a crash may leave. */
  async #look(bytes: Uint8Array, when: string): Promise<void> {
    for (const finding of await findingsIn(bytes, this.failures === 0)) {
      this.problems.push(`${when}: ${finding}`);
    }
    try {
      const content = new Uint8Array(this.#reference.lengthBytes);
      content.set(await contentOf(new SimDisk({ content: bytes }), this.#workload));
      this.#verify(() => this.#reference.checkCrash(content, undefined, when));
    } catch (error) {
      this.problems.push(`${when}: ${messageOf(error)}`);
    }
  }

  #verify(check: () => void): void {
    try {
      check();
    } catch (error) {
      this.problems.push(messageOf(error));
    }
  }

  async #attempt(request: () => unknown): Promise<void> {
    try {
      await request();
    } catch (error) {
      this.#noteFailure(error);
    }
  }

  /** A request may fail because a fault was asked for, and only as requests fail. */
  #noteFailure(error: unknown): void {
    this.failures++;
    this.#expect(error instanceof BlockError, `a failure is a BlockError: ${messageOf(error)}`);
    this.#expect(this.#fault !== undefined, `nothing fails by itself: ${messageOf(error)}`);
  }

  #expect(holds: boolean, what: string): void {
    if (!holds) this.problems.push(`must hold: ${what}`);
  }

  #statistic(backend: BlockBackend, name: string): unknown {
    return backend.root.driver.statistics?.()[name];
  }

  #nodeOptions(): Record<string, unknown> {
    const { open = {}, backing } = this.#workload;
    return {
      driver: "qcow2",
      ...open,
      file: {
        driver: "blkdebug",
        align: ALIGNMENT,
        ...this.#rules(),
        image: { driver: "sim" },
      },
      ...(backing === undefined ? {} : { backing: { driver: "sim", below: true } }),
    };
  }

  /** A state for each occurrence of the event, and an error in the last. */
  #rules(): Record<string, unknown> {
    if (this.#fault === undefined) return {};
    const { event, nth, code } = this.#fault;
    const steps = Array.from({ length: nth - 1 }, (_, i) => ({
      event,
      state: i + 1,
      new_state: i + 2,
    }));
    const error = { event, state: nth, errno: ERRNOS[code], once: true };
    return { "inject-error": [error], ...(nth > 1 ? { "set-state": steps } : {}) };
  }

  /** blkdebug, with an ear at the events. */
  #listening(): DriverDefinition {
    return {
      ...blkdebugDriver,
      open: async (context): Promise<BlockDriver> => {
        const driver = await blkdebugDriver.open(context);
        const pass = driver.debugEvent?.bind(driver);
        Object.defineProperty(driver, "debugEvent", {
          value: (event: DebugEvent) => {
            this.events.set(event, (this.events.get(event) ?? 0) + 1);
            return pass?.(event);
          },
        });
        return driver;
      },
    };
  }

  #simDriver(): DriverDefinition {
    return {
      name: "sim",
      kind: "protocol",
      openOptions: { below: { type: "boolean", default: false, help: "The file below" } },
      open: ({ options }): BlockDriver =>
        options["below"] === true
          ? openMemory({ bytes: this.#workload.backing as Uint8Array, readOnly: true })
          : this.file,
    };
  }
}

function backendAsDevice(backend: BlockBackend): ConstructorParameters<typeof TrackedGuest>[0] {
  return {
    writev: (offset, source, options) => backend.writev(offset, source, options),
    writeZeroes: (offset, length, options) => backend.writeZeroes(offset, length, options),
    discard: (offset, length) => backend.discard(offset, length),
    flush: () => backend.flush(),
  };
}

/** What a check finds. Leaks count only where nothing has failed. */
async function findingsIn(bytes: Uint8Array, leaksCount: boolean): Promise<string[]> {
  const file = directChild(new SimDisk({ content: bytes }));
  const { findings } = await checkQcow2(file, await readHeader(file));
  const counted = leaksCount ? findings : findings.filter(({ severity }) => severity !== "leak");
  return counted.map(({ message }) => message);
}

async function contentOf(file: SimDisk, { backing }: FaultWorkload): Promise<Uint8Array> {
  const below: { backing?: BlockChild } =
    backing === undefined ? {} : { backing: directChild(openMemory({ bytes: backing })) };
  const disk = await openQcow2({ file: directChild(file), ...below, readOnly: true });
  const bytes = new Uint8Array(disk.lengthBytes);
  await disk.readv(0, IoVector.of(bytes));
  await disk.close();
  return bytes;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
