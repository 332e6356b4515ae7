import { defineConfig } from "vitest/config";

/** `npm run test:long`: a share of fresh seeds, one part after the other, since each takes every processor. */
export default defineConfig({
  test: {
    include: ["long/**/*.test.ts"],
    fileParallelism: false,
    testTimeout: 1_800_000,
  },
});
