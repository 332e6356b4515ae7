import { statSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { deviceNumberOf } from "../src/block-device.js";

describe("deviceNumberOf()", () => {
  test("must split small and large numbers as the C library packs them", () => {
    expect(deviceNumberOf(0xfe00n)).toEqual({ major: 254, minor: 0 });
    expect(deviceNumberOf((0x123n << 20n) | 0x145n)).toEqual({ major: 1, minor: 0x12345 });
  });

  test.runIf(process.platform === "linux")("must know /dev/null for 1:3", () => {
    expect(deviceNumberOf(statSync("/dev/null", { bigint: true }).rdev)).toEqual({
      major: 1,
      minor: 3,
    });
  });
});
