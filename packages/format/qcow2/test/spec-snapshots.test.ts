/** The specification, line by line: snapshots. See support/spec/record.ts. */
import { describe } from "vitest";
import { RECORDS } from "./support/spec/index.js";
import { describeRecords } from "./support/spec/suite.js";

describe.each(["snapshots"] as const)("a line about %s", (structure) => {
  describeRecords(RECORDS[structure]);
});
