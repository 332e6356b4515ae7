import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { atOnce } from "../src/at-once.mjs";
import { planOf } from "../src/job.mjs";
import { dataOf, simplerOperations } from "../src/operations.mjs";
import { programOf, reportOf } from "../src/report.mjs";
import { simulate } from "../src/simulate.mjs";

const folder = dirname(dirname(fileURLToPath(import.meta.url)));

function runNode(words: readonly string[]): Promise<{ status: number; output: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, words, { cwd: folder }, (error, stdout, stderr) => {
      const status = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
      resolve({ status, output: stdout + stderr });
    });
  });
}

describe("planOf()", () => {
  test("must give the same plan for the same seed, and others for others", () => {
    expect(planOf("crashes", 7)).toEqual(planOf("crashes", 7));
    expect(planOf("crashes", 7)).not.toEqual(planOf("crashes", 8));
    expect(planOf("crashes", 7)).not.toEqual(planOf("schedules", 7));
  });

  test("must reach every corner within some hundred seeds", () => {
    const seen = new Set<string>();
    for (let seed = 1; seed <= 400; seed++) {
      for (const mode of ["schedules", "crashes"] as const) {
        const { config, operations } = planOf(mode, seed);
        for (const [name, value] of Object.entries(config)) {
          if (typeof value !== "object" && !name.endsWith("Bytes") && name !== "seed") {
            seen.add(`${mode} ${name} ${value}`);
          } else seen.add(`${mode} ${name}`);
        }
        for (const { kind, wait } of operations) seen.add(`${mode} ${kind} ${wait}`);
      }
    }
    const wanted = ["crashes", "schedules"].flatMap((mode) => [
      ...[512, 1024, 2048, 4096, 8192, 65536].map((size) => `${mode} clusterSize ${size}`),
      ...[1, 2, 4, 8, 16, 32, 64].map((bits) => `${mode} refcountBits ${bits}`),
      ...[1, 512, 4096].map((alignment) => `${mode} alignment ${alignment}`),
      ...["on", "off", "auto"].map((cache) => `${mode} compressedCache ${cache}`),
      ...["backingBytes", "prefillBytes", "latency"].map((name) => `${mode} ${name}`),
      ...["version 2", "version 3", "passDiscards true", "passDiscards false"].map(
        (value) => `${mode} ${value}`,
      ),
      ...["write", "compressed", "zeroes", "discard", "read", "flush"].flatMap((kind) => [
        `${mode} ${kind} true`,
        `${mode} ${kind} false`,
      ]),
      ...["reuse", "append", "keep"].map((phrase) => `${mode} phrase ${phrase}`),
      `${mode} holds`,
      ...["grow", "cache", "cycle"].map((kind) => `${mode} ${kind} true`),
      `${mode} fault undefined`,
    ]);
    expect(wanted.filter((one) => !seen.has(one))).toEqual([]);
    expect(seen).toContain("schedules spaceBytes");
  });
});

test("planOf() must reach every change of the whole image within some hundred seeds", () => {
  const seen = new Set<string>();
  for (let seed = 1; seed <= 300; seed++) {
    const { config, operations } = planOf("upkeep-crashes", seed);
    for (const [name, value] of Object.entries(config)) seen.add(`${name} ${value}`);
    for (const { kind, action, fix, preallocation, options = {} } of operations) {
      seen.add([kind, action, fix, preallocation].filter((word) => word !== undefined).join(" "));
      for (const [name, value] of Object.entries(options)) seen.add(`${name} ${String(value)}`);
    }
    const service = planOf("service-crashes", seed);
    seen.add(service.config.service);
  }
  const wanted = [
    ...["snapshots", "bitmaps", "lengths", "options", "all"].map((word) => `upkeep ${word}`),
    "extendedL2 true",
    "lazyRefcounts true",
    "dataFile raw",
    "dataFile plain",
    "version 2",
    ...["create", "apply", "delete"].map((action) => `snapshot ${action}`),
    ...["add", "remove", "clear", "enable", "disable", "merge", "store"].map(
      (action) => `bitmap ${action}`,
    ),
    ...["off", "metadata", "falloc", "full"].map((mode) => `grow ${mode}`),
    "shrink",
    "rename",
    "check",
    "check leaks",
    "check all",
    "handover",
    "cycle",
    "fault",
    "compat 0.10",
    "compat 1.1",
    "lazy_refcounts true",
    "refcount_bits 1",
    "refcount_bits 64",
    "commit",
    "rebase",
    "create",
  ];
  expect(wanted.filter((one) => !seen.has(one))).toEqual([]);
});

test("dataOf() must give the same bytes for a part as for the whole", () => {
  const operation = { kind: "write", tag: 9, noise: 300 } as const;
  const whole = dataOf(operation, 1024, 4096);
  expect(dataOf(operation, 1024, 700)).toEqual(whole.subarray(0, 700));
});

test("simplerOperations() must end", () => {
  let steps = 0;
  let list = planOf("schedules", 3).operations.flatMap(simplerOperations).flat();
  while (list.length > 0 && steps < 100) {
    list = list.slice(0, 50).flatMap(simplerOperations).flat();
    steps++;
  }
  expect(steps).toBeLessThan(100);
});

describe("atOnce()", () => {
  test("must return what the work returns, and throw what it throws", async () => {
    expect(await atOnce(async () => Promise.resolve(3))).toBe(3);
    await expect(atOnce(async () => Promise.reject(new Error("its own")))).rejects.toThrow(
      "its own",
    );
  });

  test("must tell of work that waits for what never happens", async () => {
    await expect(atOnce(() => new Promise(() => {}))).rejects.toThrow("never happens");
  });
});

describe("a failure", () => {
  test("must be reported as a short program that fails too, and as a command", async () => {
    const defect = "no-table-before-l1";
    const wish = { mode: "crashes", first: 1, seeds: 5, defect, shrink: true, workers: 1 } as const;
    const { failures } = await simulate(wish);
    const verdict = failures[0];
    if (verdict?.failure === undefined) throw new Error("the defect was not caught");
    expect(verdict.failure.operations.length).toBeLessThan(8);
    expect(reportOf("crashes", verdict.seed, verdict.failure, defect)).toContain(
      `npm run sim -- crashes --seed ${verdict.seed} --defect ${defect}`,
    );
    const scratch = mkdtempSync(join(folder, ".replay-"));
    try {
      const program = programOf("crashes", verdict.failure, defect);
      const file = join(scratch, "replay.mjs");
      writeFileSync(file, program.replace('"./src/', '"../src/'));
      const outcome = await runNode([file]);
      expect(outcome.status).toBe(1);
      expect(outcome.output).toContain("Violation");
      writeFileSync(file, programOf("crashes", verdict.failure).replace('"./src/', '"../src/'));
      expect((await runNode([file])).output).toContain("nothing is wrong any more");
    } finally {
      rmSync(scratch, { recursive: true });
    }
  });

  test("must end the command with 1, success with 0, a wrong word with 2", async () => {
    const main = join(folder, "src/main.mjs");
    const failing = await runNode([
      main,
      "crashes",
      "--seed",
      "1",
      "--defect",
      "no-table-before-l1",
    ]);
    expect(failing.status).toBe(1);
    expect(failing.output).toContain("crashes: seed 1 fails");
    expect((await runNode([main, "schedules", "--seeds", "1..2"])).status).toBe(0);
    const wrong = await runNode([main, "schedules", "--seeds", "1-2"]);
    expect(wrong.status).toBe(2);
    expect(wrong.output).toContain("--seeds takes A..B, not '1-2'");
  });
});
