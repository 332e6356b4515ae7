export { run } from "./program.js";
export { DRIVERS } from "./registry.js";
export type { Command, Terminal } from "./terminal.js";
