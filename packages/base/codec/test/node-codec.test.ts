import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { deflateRawSync } from "node:zlib";
import { hasCode } from "@blocklayer/bytes";
import { describe, expect, test } from "vitest";
import { createCodec } from "../src/index.node.js";
import { CLUSTER, repetitive, shared, differenceOf } from "./samples.js";

const run = promisify(execFile);

/** Runs a module that has `createCodec` of the built package; it ends by itself or is killed. */
async function script(body: string): Promise<string> {
  const entry = new URL("../dist/index.node.js", import.meta.url).href;
  const text = `import { createCodec } from ${JSON.stringify(entry)};\n${body}`;
  const { stdout } = await run(process.execPath, ["--input-type=module", "-e", text], {
    timeout: 20_000,
  });
  return stdout.trim();
}

describe("compress()", () => {
  test("must keep calls that overlap apart", async () => {
    const codec = createCodec("deflate", { threads: 2 });
    const batches = Array.from({ length: 20 }, (_, i) =>
      Array.from({ length: (i % 5) + 1 }, (__, j) => {
        const cluster = repetitive(4096 * ((j % 3) + 1), i * 10 + j + 1);
        return (i + j) % 2 === 0 ? shared(cluster) : cluster;
      }),
    );
    const results = await Promise.all(batches.map((batch) => codec.compress(batch, CLUSTER)));
    const checks = batches.flatMap((batch, i) =>
      batch.map(async (cluster, j) => {
        const target = new Uint8Array(cluster.length);
        await codec.decompress(results[i]?.[j] as Uint8Array, target);
        expect(differenceOf(target, cluster)).toBeUndefined();
      }),
    );
    await Promise.all(checks);
    await codec.close();
  });

  test("must not touch a cluster after it was done: the caller may use its memory again", async () => {
    const codec = createCodec("deflate", { threads: 2 });
    const cluster = shared(repetitive(CLUSTER, 1));
    const original = cluster.slice();
    const [payload] = await codec.compress([cluster], CLUSTER);
    cluster.fill(0);
    const target = new Uint8Array(CLUSTER);
    await codec.decompress(payload as Uint8Array, target);
    expect(differenceOf(target, original)).toBeUndefined();
    await codec.close();
  });
});

describe("decompress()", () => {
  test("of a cluster up to 128 KiB must be done when it returns", () => {
    const codec = createCodec("deflate", { threads: 1 });
    const sample = repetitive(CLUSTER, 2);
    const target = new Uint8Array(CLUSTER);
    expect(codec.decompress(deflateRawSync(sample), target)).toBeUndefined();
    expect(differenceOf(target, sample)).toBeUndefined();
  });

  test("of a larger cluster must leave the event loop free", async () => {
    const codec = createCodec("deflate", { threads: 1 });
    const sample = repetitive(2 * 1024 * 1024, 3);
    const target = new Uint8Array(sample.length);
    const work = codec.decompress(deflateRawSync(sample), target);
    expect(work).toBeInstanceOf(Promise);
    await work;
    expect(differenceOf(target, sample)).toBeUndefined();
    await codec.close();
  });
});

describe("close()", () => {
  test("must wait for what is under way", async () => {
    const codec = createCodec("deflate", { threads: 2 });
    const work = codec.compress([repetitive(CLUSTER, 4)], CLUSTER);
    await codec.close();
    expect((await work)[0]).toBeDefined();
  });

  test("must leave other codecs of as many threads at work", async () => {
    const one = createCodec("deflate", { threads: 2 });
    const two = createCodec("deflate", { threads: 2 });
    await one.compress([repetitive(CLUSTER, 5)], CLUSTER);
    const work = two.compress([repetitive(CLUSTER, 6)], CLUSTER);
    await one.close();
    expect((await work)[0]).toBeDefined();
    await two.close();
  });
});

test("createCodec() must refuse a number of threads that does not exist", () => {
  for (const threads of [0, -1, 1.5, Number.NaN]) {
    try {
      createCodec("deflate", { threads });
      expect.unreachable();
    } catch (error) {
      expect(hasCode(error, "EINVAL")).toBe(true);
    }
  }
});

describe("the process", () => {
  test("must end by itself although a codec was not closed", async () => {
    const body = `
      const codec = createCodec("deflate", { threads: 2 });
      const payloads = await codec.compress(Array(8).fill(new Uint8Array(65536)), 65536);
      console.log(payloads.length);`;
    expect(await script(body)).toBe("8");
  });

  test("must stay alive while a batch is under way", async () => {
    const body = `
      const codec = createCodec("deflate", { threads: 1 });
      codec.compress(Array(8).fill(new Uint8Array(65536)), 65536).then((p) => console.log(p.length));`;
    expect(await script(body)).toBe("8");
  });
});
