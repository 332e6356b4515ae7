/** The long run: tens of thousands of broken images, every crash of many runs, and twins. About a quarter of an hour. */
import { mergeConfig } from "vitest/config";
import config from "./vitest.config.js";

const { env } = process;

const long = mergeConfig(config, {
  test: {
    env: {
      BLOCKLAYER_FUZZ_RUNS: env["BLOCKLAYER_FUZZ_RUNS"] ?? "20000",
      BLOCKLAYER_REPAIR_RUNS: env["BLOCKLAYER_REPAIR_RUNS"] ?? "3000",
      BLOCKLAYER_MODEL_RUNS: env["BLOCKLAYER_MODEL_RUNS"] ?? "40",
      BLOCKLAYER_CRASH_RUNS: env["BLOCKLAYER_CRASH_RUNS"] ?? "12",
      BLOCKLAYER_SPEC_RUNS: env["BLOCKLAYER_SPEC_RUNS"] ?? "3",
      BLOCKLAYER_SPEC_STEP: env["BLOCKLAYER_SPEC_STEP"] ?? "1",
      BLOCKLAYER_TWIN_RUNS: env["BLOCKLAYER_TWIN_RUNS"] ?? "240",
    },
  },
});

export default {
  ...long,
  test: {
    ...long.test,
    include: [
      "test/{fuzz-open,fuzz-write,fuzz-repair,crash,repair-crash,model}.test.ts",
      "test/spec-*.test.ts",
      "test/{snapshot-crash,snapshot-model,extended-l2}.test.ts",
    ],
  },
};
