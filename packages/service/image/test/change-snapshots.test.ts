import { qcow2Driver } from "@blocklayer/qcow2";
import { rawDriver } from "@blocklayer/raw";
import { expect, test } from "vitest";
import {
  applySnapshot,
  createImage,
  createSnapshot,
  deleteSnapshot,
  listSnapshots,
  openImage,
} from "../src/index.js";
import { Files } from "./support/files.js";

async function setUp() {
  const files = new Files();
  const drivers = [files.driver, rawDriver, qcow2Driver];
  await createImage({ drivers, filename: "q", format: "qcow2", sizeBytes: 1 << 20 });
  files.put("r", new Uint8Array(512));
  return { files, drivers };
}

test("snapshots must be made, shown, applied and deleted, by name and by id", async () => {
  const { drivers } = await setUp();
  const ones = new Uint8Array(4096).fill(1);
  const twos = new Uint8Array(4096).fill(2);
  {
    await using disk = await openImage("q", { drivers, readOnly: false });
    await disk.write(0, ones);
    const made = await createSnapshot(disk, "one", { dateMs: 1_700_000_000_250 });
    expect(made).toMatchObject({ id: "1", dateSeconds: 1_700_000_000, dateNanoseconds: 25e7 });
    await disk.write(0, twos);
    await createSnapshot(disk, "two");
    expect(await listSnapshots(disk)).toMatchObject([
      { id: "1", name: "one", "date-sec": 1_700_000_000, "vm-state-size": 0, icount: 0 },
      { id: "2", name: "two" },
    ]);
  }
  for (const [snapshot, value] of [
    ["one", 1],
    ["2", 2],
    [{ id: "1" }, 1],
    [{ name: "two" }, 2],
  ] as const) {
    await using shown = await openImage("q", { drivers, snapshot });
    expect((await shown.read(0, 1))[0]).toBe(value);
  }
  await using disk = await openImage("q", { drivers, readOnly: false });
  await applySnapshot(disk, "one");
  expect(await disk.read(0, 4096)).toEqual(ones);
  await deleteSnapshot(disk, { name: "one" });
  await expect(applySnapshot(disk, "one")).rejects.toMatchObject({ code: "ENOENT" });
  expect(await listSnapshots(disk)).toHaveLength(1);
});

test("openImage() must refuse a snapshot that it cannot show, and say why", async () => {
  const { drivers } = await setUp();
  const cases = [
    ["q", "none", true, "ENOENT", /'none' was not found/],
    ["q", "none", false, "EINVAL", /read-only/],
    ["r", "none", true, "ENOTSUP", /'raw' cannot show/],
  ] as const;
  for (const [name, snapshot, readOnly, code, message] of cases) {
    const opening = openImage(name, { drivers, snapshot, readOnly });
    await expect(opening).rejects.toMatchObject({ code, op: "load snapshot" });
    await expect(opening).rejects.toThrow(message);
  }
});

test("a format without snapshots must list none, and refuse the rest by name", async () => {
  const { drivers } = await setUp();
  await using disk = await openImage("r", { drivers, readOnly: false });
  expect(await listSnapshots(disk)).toEqual([]);
  for (const work of [
    () => createSnapshot(disk, "a"),
    () => applySnapshot(disk, "a"),
    () => deleteSnapshot(disk, "a"),
  ]) {
    await expect(work()).rejects.toThrow("format 'raw' keeps no internal snapshots");
  }
});
