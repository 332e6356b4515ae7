/** `blk` as a function: its words in, its exit status out. Start reading in program.ts. */
export { run } from "./program.js";
export { DRIVERS } from "./registry.js";
export type { Command, Terminal } from "./terminal.js";
