/** The part of the matrix that is worth its time at every run; `npm run test:long` has all of it. */
import { join } from "node:path";
import { expect, test } from "vitest";
import { differenceOf, GEOMETRIES } from "../src/images.mjs";
import { qemuImg, tryBlk, tryProgram } from "../src/programs.mjs";
import { type MatrixCase, matrixSuite } from "./matrix-suite.js";
import { describeWithQemu, withFolder } from "./support.js";

/** Widths of refcounts matter little to what lies below, and old versions little to the depth of a chain. */
function isQuick({ geometry, kind, compressed }: MatrixCase): boolean {
  if (geometry.refcountBits !== 16) return kind === "overlay over overlay" && compressed;
  if (geometry.compat === "1.1") return true;
  return kind === "no backing" || kind === "shorter backing";
}

matrixSuite(isQuick);

describeWithQemu("create", () => {
  test.concurrent.each(GEOMETRIES)("$name must make the bytes of qemu-img's create", (geometry) =>
    withFolder(async (folder) => {
      const [ours, theirs] = [join(folder, "ours.qcow2"), join(folder, "theirs.qcow2")];
      await qemuImg("create", "-q", "-f", "raw", join(folder, "base.raw"), "3M");
      const backing = ["-b", join(folder, "base.raw"), "-F", "raw"];
      for (const extra of [[], backing]) {
        // 200 GiB is too much for clusters of 512 bytes: both must refuse it.
        for (const size of ["0", "512", "10000k", "3G", "200G"]) {
          const words = ["create", "-q", "-f", "qcow2", "-o", geometry.options, ...extra];
          const [us, them] = [
            await tryBlk(...words, ours, size),
            await tryProgram("qemu-img", [...words, theirs, size]),
          ];
          expect(us.status).toBe(them.status);
          if (us.status === 0) expect(await differenceOf(ours, theirs)).toBeUndefined();
        }
      }
    }),
  );
});
