/** The long run: a fault at every occurrence of every event. About a minute. */
import { mergeConfig } from "vitest/config";
import config from "@blocklayer/test-config";

const long = mergeConfig(config, { test: { env: { BLOCKLAYER_FAULT_RUNS: "every" } } });

// Lists are merged by appending: what is included must be set, not merged.
export default { ...long, test: { ...long.test, include: ["test/qcow2-event-faults.test.ts"] } };
