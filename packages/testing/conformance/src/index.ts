export { conformanceChecks } from "./checks/index.js";
export { ConformanceError } from "./expectation.js";
export { pattern, split } from "./pattern.js";
export {
  type CheckOutcome,
  type ConformanceCheck,
  DEFAULT_LENGTH_BYTES,
  type DriverSource,
  type DriverTarget,
  through,
} from "./source.js";
export { driverSuite } from "./suite.js";
