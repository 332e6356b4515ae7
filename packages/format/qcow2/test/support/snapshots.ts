/** Disks with snapshots: opened, read whole, and looked at one by one. */
import { type BlockChild, directChild } from "@blocklayer/block-api";
import { IoVector } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { checkQcow2, openQcow2, type Qcow2Driver, readHeader } from "../../src/index.js";

/** When every snapshot of the tests is taken. */
export const DATE = { dateSeconds: 1_700_000_000, dateNanoseconds: 123_456_789 } as const;

/** All bytes of a disk. */
export async function contentOf(disk: Qcow2Driver): Promise<Uint8Array> {
  const bytes = new Uint8Array(disk.lengthBytes);
  if (bytes.length > 0) await disk.readv(0, IoVector.of(bytes));
  return bytes;
}

/** All bytes of one snapshot, read through its view. */
export async function snapshotContent(
  file: BlockChild,
  options: Readonly<Record<string, string>>,
  backing?: BlockChild,
): Promise<Uint8Array> {
  const view = await openQcow2({
    file,
    readOnly: true,
    options,
    ...(backing === undefined ? {} : { backing }),
  });
  try {
    return await contentOf(view);
  } finally {
    await view.close();
  }
}

/** What a check of these bytes finds, in words. */
export async function findingsIn(bytes: Uint8Array): Promise<readonly string[]> {
  const file = directChild(openMemory({ bytes }));
  const result = await checkQcow2(file, await readHeader(file));
  return result.findings.map(({ message }) => message);
}

export function filled(lengthBytes: number, value: number): IoVector {
  return IoVector.of(new Uint8Array(lengthBytes).fill(value));
}
