import { readFile, rm } from "node:fs/promises";
import { alignUp } from "@blocklayer/bytes";
import { expect, test } from "vitest";
import { describeWithQemu, qemuImg, useScratch } from "./support/qemu.js";
import { replay, runQemuIo } from "./support/replay.js";

/** Steps of one length, side by side, over a range. */
function sequential(step: number, total: number, flags = ""): string[] {
  const commands: string[] = [];
  for (let at = 0, i = 0; at < total; at += step, i++) {
    commands.push(`write ${flags}-P ${1 + (i % 250)} ${at} ${step}`);
  }
  return commands;
}

const CASES: readonly { name: string; options: string; size: string; commands: string[] }[] = [
  { name: "64k clusters, 64k steps", options: "", size: "64M", commands: sequential(65536, 8e6) },
  { name: "4k steps in 64k", options: "", size: "64M", commands: sequential(4096, 2 ** 19) },
  { name: "2M steps", options: "", size: "64M", commands: sequential(2 ** 21, 2 ** 23) },
  { name: "unaligned", options: "", size: "64M", commands: sequential(100_352, 3e6) },
  {
    name: "two L2 tables",
    options: "cluster_size=4k",
    size: "64M",
    commands: sequential(49_152, 5e6),
  },
  {
    name: "512, 16 bits",
    options: "cluster_size=512",
    size: "4M",
    commands: sequential(3072, 1e6),
  },
  {
    name: "512, 64 bits: the refcount table grows",
    options: "cluster_size=512,refcount_bits=64",
    size: "16M",
    commands: sequential(65536, 8e6),
  },
  {
    name: "512, 64 bits, small steps",
    options: "cluster_size=512,refcount_bits=64",
    size: "16M",
    commands: sequential(2560, 600_000),
  },
  {
    name: "1k, 32 bits",
    options: "cluster_size=1k,refcount_bits=32",
    size: "64M",
    commands: sequential(131_072, 2 ** 24),
  },
  {
    name: "1 bit",
    options: "cluster_size=512,refcount_bits=1",
    size: "8M",
    commands: sequential(5120, 1e6),
  },
  {
    name: "2M clusters",
    options: "cluster_size=2M",
    size: "64M",
    commands: sequential(1e6 - 576, 5e6),
  },
  { name: "version 2", options: "compat=0.10", size: "64M", commands: sequential(81_920, 3e6) },
  {
    name: "out of order",
    options: "cluster_size=4k",
    size: "64M",
    commands: ["write 32M 12k", "write 0 4k", "write 32777k 3k", "write 4k 20k", "write 0 1M"],
  },
  {
    name: "compressed, then plain",
    options: "",
    size: "16M",
    commands: [
      ...sequential(65536, 2 ** 20, "-c "),
      "write 2M 100k",
      "write -c 3M 64k",
      "write 4M 64k",
      "write -c 5M 64k",
    ],
  },
  {
    name: "compressed, 512",
    options: "cluster_size=512",
    size: "16M",
    commands: sequential(512, 40_960, "-c "),
  },
  {
    name: "compressed, 1 bit",
    options: "cluster_size=4k,refcount_bits=1",
    size: "16M",
    commands: sequential(4096, 81_920, "-c "),
  },
  {
    name: "compressed, 4k, 64 bits: refcount blocks are added",
    options: "cluster_size=4k,refcount_bits=64",
    size: "64M",
    commands: [
      ...sequential(4096, 81_920, "-c "),
      "write 1M 3M",
      "write -c 8M 4k",
      "write -c 9M 4k",
    ],
  },
  {
    name: "zeroes",
    options: "cluster_size=4k",
    size: "16M",
    commands: ["write -z 0 64k", "write 4k 16k", "write -z 8k 4k", "write 9k 1k", "write -z 3M 8k"],
  },
];

const EXTENDED_CASES: typeof CASES = [
  { cluster: "16k", step: 16_384, total: 4e6 },
  { cluster: "16k", step: 512, total: 200_000 },
  { cluster: "16k", step: 700, total: 200_000 },
  { cluster: "32k", step: 3000, total: 400_000 },
  { cluster: "64k", step: 4096, total: 500_000 },
  { cluster: "128k", step: 100_000, total: 3e6 },
  { cluster: "512k", step: 20_000, total: 3e6 },
  { cluster: "1M", step: 1000, total: 300_000 },
  { cluster: "2M", step: 1e6 - 576, total: 5e6 },
  { cluster: "2M", step: 5000, total: 1e6 },
].map(({ cluster, step, total }) => ({
  name: `subclusters: ${cluster} clusters, steps of ${step}`,
  options: `cluster_size=${cluster},extended_l2=on`,
  size: "64M",
  commands: sequential(step, total),
}));

const MORE_EXTENDED_CASES: typeof CASES = [
  {
    name: "subclusters, zeroes and data",
    options: "cluster_size=16k,extended_l2=on",
    size: "16M",
    commands: [
      "write -z 0 64k",
      "write 4k 16k",
      "write -z 8k 700",
      "write 9k 1k",
      "write -z 300000 100",
      "write 3M 100",
      "write 3148000 100",
    ],
  },
  {
    name: "subclusters, compressed, then plain",
    options: "extended_l2=on",
    size: "16M",
    commands: [
      ...sequential(65_536, 2 ** 18, "-c "),
      "write 2M 100k",
      "write -c 3M 64k",
      "write 70k 1k",
      "write -c 5M 64k",
    ],
  },
  {
    name: "subclusters, two L2 tables",
    options: "cluster_size=16k,extended_l2=on",
    size: "64M",
    commands: ["write 16380k 10k", "write 32M 512", "write 16000k 1M"],
  },
];

/** Position of the first byte that differs, or -1. */
function firstDifference(left: Uint8Array, right: Uint8Array): number {
  return Buffer.compare(left, right) === 0 ? -1 : left.findIndex((byte, i) => byte !== right[i]);
}

describeWithQemu("layout", () => {
  const scratch = useScratch();

  test.each([...CASES, ...EXTENDED_CASES, ...MORE_EXTENDED_CASES])(
    "writev() must lay clusters out as qemu-io does: $name",
    { timeout: 60_000 },
    async (one) => {
      const filename = scratch("theirs.qcow2");
      const options = one.options === "" ? [] : ["-o", one.options];
      await qemuImg("create", "-q", "-f", "qcow2", ...options, filename, one.size);
      const fresh = new Uint8Array(await readFile(filename));
      // Its default syncs each write, which a busy disk makes long.
      await runQemuIo(filename, one.commands, ["-t", "unsafe"]);
      const theirs = new Uint8Array(await readFile(filename));
      const ours = (await replay(fresh, one.commands)).bytes;
      await rm(filename);
      // Compressed data may end anywhere: we fill up the last sector, qemu-io does not.
      expect(ours.length).toBe(alignUp(theirs.length, 512));
      expect(ours.length).toBeGreaterThan(fresh.length);
      expect(firstDifference(ours.subarray(0, theirs.length), theirs)).toBe(-1);
    },
  );
});
