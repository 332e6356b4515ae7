/** The specification, line by line: tables. See support/spec/record.ts. */
import { describe } from "vitest";
import { RECORDS } from "./support/spec/index.js";
import { describeRecords } from "./support/spec/suite.js";

describe.each(["refcounts", "mapping", "compressed", "extended"] as const)(
  "a line about %s",
  (structure) => {
    describeRecords(RECORDS[structure]);
  },
);
