import { deflateRawSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { createSyncInflate, documentedInflate } from "../src/sync-inflate.js";
import { handlesAreProven } from "../src/zlib-handle.js";
import { CLUSTER, differenceOf, noise, repetitive } from "./samples.js";

test("handlesAreProven() must hold: this Node has what it needs", () => {
  expect(handlesAreProven()).toBe(true);
});

describe.each([
  ["documentedInflate", documentedInflate],
  ["createSyncInflate", createSyncInflate()],
])("%s()", (_name, inflate) => {
  const sample = repetitive(CLUSTER, 1);
  const payload = deflateRawSync(sample);

  test("must fill its target and say so", () => {
    const target = new Uint8Array(CLUSTER);
    expect(inflate(Buffer.concat([payload, noise(500, 2)]), target)).toBe(true);
    expect(differenceOf(target, sample)).toBeUndefined();
  });

  test("must say no to damage, to a short stream and to an empty one, and go on working", () => {
    for (const bad of [Uint8Array.of(7, 7, 7), payload.subarray(0, 1000), new Uint8Array(0)]) {
      expect(inflate(bad, new Uint8Array(CLUSTER))).toBe(false);
    }
    expect(inflate(payload, new Uint8Array(CLUSTER + 1))).toBe(false);
    expect(inflate(payload, new Uint8Array(CLUSTER))).toBe(true);
  });
});
