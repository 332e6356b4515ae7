import { defineConfig } from "vitest/config";

/** `npm run test:long`: disks of gigabytes, one after the other, so that what is measured is measured alone. */
export default defineConfig({
  test: {
    include: ["long/**/*.test.ts"],
    fileParallelism: false,
    maxConcurrency: 6,
    testTimeout: 1_200_000,
    hookTimeout: 600_000,
  },
});
