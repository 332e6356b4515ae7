/** The long run: a fault at every occurrence of every event. About a minute. */
import { mergeConfig } from "vitest/config";
import config from "@blocklayer/test-config";

export default mergeConfig(config, {
  test: {
    env: { BLOCKLAYER_FAULT_RUNS: "every" },
    include: ["test/qcow2-event-faults.test.ts"],
  },
});
