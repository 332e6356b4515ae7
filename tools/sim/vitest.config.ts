/** How long a test takes depends on who else is here; what hangs is found by the pool. */
import shared from "@blocklayer/test-config";
import { mergeConfig } from "vitest/config";

export default mergeConfig(shared, { test: { testTimeout: 900_000 } });
