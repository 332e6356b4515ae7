/** The suite that every driver runs. Start reading in source.ts. */
export { conformanceChecks } from "./checks/index.js";
export { ConformanceError } from "./expectation.js";
export { pattern, split } from "./pattern.js";
export {
  type CheckOutcome,
  type ConformanceCheck,
  type DriverSource,
  type DriverTarget,
  through,
} from "./source.js";
export { driverSuite } from "./suite.js";
