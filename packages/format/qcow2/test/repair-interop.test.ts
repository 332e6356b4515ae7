/** Repairs beside qemu-img's: counts found, counts mended, exit codes, and what is left. */
import { execFile } from "node:child_process";
import { copyFile, readFile, writeFile } from "node:fs/promises";
import type { CheckResult, RepairKind } from "@blocklayer/block-api";
import { promisify } from "node:util";
import { directChild } from "@blocklayer/block-api";
import { openMemory } from "@blocklayer/memory";
import { expect, test } from "vitest";
import { readHeader } from "../src/index.js";
import { bitmapsExtensionIn } from "../src/header/extensions.js";
import { repairQcow2 } from "../src/repair/repair.js";
import { BROKEN, type BrokenImage } from "./support/broken-images.js";
import { lostIn, viewAll } from "./support/guest-view.js";
import { describeWithQemu, qemuImg, useScratch } from "./support/qemu.js";

/** What qemu-img mends as we do, so that every number must agree. */
const ALIKE: ReadonlySet<string> = new Set([
  "leaked clusters",
  "a refcount that is too high",
  "a refcount that is too low, and COPIED flags with it",
  "a COPIED flag that is missing",
  "a COPIED flag that is missing in the L1 table",
  "a refcount of 0 for a cluster in use",
  "a refcount table without its block",
  "a refcount block that is named twice",
  "a snapshot without the extra data that version 3 requires",
]);

/** What qemu-img's `-r leaks` ends with EIO at, and we with a check error: exit code 1 for both. */
interface Outcome {
  readonly code: number;
  readonly corruptionsFixed: number;
  readonly leaksFixed: number;
  readonly corruptions: number;
  readonly leaks: number;
}

function exitCodeOf({ checkErrors, corruptions, leaks }: CheckResult): number {
  if (checkErrors > 0) return 1;
  if (corruptions > 0) return 2;
  return leaks > 0 ? 3 : 0;
}

async function ours(bytes: Uint8Array, fix: RepairKind): Promise<[Outcome, Uint8Array]> {
  const memory = openMemory({ bytes: bytes.slice() });
  const file = directChild(memory);
  const { result } = await repairQcow2(file, await readHeader(file), { fix });
  const { corruptionsFixed = 0, leaksFixed = 0, corruptions, leaks } = result;
  const outcome = { code: exitCodeOf(result), corruptionsFixed, leaksFixed, corruptions, leaks };
  return [outcome, memory.bytes];
}

async function theirs(name: string, fix: RepairKind): Promise<Outcome | number> {
  const { code, stdout } = await qemuImg("check", "-r", fix, "--output=json", "-f", "qcow2", name);
  if (!stdout.startsWith("{")) return code;
  const json = JSON.parse(stdout) as Record<string, number>;
  return {
    code,
    corruptionsFixed: json["corruptions-fixed"] ?? 0,
    leaksFixed: json["leaks-fixed"] ?? 0,
    corruptions: json["corruptions"] ?? 0,
    leaks: json["leaks"] ?? 0,
  };
}

describeWithQemu("repairQcow2() beside qemu-img check -r", () => {
  const scratch = useScratch();

  async function onDisk({ bytes }: BrokenImage): Promise<string> {
    const name = scratch("broken");
    await writeFile(name, bytes());
    return name;
  }

  test.each(BROKEN.filter(({ name }) => ALIKE.has(name)))(
    "must count and mend as qemu-img does: $name",
    async (broken) => {
      for (const fix of ["leaks", "all"] as const) {
        const name = await onDisk(broken);
        const expected = await theirs(name, fix);
        const [outcome] = await ours(broken.bytes(), fix);
        if (typeof expected === "number")
          expect({ fix, code: outcome.code }).toEqual({ fix, code: expected });
        else expect({ fix, ...outcome }).toEqual({ fix, ...expected });
      }
    },
  );

  test.each(BROKEN)(
    "must leave what qemu-img finds clean, and show the same: $name",
    async (broken) => {
      const before = await viewAll(broken.bytes());
      const [outcome, repaired] = await ours(broken.bytes(), "all");
      expect(outcome).toMatchObject({ code: 0, corruptions: 0, leaks: 0 });
      const after = await viewAll(repaired);
      for (const [who, view] of before) {
        expect({ who, lost: lostIn(view, after.get(who) ?? new Map()) }).toEqual({ who, lost: [] });
      }
      const name = scratch("repaired");
      await writeFile(name, repaired);
      expect(await qemuImg("check", "-f", "qcow2", name)).toMatchObject({ code: 0, stderr: "" });
    },
  );

  test.each(BROKEN.filter(({ name }) => ALIKE.has(name)))(
    "must show a guest what qemu-img's repair shows: $name",
    async (broken) => {
      const name = await onDisk(broken);
      const mended = scratch("mended");
      await copyFile(name, mended);
      await qemuImg("check", "-r", "all", "-f", "qcow2", mended);
      const theirView = await viewAll(new Uint8Array(await readFile(mended)));
      const [, repaired] = await ours(broken.bytes(), "all");
      expect(await viewAll(repaired)).toEqual(theirView);
    },
  );

  test("must keep to the image of one that has an external data file", async () => {
    const name = scratch("apart");
    const options = `data_file=${scratch("apart.data")},data_file_raw=on,cluster_size=4k`;
    await qemuImg("create", "-q", "-f", "qcow2", "-o", options, name, "1M");
    await promisify(execFile)("qemu-io", ["-f", "qcow2", "-c", "write -P 5 64k 64k", name]);
    const bytes = new Uint8Array(await readFile(name));
    const { refcountTableOffset } = await readHeader(directChild(openMemory({ bytes })));
    bytes.fill(0, refcountTableOffset, refcountTableOffset + 8);
    const [outcome, repaired] = await ours(bytes, "all");
    expect(outcome).toMatchObject({ code: 0, corruptions: 0, leaks: 0 });
    await writeFile(name, repaired);
    expect(await qemuImg("check", "-f", "qcow2", name)).toMatchObject({ code: 0, stderr: "" });
    const read = ["-f", "qcow2", "-c", "read -P 5 64k 64k", "-c", "read -P 0 0 64k", name];
    const { stdout } = await promisify(execFile)("qemu-io", read);
    expect(stdout).not.toContain("failed");
  });

  test("must declare bitmaps stale that break a rule, and free what they took", async () => {
    const name = scratch("bitmaps");
    await qemuImg("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", name, "1M");
    await qemuImg("bitmap", "--add", name, "first");
    const bytes = new Uint8Array(await readFile(name));
    const header = await readHeader(directChild(openMemory({ bytes })));
    const { directoryOffset } = bitmapsExtensionIn(header.extensions, 4096) ?? {
      directoryOffset: 0,
    };
    bytes[directoryOffset + 17] = 60;
    const [outcome, repaired] = await ours(bytes, "all");
    expect(outcome).toMatchObject({ code: 0, corruptions: 0, leaks: 0 });
    await writeFile(name, repaired);
    expect((await qemuImg("check", "-f", "qcow2", name)).code).toBe(0);
    expect((await readHeader(directChild(openMemory({ bytes: repaired })))).autoclear).toBe(0n);
  });
});
