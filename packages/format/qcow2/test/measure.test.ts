/** How long an image becomes, beside the real qemu-img. */
import { parseOptions } from "@blocklayer/block-api";
import { BlockError } from "@blocklayer/bytes";
import { describe, expect, test } from "vitest";
import { createOptions } from "../src/index.js";
import { measureQcow2 } from "../src/measure.js";
import { describeWithQemu, qemuImg } from "./support/qemu.js";
import { Rng } from "./support/rng.js";

const TiB = 2 ** 40;

function optionsOf(given: Readonly<Record<string, unknown>>): ReturnType<typeof parseOptions> {
  return parseOptions(createOptions, given, "qcow2");
}

/** Options as a user may choose them; some go together, some do not. */
function randomOptions(random: Rng): Record<string, string> {
  const options: Record<string, string> = {};
  if (random.below(8) > 0) options["cluster_size"] = String(2 ** (9 + random.below(13)));
  if (random.below(3) > 0) options["refcount_bits"] = String(2 ** random.below(7));
  if (random.below(4) === 0) options["compat"] = random.pick(["0.10", "1.1"]);
  if (random.below(4) === 0) options["extended_l2"] = random.pick(["on", "off"]);
  if (random.below(3) === 0) {
    options["preallocation"] = random.pick(["off", "metadata", "falloc", "full"]);
  }
  if (random.below(6) === 0) options["backing_file"] = "base";
  if (random.below(8) === 0) options["lazy_refcounts"] = "on";
  if (random.below(8) === 0) options["compression_type"] = "zstd";
  return options;
}

/** From nothing to 64 TiB, each order of magnitude as often as another, on a border as often as beside one. */
function randomSize(random: Rng): number {
  const power = 2 ** random.below(47);
  const size = power + random.pick([0, 0, 1, 511, 512, -1]) + 512 * random.below(1000);
  return random.below(20) === 0 ? 0 : Math.min(Math.max(size, 0), 64 * TiB);
}

/** What either side says: two numbers, or a refusal. */
async function ourAnswer(options: Record<string, string>, size: number): Promise<string> {
  try {
    const result = await measureQcow2({ options: optionsOf({ ...options, size }) });
    return `${result.requiredBytes} ${result.fullyAllocatedBytes}`;
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return error.message.split(" (use ")[0] as string;
  }
}

async function theirAnswer(options: Record<string, string>, size: number): Promise<string> {
  const words = Object.entries(options).map(([key, value]) => `${key}=${value}`);
  const given = words.length === 0 ? [] : ["-o", words.join(",")];
  const line = ["measure", "--output=json", "-O", "qcow2", "--size", String(size), ...given];
  const { code, stdout, stderr } = await qemuImg(...line);
  if (code !== 0) return stderr.replace("qemu-img: ", "").trim().split(" (use ")[0] as string;
  const { required, "fully-allocated": all } = JSON.parse(stdout) as Record<string, number>;
  return `${required} ${all}`;
}

describeWithQemu("measure", () => {
  test("must give qemu-img's numbers for any options and sizes up to 64 TiB", async () => {
    const random = new Rng(20_261);
    const cases = Array.from({ length: 400 }, () => ({
      options: randomOptions(random),
      size: randomSize(random),
    }));
    let measured = 0;
    for (let at = 0; at < cases.length; at += 8) {
      const some = cases.slice(at, at + 8);
      await Promise.all(
        some.map(async ({ options, size }) => {
          const ours = await ourAnswer(options, size);
          expect({ options, size, says: ours }).toEqual({
            options,
            size,
            says: await theirAnswer(options, size),
          });
          if (/^\d+ \d+$/.test(ours)) measured++;
        }),
      );
    }
    expect(measured).toBeGreaterThan(250);
    expect(measured).toBeLessThan(cases.length);
  }, 60_000);
});

describe("measureQcow2()", () => {
  const K64 = 65_536;

  test("must count each cluster of the new image that holds data once", async () => {
    const data = [
      { offset: 512, lengthBytes: 512 },
      { offset: 4096, lengthBytes: K64 - 4096 },
      { offset: 2 * K64 - 512, lengthBytes: 1024 },
      { offset: 5 * K64, lengthBytes: 2 * K64 },
    ];
    const options = optionsOf({ size: 10 * K64 });
    const { requiredBytes, fullyAllocatedBytes, bitmapsBytes } = await measureQcow2({
      options,
      source: { data },
    });
    expect([requiredBytes, fullyAllocatedBytes, bitmapsBytes]).toEqual([
      (5 + 5) * K64,
      (5 + 10) * K64,
      undefined,
    ]);
  });

  test("must not ask for the data when every cluster counts", async () => {
    const data = {
      [Symbol.iterator]: (): never => {
        throw new Error("asked");
      },
    };
    for (const more of [{ backing_file: "base" }, { preallocation: "full" }]) {
      const options = optionsOf({ size: 10 * K64, ...more });
      const { requiredBytes } = await measureQcow2({ options, source: { data } });
      expect(requiredBytes).toBe(15 * K64);
    }
  });

  test("must count directory, tables and bits of bitmaps, in version 3 only", async () => {
    const bitmaps = [
      { name: "b0", granularityBytes: 65_536, flags: [] },
      { name: "b1", granularityBytes: 512, flags: ["auto"] as const },
      { name: "longname1", granularityBytes: 65_536, flags: ["in-use"] as const },
    ];
    const measured = async (given: Record<string, unknown>): Promise<number | undefined> => {
      const options = optionsOf({ size: 64 * K64, ...given });
      return (await measureQcow2({ options, source: { data: [], bitmaps } })).bitmapsBytes;
    };
    expect(await measured({})).toBe(7 * K64);
    expect(await measured({ cluster_size: 512 })).toBe(4096);
    expect(await measured({ compat: "0.10" })).toBeUndefined();
  });

  test("must refuse what has another header, by name", async () => {
    const options = optionsOf({ size: 512, "encrypt.format": "luks" });
    await expect(measureQcow2({ options })).rejects.toThrow(/encrypted image is not supported/);
  });
});
