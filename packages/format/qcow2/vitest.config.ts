import config from "@blocklayer/test-config";
import { mergeConfig } from "vitest/config";
import { countReporter } from "./test/support/count-reporter.js";

export default mergeConfig(config, { test: { reporters: [countReporter()] } });
