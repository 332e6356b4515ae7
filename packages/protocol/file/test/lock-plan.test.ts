import { ALL_PERMISSIONS, PERMISSION } from "@blocklayer/block-api";
import { describe, expect, test } from "vitest";
import { lockPlanOf } from "../src/lock-plan.js";

describe("lockPlanOf()", () => {
  test("must lock what is used at 100 and what is not shared at 200, and look at the opposites", () => {
    const { consistentRead, write, writeUnchanged, resize } = PERMISSION;
    const plan = lockPlanOf({
      held: consistentRead | write | resize,
      shared: consistentRead | writeUnchanged,
    });
    expect(plan.bytes).toEqual([100, 101, 103, 201, 203]);
    expect(plan.checks).toEqual([
      { byte: 200, message: 'Failed to get "consistent read" lock' },
      { byte: 201, message: 'Failed to get "write" lock' },
      { byte: 203, message: 'Failed to get "resize" lock' },
      { byte: 101, message: 'Failed to get shared "write" lock' },
      { byte: 103, message: 'Failed to get shared "resize" lock' },
    ]);
  });

  test("must lock nothing for who uses nothing and shares all", () => {
    expect(lockPlanOf({ held: 0, shared: ALL_PERMISSIONS })).toEqual({ bytes: [], checks: [] });
  });
});
