import shared from "@blocklayer/test-config";
import { mergeConfig } from "vitest/config";

// A case spends half its time in waits for qemu-img and for the host's disk: some side by side fill them.
export default mergeConfig(shared, {
  test: { testTimeout: 60_000, maxConcurrency: 6, maxWorkers: 2 },
});
