/**
 * Making a snapshot.
 *
 * Above: control.ts. Below: the other files of this folder, refcount/adjust.ts.
 *
 * Order on disk [C13], each step durable before the next:
 *   1. a copy of the active L1 table, and every refcount that it needs raised;
 *   2. COPIED cleared in the active tables: from here on writes copy;
 *   3. the snapshot table with the new entry, then the header that names it.
 * A crash before 3 leaves leaks, and in 2 flags that are not what the refcounts say. Both are harmless: no table on
 * disk shares the clusters yet, so a write in place and a write that copies are equally right.
 *
 * What has no room in a refcount, or cannot be believed, is found out before anything is changed.
 */
import type { SnapshotCreateOptions } from "@blocklayer/block-api";
import { BlockError, encodeName } from "@blocklayer/bytes";
import { ENTRY_BYTES, type HostOffset } from "../geometry.js";
import type { Qcow2Image } from "../image.js";
import type { L1Table } from "../mapping/l1-table.js";
import { allocateClusters } from "../refcount/allocate.js";
import { type Progress, lowerBy, raiseBy, refuseRaise } from "../refcount/adjust.js";
import { DamageError } from "../refcount/damage.js";
import { lowerAfterFailure } from "../refcount/free.js";
import { madeBut } from "./change.js";
import { clearCopiedInL2, rewriteL1, setCopied, withoutCopied } from "./copied.js";
import { addReferences, refcountFull, References } from "./references.js";
import { loadSnapshotTable, refuseTooLong, replaceTable } from "./stored-table.js";
import { encodeEntry, MAX_NAME_BYTES, type SnapshotEntry } from "./table.js";
import { dropVmState } from "./vm-state.js";

const OP = "create snapshot";
/** The greatest id that is counted on from: ids have at most 127 bytes, and QEMU reads them as 64 bits. */
const MAX_COUNTED_ID: bigint = 2n ** 63n;

/** Makes a snapshot of the disk as it is. Requires: see change.ts. */
export async function createSnapshot(
  image: Qcow2Image,
  options: SnapshotCreateOptions,
): Promise<SnapshotEntry> {
  refuseBadOptions(options);
  const table = await loadSnapshotTable(image.file, image.header);
  const { l1 } = image;
  const entry = (l1TableOffset: HostOffset): SnapshotEntry =>
    encodeEntry({
      id: nextId(table.entries),
      name: options.name,
      l1TableOffset,
      l1Size: l1.entryCount,
      dateSeconds: options.dateSeconds,
      dateNanoseconds: options.dateNanoseconds,
      vmClockNanoseconds: options.vmClockNanoseconds ?? 0n,
      vmStateBytes: BigInt(options.vmStateBytes ?? 0),
      icount: options.icount ?? 0n,
      diskBytes: image.geometry.virtualSize,
    });
  refuseTooLong([...table.entries, entry(0)], OP);
  const references = new References(image, OP);
  await addReferences(image, references, l1);
  await refuseRaise(image, references.counters, (cluster) => refcountFull(image, cluster, OP));
  const copy = await writeCopy(image, l1);
  const progress: Progress = { done: 0 };
  const made = entry(copy);
  try {
    await raiseBy(image, references.counters, progress);
    await image.refcounts.flush();
    await clearCopiedInL2(image, l1);
    await image.l2.flush();
    await rewriteL1(image, withoutCopied(l1, l1.hostOffset, l1.entryCount));
    await image.sync();
    await replaceTable(image, table, [...table.entries, made]);
  } catch (error) {
    // Damage is left as it was found: each further write may add to it.
    const mayUndo = image.failure === undefined && !(error instanceof DamageError);
    if (mayUndo) await undo(image, l1, copy, references, progress);
    throw error;
  }
  try {
    if (made.vmStateBytes > 0n) await dropVmState(image);
  } catch (error) {
    throw madeBut(`${OP}: the snapshot is made`, error);
  }
  return made;
}

function refuseBadOptions({ name, vmStateBytes = 0, ...numbers }: SnapshotCreateOptions): void {
  const refuse = (rule: string): never => {
    throw new BlockError("EINVAL", `${OP}: ${rule}`, { op: OP });
  };
  const nameBytes = encodeName(name).length;
  if (nameBytes > MAX_NAME_BYTES) {
    refuse(
      `the name has ${nameBytes} bytes, and ${MAX_NAME_BYTES} are allowed: choose a shorter one`,
    );
  }
  if (name.includes("\0")) refuse("the name holds a zero byte");
  const isWhole = (value: number, end: number): boolean =>
    Number.isSafeInteger(value) && value >= 0 && value < end;
  const { dateSeconds, dateNanoseconds, vmClockNanoseconds = 0n, icount = 0n } = numbers;
  if (!isWhole(dateSeconds, 2 ** 32)) refuse(`date ${dateSeconds} s is not within 32 bits`);
  if (!isWhole(dateNanoseconds, 1e9)) refuse(`${dateNanoseconds} ns are not below a second`);
  if (!isWhole(vmStateBytes, Infinity)) refuse(`${vmStateBytes} bytes of VM state are no length`);
  if (vmClockNanoseconds < 0n || vmClockNanoseconds >= 2n ** 64n) {
    refuse(`VM clock ${vmClockNanoseconds} ns is not within 64 bits`);
  }
  if (icount < -(2n ** 63n) || icount >= 2n ** 63n)
    refuse(`icount ${icount} is not within 64 bits`);
}

/** One more than the greatest number among the ids, as in QEMU. */
function nextId(entries: readonly SnapshotEntry[]): string {
  let greatest = 0n;
  for (const { id } of entries) {
    const number = BigInt(/^\s*\+?(\d{1,20})/.exec(id)?.[1] ?? 0);
    if (number > greatest && number < MAX_COUNTED_ID) greatest = number;
  }
  return String(greatest + 1n);
}

/** The snapshot's own L1 table: as the disk's is now. @returns 0 when that has no entries */
async function writeCopy(image: Qcow2Image, l1: L1Table): Promise<HostOffset> {
  const bytes = l1.encode();
  if (bytes.length === 0) return 0;
  const copy = await allocateClusters(image, Math.ceil(bytes.length * image.perCluster));
  try {
    await image.writeTable(copy, bytes, 0);
  } catch (error) {
    await lowerAfterFailure(image, copy, bytes.length);
    throw error;
  }
  return copy;
}

/** Nothing on disk names the snapshot: what was raised for it is lowered, as well as that can be done now. */
async function undo(
  image: Qcow2Image,
  l1: L1Table,
  copy: HostOffset,
  { counters }: References,
  { done }: Progress,
): Promise<void> {
  await lowerAfterFailure(image, copy, l1.entryCount * ENTRY_BYTES);
  try {
    await lowerBy(image, counters, "never", done);
    await image.refcounts.flush();
    await setCopied(image, counters);
  } catch {
    // Leaks, and flags that a check corrects: see above.
  }
}
