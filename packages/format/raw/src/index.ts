/** The raw format. Start reading in definition.ts. */
export { openRaw, rawDriver } from "./definition.js";
export { RawDriver, type RawOptions } from "./raw-driver.js";
