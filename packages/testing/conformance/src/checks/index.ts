/** All checks, in the order in which a reader of the contract meets the promises. */
import type { ConformanceCheck } from "../source.js";
import { concurrencyChecks } from "./concurrency.js";
import { declarationChecks } from "./declarations.js";
import { lengthChecks } from "./length.js";
import { lifecycleChecks } from "./lifecycle.js";
import { modelChecks } from "./model.js";
import { readWriteChecks } from "./read-write.js";
import { refusalChecks } from "./refusals.js";
import { statusChecks } from "./status.js";
import { zeroDiscardChecks } from "./zero-discard.js";

/** Every promise of the contract, as a function that throws when a driver breaks it. */
export const conformanceChecks: readonly ConformanceCheck[] = [
  ...declarationChecks,
  ...readWriteChecks,
  ...zeroDiscardChecks,
  ...statusChecks,
  ...concurrencyChecks,
  ...lengthChecks,
  ...lifecycleChecks,
  ...refusalChecks,
  ...modelChecks,
];
