import shared from "@blocklayer/test-config";
import { mergeConfig } from "vitest/config";

// Processes, since the tests change their working directory: command lines name files as people do.
export default mergeConfig(shared, { test: { pool: "forks", testTimeout: 20_000 } });
