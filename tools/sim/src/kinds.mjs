// What differs between plain configurations and those whose images are changed as a whole.
import { GuestRun } from "./guest-run.mjs";
import { Inspector } from "./inspect.mjs";
import { UpkeepInspector } from "./upkeep-inspect.mjs";
import { UpkeepRun } from "./upkeep-run.mjs";

/** Runs the list of a configuration. */
export function runOf(/** @type {import("./stack.mjs").Stack} */ stack, trace) {
  return stack.config.upkeep === undefined
    ? new GuestRun(stack, trace)
    : new UpkeepRun(stack, trace);
}

/** Looks at images of a configuration. */
export function inspectorOf(/** @type {import("./config.mjs").SimConfig} */ config) {
  return config.upkeep === undefined ? new Inspector(config) : new UpkeepInspector(config);
}
