import shared from "@blocklayer/test-config";
import { mergeConfig } from "vitest/config";

// A browser starts once, and the first page of a busy machine takes its time.
export default mergeConfig(shared, { test: { testTimeout: 60_000, hookTimeout: 60_000 } });
