import { describe, expect, test } from "vitest";
import { DamageError } from "../src/refcount/damage.js";
import { kindsOfLevel, OVERLAP, OverlapIndex } from "../src/refcount/overlap.js";

describe("OverlapIndex", () => {
  test("check() must refuse writes that touch a structure of another kind", () => {
    const index = new OverlapIndex(4096, kindsOfLevel("cached"));
    index.add(OVERLAP.header, 0, 4096);
    index.add(OVERLAP.activeL1, 8192, 100);
    index.add(OVERLAP.activeL2, 16_384, 4096);
    index.add(OVERLAP.refcountBlock, 16_384, 4096);
    expect(() => index.check(4096, 4096, 0)).not.toThrow();
    expect(() => index.check(4095, 1, 0)).toThrow(DamageError);
    expect(() => index.check(4096, 4097, 0)).toThrow("active L1 table");
    expect(() => index.check(8292, 4096, 0)).not.toThrow();
    expect(() => index.check(8192, 8, OVERLAP.activeL1)).not.toThrow();
    // Two structures claim the cluster: neither may write there.
    expect(() => index.check(16_384, 512, OVERLAP.activeL2)).toThrow("refcount block");
    expect(() => index.check(16_384, 512, OVERLAP.refcountBlock)).toThrow("active L2 table");
    index.removeCluster(4);
    expect(() => index.check(16_384, 4096, 0)).not.toThrow();
  });

  test("check() must find a long interval behind many short ones", () => {
    const index = new OverlapIndex(512, kindsOfLevel("all"));
    index.add(OVERLAP.inactiveL1, 0, 1_000_000);
    for (let i = 1; i < 500; i++) index.add(OVERLAP.inactiveL1, i * 1024, 512);
    expect(() => index.check(900_000, 512, 0)).toThrow(DamageError);
    expect(() => index.check(1_000_000, 512, 0)).not.toThrow();
    index.remove(OVERLAP.inactiveL1, 0);
    expect(() => index.check(900_000, 512, 0)).not.toThrow();
    expect(() => index.check(1024 * 300 + 511, 1, 0)).toThrow(DamageError);
  });

  test("add() must take in what the level asks for, and no more", () => {
    const kindsAt = (level: "none" | "constant" | "cached" | "all"): number[] =>
      Object.values(OVERLAP).filter((kind) => {
        const index = new OverlapIndex(512, kindsOfLevel(level));
        index.add(kind, 512, 512);
        try {
          index.check(512, 1, 0);
          return false;
        } catch {
          return true;
        }
      });
    expect(kindsAt("none")).toEqual([]);
    expect(kindsAt("constant").length).toBe(5);
    expect(kindsAt("cached").length).toBe(8);
    expect(kindsAt("all").length).toBe(9);
  });
});
