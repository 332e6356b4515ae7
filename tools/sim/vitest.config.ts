import shared from "@blocklayer/test-config";
import { mergeConfig } from "vitest/config";

export default mergeConfig(shared, { test: { testTimeout: 120_000 } });
