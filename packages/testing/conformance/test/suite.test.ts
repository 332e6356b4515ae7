import { expect, test } from "vitest";
import {
  conformanceChecks,
  type DriverSource,
  type DriverTarget,
  driverSuite,
  pattern,
  through,
} from "../src/index.js";
import { ArrayDriver, type Medium } from "./array-driver.js";
import { brokenDrivers, modelMustFind } from "./broken-drivers.js";
import { StrictDriver } from "./strict-driver.js";

/** Disks of one class of driver, which can be opened again. */
function sourceOf(
  Driver: new (medium: Medium) => ArrayDriver,
  more: Partial<DriverSource> = {},
): DriverSource {
  return {
    name: Driver.name,
    growsPastEnd: true,
    synchronous: true,
    modelRuns: 5,
    ...more,
    open(lengthBytes): DriverTarget {
      const medium: Medium = { bytes: new Uint8Array(lengthBytes) };
      return { driver: new Driver(medium), reopen: () => new Driver(medium) };
    },
  };
}

const model = conformanceChecks.find((check) => check.name.startsWith("random operations"));

driverSuite(sourceOf(ArrayDriver));
driverSuite(through("pass-through", sourceOf(ArrayDriver), (driver) => driver));
driverSuite(sourceOf(StrictDriver, { name: "strict, 1 MiB and a part", lengthBytes: 1_049_088 }));
driverSuite({
  name: "read-only, with content",
  capabilities: { write: false },
  open(lengthBytes): DriverTarget {
    const content = pattern(9, lengthBytes);
    const driver = new ArrayDriver({ bytes: content.slice() });
    driver.writable = false;
    return { driver, content };
  },
});

test("dispose() must be called after every check, passed or failed", async () => {
  for (const Driver of [ArrayDriver, brokenDrivers[0]?.[0] ?? ArrayDriver]) {
    let open = 0;
    const source: DriverSource = {
      name: "counted",
      modelRuns: 1,
      lengthBytes: 300_032,
      open: (lengthBytes) => {
        open++;
        const driver = new Driver({ bytes: new Uint8Array(lengthBytes) });
        return { driver, dispose: () => void open-- };
      },
    };
    for (const check of conformanceChecks) await check.run(source).catch(() => "failed");
    expect(open).toBe(0);
  }
});

test.each(brokenDrivers)("%o must be caught by the check '%s'", async (Driver, name) => {
  const check = conformanceChecks.find((candidate) => candidate.name.includes(name));
  expect(check).toBeDefined();
  // A length that is no multiple of 512: the last unit of a driver with that alignment is a partial one.
  const source = sourceOf(Driver, name.includes("partial unit") ? { lengthBytes: 66_000 } : {});
  const outcome = await check?.run(source).catch((error: unknown) => error);
  expect(outcome).toBeInstanceOf(Error);
});

test("every check must catch some broken driver", () => {
  const names = brokenDrivers.map(([, name]) => name);
  const idle = conformanceChecks.filter(
    (check) => !names.some((name) => check.name.includes(name)),
  );
  expect(idle.map((check) => check.name)).toEqual([]);
});

test.each(modelMustFind)("%o must be found by random operations", async (Driver) => {
  await expect(
    model?.run(sourceOf(Driver, { modelRuns: 25, lengthBytes: 300_032 })),
  ).rejects.toThrow(/^await (disk\.|Promise\.all)/m);
});

test("the report of the random operations must be short code with its seed", async () => {
  class LosesByte extends ArrayDriver {
    override writev(
      ...request: Parameters<ArrayDriver["writev"]>
    ): ReturnType<ArrayDriver["writev"]> {
      const result = super.writev(...request);
      if (request[0] <= 70_000 && request[0] + request[1].lengthBytes > 70_000)
        this.bytes[70_000] = 0;
      return result;
    }
  }
  const error: unknown = await model
    ?.run(sourceOf(LosesByte, { seed: 4 }))
    .catch((e: unknown) => e);
  const message = (error as Error).message;
  expect(message).toMatch(
    /^LosesByte \(seed \d+\): the whole disk at the end: byte 0x11170 is 0x0, must be/,
  );
  const code = message.split("\n").filter((line) => line.startsWith("await "));
  expect(code).toHaveLength(1);
  expect(code[0]).toMatch(
    /^await disk\.writev\(0x[0-9a-f]+, IoVector\.of\(pattern\(\d+, \d+\)\)\);$/,
  );
});
