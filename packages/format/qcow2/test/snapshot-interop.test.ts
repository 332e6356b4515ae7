/** Twin images: the same requests and changes of snapshots by qemu-img and qemu-io, and by our driver. */
import { readFile, writeFile } from "node:fs/promises";
import { directChild } from "@blocklayer/block-api";
import { IoVector, parseSize, viewOf } from "@blocklayer/bytes";
import { openMemory } from "@blocklayer/memory";
import { Random, SimDisk, Trace, crashStates } from "@blocklayer/sim";
import { expect, test } from "vitest";
import { openQcow2, readHeader } from "../src/index.js";
import { describeWithQemu, qemuImg, useScratch } from "./support/qemu.js";
import { runCommand, runQemuIo } from "./support/replay.js";
import { DATE, filled, findingsIn, snapshotContent } from "./support/snapshots.js";
import { keepCodecWarm } from "./support/warm-codec.js";

keepCodecWarm();

/** `snapshot -c|-a|-d NAME`, `resize SIZE`, `vm OFFSET LENGTH PATTERN`, or a command of qemu-io. */
type Step = string;

async function theirStep(step: Step, filename: string): Promise<void> {
  const words = step.split(" ");
  const [first = "", ...rest] = words;
  const done =
    first === "snapshot" || first === "resize"
      ? await qemuImg(
          first,
          ...(first === "resize" ? ["-q", filename, ...rest] : [...rest, filename]),
        )
      : undefined;
  if (done !== undefined) expect(done).toMatchObject({ code: 0 });
  else if (first === "vm")
    await runQemuIo(filename, [`write -b -P ${rest[2]} ${rest[0]} ${rest[1]}`]);
  else await runQemuIo(filename, [step]);
}

/** Each step opens and closes the image, as the tools do. */
async function ourStep(step: Step, bytes: Uint8Array): Promise<Uint8Array> {
  const file = new SimDisk({ content: bytes });
  const disk = await openQcow2({ file: directChild(file) });
  const [first, second = "", third = "", pattern] = step.split(" ");
  if (first === "snapshot" && second === "-c")
    await disk.snapshots.create({ name: third, ...DATE });
  else if (first === "snapshot" && second === "-a") await disk.snapshots.apply(third);
  else if (first === "snapshot") await disk.snapshots.delete({ name: third });
  else if (first === "resize") await disk.truncate(parseSize(second));
  else if (first === "vm") {
    await disk.snapshots.writeVmState(parseSize(second), filled(parseSize(third), Number(pattern)));
  } else await runCommand(disk, step);
  await disk.close();
  return file.bytes;
}

interface Twin {
  readonly name: string;
  readonly options: string;
  readonly size: string;
  readonly steps: readonly Step[];
  /** Every byte is the same, but for dates and for what was freed. */
  readonly isSameLayout?: boolean;
}

const PLAIN: readonly Step[] = [
  "write -P 1 0 192k",
  "write -c -P 7 512k 64k",
  "write -c -P 8 576k 64k",
  "snapshot -c one",
  "write -P 2 64k 100k",
  "snapshot -c two",
  "write -z 0 64k",
  "write -P 3 512k 4k",
  "snapshot -c three",
  "write -P 4 0 1M",
  "snapshot -a two",
  "write -P 5 100k 8k",
  "snapshot -d one",
  "write -P 6 0 64k",
  "snapshot -d three",
  "snapshot -a two",
  "write -P 9 128k 64k",
  "snapshot -d two",
  "write -P 10 0 700k",
];

/** With clusters of 2 MiB: files are large, so the steps are few. */
const LARGE: readonly Step[] = [
  "write -P 1 0 3M",
  "snapshot -c one",
  "write -P 2 1M 64k",
  "snapshot -c two",
  "snapshot -a one",
  "snapshot -d two",
  "write -P 3 0 64k",
];

const TWINS: readonly Twin[] = [
  { name: "64k", options: "", size: "1M", steps: PLAIN, isSameLayout: true },
  {
    name: "4k, 64 bits",
    options: "cluster_size=4k,refcount_bits=64",
    size: "1M",
    steps: PLAIN,
    isSameLayout: true,
  },
  {
    name: "version 2",
    options: "cluster_size=4k,compat=0.10",
    size: "1M",
    steps: PLAIN,
    isSameLayout: true,
  },
  { name: "2M", options: "cluster_size=2M", size: "4M", steps: LARGE, isSameLayout: true },
  { name: "512: long L1 tables", options: "cluster_size=512", size: "4M", steps: PLAIN },
  {
    name: "512, other lengths",
    options: "cluster_size=512",
    size: "256k",
    steps: [
      "write -P 1 0 256k",
      "snapshot -c small",
      "resize 2M",
      "write -P 2 128k 1M",
      "snapshot -c large",
      "snapshot -a small",
      "write -P 3 0 4k",
      "snapshot -a large",
      "snapshot -d small",
      "write -P 4 1M 1M",
    ],
  },
  {
    name: "VM state",
    options: "cluster_size=4k",
    size: "1M",
    steps: [
      "write -P 1 0 64k",
      "vm 0 100k 7",
      "snapshot -c one",
      "vm 50k 300k 8",
      "write -P 2 0 64k",
      "snapshot -c two",
      "vm 0 4k 9",
      "snapshot -a one",
      "snapshot -d two",
      "vm 3M 4k 5",
    ],
    isSameLayout: true,
  },
];

/**
 * Blanks what may differ: dates, and COPIED in the snapshots' own L1 tables, where it means nothing: qemu-img clears it
 * there, too, when it applies one.
 */
async function comparable(bytes: Uint8Array): Promise<Uint8Array> {
  const { snapshotsOffset, snapshotCount } = await readHeader(directChild(openMemory({ bytes })));
  const masked = bytes.slice();
  const view = viewOf(masked);
  let at = snapshotsOffset;
  for (let i = 0; i < snapshotCount; i++) {
    masked.fill(0, at + 16, at + 24);
    const l1 = view.getUint32(at + 4);
    for (let k = 0; k < view.getUint32(at + 8); k++) view.setUint8(l1 + 8 * k, 0);
    at += Math.ceil((64 + view.getUint16(at + 12) + view.getUint16(at + 14)) / 8) * 8;
  }
  return masked;
}

/** Clusters with a refcount of 0, as a check sees them: those that no table names. */
async function usedOf(bytes: Uint8Array): Promise<Set<number>> {
  const file = directChild(openMemory({ bytes }));
  const header = await readHeader(file);
  const size = 2 ** header.clusterBits;
  const used = new Set<number>();
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const perBlock = (size * 8) / 2 ** header.refcountOrder;
  for (let i = 0; i < (header.refcountTableClusters * size) / 8; i++) {
    const block = Number(view.getBigUint64(header.refcountTableOffset + i * 8));
    if (block === 0) continue;
    for (let k = 0; k < perBlock; k++) {
      const width = 2 ** header.refcountOrder / 8;
      const entry = bytes.subarray(block + k * width, block + (k + 1) * width);
      if (entry.some((byte) => byte !== 0)) used.add(i * perBlock + k);
    }
  }
  return used;
}

describeWithQemu("snapshots beside qemu-img", () => {
  const scratch = useScratch();

  async function ok(...args: readonly string[]): Promise<string> {
    const result = await qemuImg(...args);
    expect([args, result]).toEqual([args, { ...result, code: 0 }]);
    return result.stdout;
  }

  async function freshImage(twin: Pick<Twin, "options" | "size">): Promise<Uint8Array> {
    const filename = scratch("theirs.qcow2");
    const options = twin.options === "" ? [] : ["-o", twin.options];
    await ok("create", "-q", "-f", "qcow2", ...options, filename, twin.size);
    return new Uint8Array(await readFile(filename));
  }

  /** `snapshot -l` without dates. */
  async function listOf(filename: string): Promise<string> {
    const list = await ok("snapshot", "-l", filename);
    return list.replaceAll(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/g, "<when>");
  }

  test.each(TWINS)(
    "must come to the same as qemu-img: $name",
    { timeout: 120_000 },
    async (twin) => {
      let ours = await freshImage(twin);
      const theirs = scratch("theirs.qcow2");
      const mine = scratch("ours.qcow2");
      for (const step of twin.steps) {
        await theirStep(step, theirs);
        ours = await ourStep(step, ours);
        await writeFile(mine, ours);
        expect([step, await findingsIn(ours)]).toEqual([step, []]);
        // The tools cost most of the time: they judge where something was given back.
        if (!step.startsWith("snapshot -d")) continue;
        expect([step, await ok("check", mine)]).toEqual([step, expect.stringMatching(/No errors/)]);
        expect([step, await listOf(mine)]).toEqual([step, await listOf(theirs)]);
      }
      expect(await ok("check", mine)).toMatch(/No errors/);
      await sameSnapshots(theirs, mine);
      const state = `read -b -P ${twin.name === "VM state" ? 5 : 0} 3M 4k`;
      for (const filename of [theirs, mine]) await runQemuIo(filename, [state]);
      if (twin.isSameLayout !== true) return;
      const left = await comparable(ours);
      const right = await comparable(new Uint8Array(await readFile(theirs)));
      const used = await usedOf(ours);
      expect([...used]).toEqual([...(await usedOf(right))]);
      const { clusterBits } = await readHeader(directChild(openMemory({ bytes: ours })));
      const different = [...used].filter((cluster) => {
        const from = cluster * 2 ** clusterBits;
        const to = Math.min(from + 2 ** clusterBits, left.length, right.length);
        return Buffer.compare(left.subarray(from, to), right.subarray(from, to)) !== 0;
      });
      expect(different).toEqual([]);
    },
  );

  /** The disk and every snapshot, in both images, by qemu-img, and ours by our driver. */
  async function sameSnapshots(theirs: string, ours: string): Promise<void> {
    expect(await ok("compare", theirs, ours)).toMatch(/identical/);
    const bytes = new Uint8Array(await readFile(ours));
    for (const [, id = ""] of (await listOf(theirs)).matchAll(/^(\d+) /gm)) {
      for (const [image, raw] of [
        [theirs, scratch("a.raw")],
        [ours, scratch("b.raw")],
      ] as const) {
        await ok("convert", "-l", `snapshot.id=${id}`, "-O", "raw", image, raw);
      }
      const expected = new Uint8Array(await readFile(scratch("a.raw")));
      expect(Buffer.compare(new Uint8Array(await readFile(scratch("b.raw"))), expected)).toBe(0);
      const file = directChild(openMemory({ bytes }));
      const shown = await snapshotContent(file, { "snapshot.id": id });
      // qemu-img shows a snapshot at the length of the disk as it is now.
      const common = Math.min(shown.length, expected.length);
      expect(Buffer.compare(shown.subarray(0, common), expected.subarray(0, common))).toBe(0);
    }
  }

  test("must go on with snapshots that qemu made, and the other way round", {
    timeout: 60_000,
  }, async () => {
    const random = new Random(11);
    let bytes = await freshImage({ options: "cluster_size=4k", size: "1M" });
    const image = scratch("turns.qcow2");
    await writeFile(image, bytes);
    const contents = new Map<string, Uint8Array>();
    for (let i = 0; i < 14; i++) {
      const isOurs = random.below(2) === 0;
      const names = [...contents.keys()];
      const name = names[random.below(Math.max(1, names.length))];
      const kind = names.length < 2 ? 0 : random.below(3);
      const at = 4096 * random.below(200);
      const steps = [
        `write -P ${1 + random.below(255)} ${at} ${1 + random.below(60_000)}`,
        kind === 0
          ? `snapshot -c n${i}`
          : kind === 1
            ? `snapshot -a ${name}`
            : `snapshot -d ${name}`,
      ];
      for (const step of steps) {
        if (isOurs) {
          bytes = await ourStep(step, new Uint8Array(await readFile(image)));
          await writeFile(image, bytes);
        } else await theirStep(step, image);
      }
      bytes = new Uint8Array(await readFile(image));
      expect(await findingsIn(bytes)).toEqual([]);
      expect(await ok("check", image)).toMatch(/No errors/);
      if (kind === 0) {
        const file = directChild(openMemory({ bytes }));
        contents.set(`n${i}`, await snapshotContent(file, { "snapshot.name": `n${i}` }));
      } else if (kind === 2) contents.delete(name as string);
      for (const [kept, expected] of contents) {
        await ok("convert", "-l", `snapshot.name=${kept}`, "-O", "raw", image, scratch("k.raw"));
        expect(Buffer.compare(await readFile(scratch("k.raw")), expected)).toBe(0);
      }
    }
  });

  test("qemu-img check -r all must mend what a crash leaves, and lose nothing", async () => {
    for (const change of ["create", "apply", "delete"] as const) {
      let bytes = await freshImage({ options: "cluster_size=512", size: "256k" });
      for (const step of ["write -P 1 0 40k", "snapshot -c a", "write -P 2 10k 20k"]) {
        bytes = await ourStep(step, bytes);
      }
      const trace = new Trace();
      const disk = await openQcow2({ file: directChild(new SimDisk({ content: bytes, trace })) });
      if (change === "create") await disk.snapshots.create({ name: "b", ...DATE });
      else await disk.snapshots[change]("a");
      await disk.close();
      let mended = 0;
      for (const state of crashStates(trace, { seed: 3, maxSubsets: 2 })) {
        if (state.index % 2 === 1) continue;
        const image = scratch("crash.qcow2");
        await writeFile(image, state.open().bytes);
        if ((await qemuImg("check", image)).code === 0) continue;
        const disks = async (): Promise<readonly string[]> => {
          const all: string[] = [];
          for (const which of [[], ["-l", "a"], ["-l", "b"]]) {
            const raw = scratch("c.raw");
            const { code } = await qemuImg("convert", ...which, "-O", "raw", image, raw);
            all.push(code === 0 ? Buffer.from(await readFile(raw)).toString("latin1") : "");
          }
          return all;
        };
        const before = await disks();
        await qemuImg("check", "-r", "all", image);
        expect(await ok("check", image)).toMatch(/No errors/);
        expect((await disks()).map((one, i) => one === before[i])).toEqual([true, true, true]);
        mended++;
      }
      expect(mended).toBeGreaterThan(2);
    }
  }, 120_000);

  test("VM state must be where qemu-io finds it, in the disk and in a snapshot", async () => {
    let bytes = await freshImage({ options: "cluster_size=4k", size: "1M" });
    const image = scratch("vm.qcow2");
    const file = new SimDisk({ content: bytes });
    const disk = await openQcow2({ file: directChild(file) });
    await disk.snapshots.writeVmState(0, filled(149_504, 7));
    const made = await disk.snapshots.create({ name: "vm", ...DATE, vmStateBytes: 149_504 });
    await disk.close();
    await writeFile(image, file.bytes);
    expect(made.vmStateBytes).toBe(149_504n);
    expect(await ok("snapshot", "-l", image)).toMatch(/ vm +146 KiB /);
    await runQemuIo(image, ["read -b -P 0 0 149504"]);
    await ok("snapshot", "-a", "vm", image);
    await runQemuIo(image, ["read -b -P 7 0 149504", "write -b -P 8 0 1024"]);
    await ok("snapshot", "-c", "theirs", image);
    expect(await ok("check", image)).toMatch(/No errors/);
    bytes = new Uint8Array(await readFile(image));
    const theirs = await openQcow2({
      file: directChild(openMemory({ bytes })),
      readOnly: true,
      options: { snapshot: "theirs" },
    });
    const state = new Uint8Array(2000);
    await theirs.snapshots.readVmState(0, IoVector.of(state));
    expect([state[0], state[1023], state[1024]]).toEqual([8, 8, 7]);
    await theirs.close();
  });
});
