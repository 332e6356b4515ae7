/** The specification, line by line: bitmaps. See support/spec/record.ts. */
import { describe } from "vitest";
import { RECORDS } from "./support/spec/index.js";
import { describeRecords } from "./support/spec/suite.js";

describe.each(["bitmaps"] as const)("a line about %s", (structure) => {
  describeRecords(RECORDS[structure]);
});
