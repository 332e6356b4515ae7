import { describe, expect, it } from "vitest";
import { ALL_PERMISSIONS, type DriverDefinition, PERMISSION } from "@blocklayer/block-api";
import { childPermissions, defaultPermissions, NO_PERMISSIONS } from "../src/permissions.js";
import { toyDriver } from "./toy-format.js";

const { consistentRead, write, writeUnchanged, resize } = PERMISSION;
const raw: DriverDefinition = { ...toyDriver, name: "raw", passThrough: true };

describe("childPermissions", () => {
  // The expected sets are the locks that QEMU 7.2 takes: byte 100 + n is held, byte 200 + n is not shared.
  it("a writable format must hold read, write, resize (locks 100 101 103 201 203)", () => {
    expect(childPermissions(toyDriver, "file", true, defaultPermissions(false))).toEqual({
      held: consistentRead | write | resize,
      shared: consistentRead | writeUnchanged,
    });
  });

  it("a read-only format must hold read and refuse writers (locks 100 201 203)", () => {
    expect(childPermissions(toyDriver, "file", false, defaultPermissions(true))).toEqual({
      held: consistentRead,
      shared: consistentRead | writeUnchanged,
    });
  });

  it("a format that nobody reads must hold nothing and refuse writers (info: locks 201 203)", () => {
    expect(childPermissions(toyDriver, "file", false, NO_PERMISSIONS)).toEqual({
      held: 0,
      shared: consistentRead | writeUnchanged,
    });
  });

  it("raw must pass its users' permissions through (locks 100 101; read-only: 100)", () => {
    const users = defaultPermissions(false);
    expect(childPermissions(raw, "file", true, users)).toEqual(users);
    expect(users).toEqual({ held: consistentRead | write, shared: ALL_PERMISSIONS });
    expect(childPermissions(raw, "file", false, defaultPermissions(true)).held).toBe(
      consistentRead,
    );
  });

  it("a backing file must only be read, and may change when the users share write (lock 100)", () => {
    expect(childPermissions(toyDriver, "backing", true, defaultPermissions(false))).toEqual({
      held: consistentRead,
      shared: ALL_PERMISSIONS,
    });
    const strict = { held: consistentRead, shared: consistentRead };
    expect(childPermissions(toyDriver, "backing", true, strict)).toEqual({
      held: consistentRead,
      shared: consistentRead | writeUnchanged,
    });
  });
});
