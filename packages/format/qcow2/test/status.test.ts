import { describe, expect, test } from "vitest";
import { CLUSTER, fullBacking, openExtended, SUBCLUSTER } from "./support/extended.js";

describe("blockStatus() with subclusters", () => {
  test("must end its extents where the kind changes, and go on across clusters", async () => {
    const one = await openExtended();
    await one.write(CLUSTER - SUBCLUSTER, 3 * SUBCLUSTER, 1);
    await one.disk.writeZeroes(CLUSTER + 2 * SUBCLUSTER, 2 * SUBCLUSTER);
    const rows: string[] = [];
    for (let at = 0; at < 4 * CLUSTER; ) {
      const status = await one.disk.blockStatus(at, 4 * CLUSTER - at);
      const { lengthBytes, allocated, data, zero, hostOffset } = status;
      const words = `${allocated ? "allocated " : ""}${data ? "data " : ""}${zero ? "zero" : ""}`;
      rows.push(`${at}+${lengthBytes} ${words.trim()} ${hostOffset?.toString(16) ?? "-"}`);
      at += lengthBytes;
    }
    expect(rows).toEqual([
      // What a cluster with data has not is nowhere, and still has its place.
      `0+${CLUSTER - SUBCLUSTER} zero 14000`,
      `${CLUSTER - SUBCLUSTER}+${3 * SUBCLUSTER} allocated data 17e00`,
      `${CLUSTER + 2 * SUBCLUSTER}+${2 * SUBCLUSTER} allocated zero 18400`,
      `${CLUSTER + 4 * SUBCLUSTER}+${CLUSTER - 4 * SUBCLUSTER} zero 18800`,
      `${2 * CLUSTER}+${2 * CLUSTER} zero -`,
    ]);
    await one.disk.close();
  });

  test("must let the backing file decide about subclusters without data, as far as it reaches", async () => {
    const one = await openExtended({ backing: fullBacking(3 * SUBCLUSTER) });
    await one.write(0, SUBCLUSTER, 1);
    expect(await one.disk.blockStatus(SUBCLUSTER, CLUSTER)).toMatchObject({
      lengthBytes: 2 * SUBCLUSTER,
      allocated: false,
      zero: false,
    });
    expect(await one.disk.blockStatus(3 * SUBCLUSTER, CLUSTER)).toMatchObject({
      lengthBytes: CLUSTER - 3 * SUBCLUSTER,
      allocated: false,
      zero: true,
    });
    await one.disk.close();
  });
});
