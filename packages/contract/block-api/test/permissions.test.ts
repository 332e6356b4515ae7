import { expect, test } from "vitest";
import { ALL_PERMISSIONS, PERMISSION, permissionNames } from "../src/index.js";

test("permissionNames() must list the permissions of a set in order of their bits", () => {
  expect(permissionNames(0)).toEqual([]);
  expect(permissionNames(PERMISSION.resize | PERMISSION.write)).toEqual(["write", "resize"]);
  expect(permissionNames(ALL_PERMISSIONS)).toHaveLength(Object.keys(PERMISSION).length);
});
