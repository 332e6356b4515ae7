/** Records what a short run of a guest sends to an image's file, and looks at every state that a crash may leave. */
import { type BlockChild, directChild } from "@blocklayer/block-api";
import { IoVector } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import {
  type CrashState,
  crashStates,
  ReferenceDisk,
  SimDisk,
  Trace,
  TrackedGuest,
} from "@blocklayer/sim";
import { checkQcow2, openQcow2, type Qcow2Driver, readHeader } from "../../src/index.js";
import { createInMemory } from "./images.js";

/** A run, as small as what it has to show allows. */
export interface CrashScenario {
  /** Create options; `size` in bytes. */
  readonly create: Readonly<Record<string, unknown>> & { readonly size: number };
  readonly open?: Readonly<Record<string, unknown>>;
  /** Content of a backing file. */
  readonly backing?: Uint8Array;
  /** Length at the end, when the run makes the disk longer. */
  readonly grownBytes?: number;
  /** What is on the disk, durable, before the recording begins. */
  readonly before?: (guest: CrashGuest) => Promise<void>;
  readonly run: (guest: CrashGuest) => Promise<void>;
}

/** What a scenario works with. */
export interface CrashGuest {
  readonly disk: Qcow2Driver;
  readonly write: (offset: number, bytes: Uint8Array, compressed?: boolean) => Promise<void>;
  readonly zero: (offset: number, lengthBytes: number) => Promise<void>;
  readonly discard: (offset: number, lengthBytes: number) => Promise<void>;
  readonly read: (offset: number, lengthBytes: number) => Promise<void>;
  readonly flush: () => Promise<void>;
}

/** What the states of a run showed. */
export interface CrashOutcome {
  readonly states: number;
  /** One message for each state that breaks a promise, the bounded first of them. */
  readonly violations: readonly string[];
}

/** States at one point of a run, at most. Scenarios are small enough to have all of theirs looked at. */
const MAX_SUBSETS = 256;
const MAX_VIOLATIONS = 20;

/** Runs a scenario, and looks at what every crash leaves: leaks at most, and old or new bytes. */
export async function crashOutcome(scenario: CrashScenario): Promise<CrashOutcome> {
  const { create, grownBytes = create.size } = scenario;
  const image = await createInMemory(create);
  const reference = new ReferenceDisk({ lengthBytes: grownBytes });
  const file = new SimDisk({ content: image.bytes });
  if (scenario.before !== undefined) await useDisk(file, scenario, reference, scenario.before);
  const content = new Uint8Array(grownBytes);
  content.set(await contentOf(directChild(file), scenario));
  const trace = new Trace();
  const recorded = new SimDisk({ content: file.bytes, trace });
  const guestModel = new ReferenceDisk({ lengthBytes: grownBytes, content, trace });
  await useDisk(recorded, scenario, guestModel, scenario.run);
  const violations: string[] = [];
  let states = 0;
  for (const state of crashStates(trace, { maxSubsets: MAX_SUBSETS })) {
    states++;
    const violation = await violationOf(state, scenario, guestModel);
    if (violation !== undefined) violations.push(violation);
    if (violations.length >= MAX_VIOLATIONS) break;
  }
  return { states, violations };
}

async function useDisk(
  file: SimDisk,
  scenario: CrashScenario,
  reference: ReferenceDisk,
  work: (guest: CrashGuest) => Promise<void>,
): Promise<void> {
  const disk = await openQcow2({
    file: directChild(file),
    ...backingOf(scenario),
    options: scenario.open ?? {},
  });
  const flush = async (): Promise<void> => {
    await disk.flushToOs();
    await file.flushToDisk();
  };
  const guest = new TrackedGuest(
    {
      writev: (offset, source, options) => disk.writev(offset, source, options),
      writeZeroes: (offset, length, options) => disk.writeZeroes(offset, length, options),
      discard: (offset, length) => disk.discard(offset, length),
      flush,
    },
    reference,
  );
  await work({
    disk,
    write: async (offset, bytes, compressed = false) => guest.write(offset, bytes, { compressed }),
    zero: async (offset, length) => guest.writeZeroes(offset, length),
    discard: async (offset, length) => guest.discard(offset, length),
    read: async (offset, length) => disk.readv(offset, IoVector.allocate(length)),
    flush: async () => guest.flush(),
  });
  await disk.close();
}

function backingOf({ backing }: CrashScenario): { backing?: BlockChild } {
  return backing === undefined ? {} : { backing: directChild(openMemory({ bytes: backing })) };
}

async function contentOf(file: BlockChild, scenario: CrashScenario): Promise<Uint8Array> {
  const disk = await openQcow2({ file, ...backingOf(scenario), readOnly: true });
  try {
    const bytes = new Uint8Array(disk.lengthBytes);
    await disk.readv(0, IoVector.of(bytes));
    return bytes;
  } finally {
    await disk.close();
  }
}

/** What is wrong with a state, in words. A disk that is not longer yet counts as followed by zeroes. */
async function violationOf(
  state: CrashState,
  scenario: CrashScenario,
  reference: ReferenceDisk,
): Promise<string | undefined> {
  const file = directChild(state.open());
  try {
    const { findings } = await checkQcow2(file, await readHeader(file));
    const bad = findings.filter(({ severity }) => severity !== "leak");
    if (bad.length > 0) return `check: ${bad.map(({ message }) => message).join("; ")}`;
    const bytes = new Uint8Array(reference.lengthBytes);
    bytes.set(await contentOf(file, scenario));
    reference.checkCrash(bytes, state.position, state.describe());
    return undefined;
  } catch (error) {
    return `content: ${error instanceof Error ? error.message : String(error)}`;
  }
}
