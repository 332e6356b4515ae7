/** Filters: nodes that pass the disk of their child through, and do something on the way. */
export {
  blkdebugDriver,
  createBlkdebugDriver,
  type BlkdebugSurroundings,
} from "./blkdebug/definition.js";
export { BlkdebugDriver } from "./blkdebug/driver.js";
export { parseRulesFile } from "./blkdebug/rules-file.js";
export type {
  BlkdebugRules,
  InjectRule,
  IoType,
  StateRule,
  SuspendRule,
} from "./blkdebug/rules.js";
