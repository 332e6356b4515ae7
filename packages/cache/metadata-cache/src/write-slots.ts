/**
 * Writing a sorted list of tables: neighbours together where the store can do that.
 *
 * Above: MetadataCache. Below: TableStore.
 *
 * 1. Each table is written once, in ascending order.
 * 2. A failed write does not keep the others from the disk: they are tried too, then the first error
 *    is thrown. A refusal by `beforeWrite` stops at once: the image is damaged, and each further
 *    write may damage it more.
 */
import { IoVector, type MaybePromise } from "@blocklayer/bytes";
import type { TableStore } from "./store.js";
import type { Slot } from "./table.js";

/** How many neighbouring tables go into one write. */
const MAX_RUN_TABLES = 256;

/** Looks at a range before it is written: throws to refuse, and may have the write wait. */
export type BeforeWrite = (hostOffset: number, lengthBytes: number) => MaybePromise<void>;

/** What the cache wants to know of a write. */
export interface SlotWriteHooks {
  /** The write of this table starts now. */
  begin(slot: Slot): void;
  /** It is over. */
  end(slot: Slot, failed: boolean): void;
}

/** Writes slots, which are sorted by host offset. */
export async function writeSlots(
  slots: readonly Slot[],
  store: TableStore,
  beforeWrite: BeforeWrite | undefined,
  hooks: SlotWriteHooks,
): Promise<void> {
  let failure: { readonly cause: unknown } | undefined;
  const maxRun = store.writev === undefined ? 1 : MAX_RUN_TABLES;
  for (let start = 0; start < slots.length; ) {
    const run = slots.slice(start, runEnd(slots, start, maxRun));
    start += run.length;
    const held = beforeWrite?.((run[0] as Slot).hostOffset, runLength(run));
    if (held instanceof Promise) await held;
    for (const slot of run) hooks.begin(slot);
    let failed = true;
    try {
      await writeRun(run, store);
      failed = false;
    } catch (error) {
      failure ??= { cause: error };
    }
    for (const slot of run) hooks.end(slot, failed);
  }
  if (failure !== undefined) throw failure.cause;
}

/** The index behind the last table of the run that begins at `start`. */
function runEnd(slots: readonly Slot[], start: number, maxRun: number): number {
  let end = start + 1;
  for (; end < slots.length && end - start < maxRun; end++) {
    const before = slots[end - 1] as Slot;
    if ((slots[end] as Slot).hostOffset !== before.hostOffset + before.bytes.length) break;
  }
  return end;
}

function runLength(run: readonly Slot[]): number {
  let lengthBytes = 0;
  for (const slot of run) lengthBytes += slot.bytes.length;
  return lengthBytes;
}

async function writeRun(run: readonly Slot[], store: TableStore): Promise<void> {
  const only = run[0] as Slot;
  if (run.length === 1 || store.writev === undefined) {
    await store.write(only.hostOffset, only.bytes);
    return;
  }
  await store.writev(only.hostOffset, IoVector.from(run.map((slot) => slot.bytes)));
}
