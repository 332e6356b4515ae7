import { BlockError } from "@blocklayer/bytes";
import fc from "fast-check";
import { expect, test } from "vitest";
import { parseRulesFile } from "../src/index.js";

test("parseRulesFile() must read sections, comments, and both kinds of names", () => {
  const rules = parseRulesFile(`
# a comment
[inject-error]
event = "write_aio"
errno = "28"
sector = "3"
once = "on"
immediately = "off"
iotype = "write"

[inject-error "named"]
  event="none"
[set-state]
event = "l2_load"
state = "1"
new_state = "2"
[suspend]
event = "read_aio"
tag = "A"
`);
  expect(rules.inject).toMatchObject([
    { event: "write_aio", code: "ENOSPC", offset: 1536, once: true, immediately: false },
    { event: undefined, code: "EIO", offset: undefined, once: false, state: 0 },
  ]);
  expect([...(rules.inject[0]?.ioTypes ?? [])]).toEqual(["write"]);
  expect([...(rules.inject[1]?.ioTypes ?? [])]).not.toContain("block-status");
  expect(rules.states).toEqual([{ event: "l2_load", state: 1, newState: 2 }]);
  expect(rules.suspend).toEqual([{ event: "read_aio", state: 0, tag: "A" }]);
});

test.each([
  ["[frob]", "line 1: section 'frob' is unknown"],
  ['event = "x"', 'line 1: neither [section] nor key = "value"'],
  ["[inject-error]\nevent = write_aio", "line 2: neither"],
  ['[inject-error]\nevent = "frob"', "line 1: inject-error: event 'frob' is unknown"],
  ['[inject-error]\nerrno = "5"', "'event' is missing"],
  ['[inject-error]\nevent = "none"\nerrno = "999"', "'errno' 999 is not known here"],
  ['[inject-error]\nevent = "none"\nerrno = "-5"', "'errno' '-5' is no whole number"],
  ['[inject-error]\nevent = "none"\niotype = "sing"', "'iotype' 'sing' is none of read,"],
  ['[inject-error]\nevent = "none"\nonce = "perhaps"', "'once' 'perhaps' is neither on nor off"],
  ['[inject-error]\nevent = "none"\nfrob = "1"', "'frob' is unknown; known are event,"],
  ['[set-state]\nevent = "l2_load"', "'new_state' is missing"],
  ['[set-state]\nnew_state = "2"', "'event' is missing"],
  ['[suspend]\nevent = "l2_load"', "'tag' is missing"],
  ["x".repeat(2 ** 20 + 1), "the rules file is too long"],
])("parseRulesFile(%j) must be refused with the place", (text, message) => {
  expect(() => parseRulesFile(text)).toThrow(message);
});

test("parseRulesFile() must answer any text with rules or a BlockError", () => {
  const line = fc.oneof(
    fc.constantFrom("[inject-error]", "[set-state]", "[suspend]", '[inject-error "a"]', "#", ""),
    fc
      .tuple(
        fc.constantFrom("event", "errno", "state", "new_state", "sector", "once", "tag", "iotype"),
        fc.oneof(fc.constantFrom("write_aio", "none", "5", "-1", "on"), fc.string()),
      )
      .map(([key, value]) => `${key} = "${value}"`),
    fc.string(),
  );
  fc.assert(
    fc.property(fc.array(line, { maxLength: 20 }), (lines) => {
      let rules = 0;
      try {
        const { inject, states, suspend } = parseRulesFile(lines.join("\n"));
        rules = inject.length + states.length + suspend.length;
      } catch (error) {
        expect(error).toBeInstanceOf(BlockError);
        expect(error).toHaveProperty("code", "EINVAL");
      }
      expect(rules).toBeLessThanOrEqual(lines.length);
    }),
    { numRuns: 2000 },
  );
});

test("parseRulesFile() must take linear time for hostile lines", () => {
  const start = performance.now();
  for (const text of [
    `[${"a-".repeat(200_000)}`,
    `a${" ".repeat(500_000)}=`,
    '"'.repeat(900_000),
  ]) {
    expect(() => parseRulesFile(text)).toThrow(BlockError);
  }
  expect(performance.now() - start).toBeLessThan(2000);
});
