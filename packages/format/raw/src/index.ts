export { openRaw, rawDriver } from "./definition.js";
export { RawDriver, type RawOptions } from "./raw-driver.js";
