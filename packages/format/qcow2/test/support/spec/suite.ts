/** The tests of a set of records: what this driver must do with each, and what QEMU's tools do beside it. */
import { expect, test } from "vitest";
import { describeWithQemu, useScratch } from "../qemu.js";
import {
  clusterSizeOf,
  countsOf,
  guestOf,
  openRecord,
  refusalOf,
  repaired,
  writeEnds,
  WRITTEN,
} from "./judge.js";
import { judgeWithQemu, type QemuVerdict } from "./qemu-judge.js";
import { type Counts, type Refusal, SOUND_GUEST, type SpecRecord } from "./record.js";

/** Of so many records one is shown to QEMU's tools, and of each row of alike ones the first. 1: all of them. */
const STEP = Number(process.env["BLOCKLAYER_SPEC_STEP"] ?? 4);
const TIMEOUT_MS = 300_000;
/** One image takes milliseconds; the rest is a busy machine. */
const MAX_RECORD_MS = 20_000;

const NOTHING: Counts = { corruptions: 0, leaks: 0, checkErrors: 0 };

/** What this driver did with one. */
interface Outcome {
  readonly read: Refusal | undefined;
  readonly info: boolean;
  readonly guest: string | undefined;
  readonly guestBytes: number | undefined;
  readonly write: Refusal | undefined;
  readonly check: Counts | Refusal;
  readonly leaks: Counts | Refusal;
  readonly all: Counts | Refusal;
  readonly repairedBytes: Uint8Array;
}

function isRefusal(answer: Counts | Refusal): answer is Refusal {
  return "code" in answer;
}

function isClean({ corruptions, leaks, checkErrors }: Counts): boolean {
  return corruptions + leaks + checkErrors === 0;
}

async function outcomeOf(record: SpecRecord, bytes: Uint8Array): Promise<Outcome> {
  let guest: string | undefined;
  let guestBytes: number | undefined;
  let info = false;
  const read = await refusalOf(async () => {
    const { disk, memory } = await openRecord(record, bytes, true);
    guestBytes = disk.lengthBytes;
    guest = await guestOf(disk, record.pieceBytes ?? clusterSizeOf(bytes));
    info = (await refusalOf(() => disk.formatInfo())) === undefined;
    await disk.close();
    expect({ written: Buffer.compare(memory.bytes, bytes) }).toEqual({ written: 0 });
  });
  const { refusal: write, bytes: written } = await writeEnds(record, bytes);
  const check = await countsOf(bytes);
  const leaks = await repaired(bytes, "leaks");
  const all = await repaired(bytes, "all");
  const outcome = { read, info, guest, guestBytes, write, check };
  if (write === undefined && guest !== undefined) await expectWritten(record, written, outcome);
  return { ...outcome, leaks: leaks.counts, all: all.counts, repairedBytes: all.bytes };
}

/** What was written is there, what was not is as it was, and nothing is more broken than before. */
async function expectWritten(
  record: SpecRecord,
  written: Uint8Array | undefined,
  before: Pick<Outcome, "guest" | "check">,
): Promise<void> {
  if (written === undefined || record.dataFile !== undefined) return;
  // A cluster in use whose refcount is 0 is free for whoever writes.
  if (isRefusal(before.check) || before.check.corruptions > 0) return;
  const { disk } = await openRecord(record, written, true);
  const clusterSize = clusterSizeOf(written);
  const pieceBytes = record.pieceBytes ?? clusterSize;
  const after = (await guestOf(disk, pieceBytes)) ?? "";
  await disk.close();
  const pieces = clusterSize / pieceBytes;
  const last = 15 * pieces;
  const was = before.guest ?? "";
  const isLong = was.length >= last + pieces;
  const expected = was.split("").map((piece, i) => {
    if (i < pieces && was.length >= pieces) return String(WRITTEN.first);
    return isLong && i >= last && i < last + pieces ? String(WRITTEN.last) : piece;
  });
  const { line } = record;
  expect.soft({ line, after }).toEqual({ line, after: expected.join("") });
  const counts = await countsOf(written);
  if (isRefusal(counts)) throw new Error("the header is refused");
  const { corruptions } = counts;
  expect.soft({ line, corruptions }).toEqual({ line, corruptions: 0 });
}

function matcher(refusal: Refusal | undefined): unknown {
  if (refusal === undefined) return undefined;
  return { ...refusal, rule: expect.stringContaining(refusal.rule) };
}

/** A structure that a record does not name may be any. */
function told(refusal: Refusal | undefined, expected: Refusal | undefined): unknown {
  if (refusal === undefined || expected?.structure !== undefined) return refusal;
  const { structure: _any, ...rest } = refusal;
  return rest;
}

function expectOutcome({ line, expected }: SpecRecord, outcome: Outcome): void {
  const { read, write, guest, check, leaks, all } = outcome;
  const found = { ...NOTHING, ...expected.check };
  const refuses = expected.repair ?? expected.read;
  const isHeader = isRefusal(check);
  expect
    .soft({
      line,
      read: told(read, expected.read),
      write: told(write, expected.write),
      ...(guest === undefined ? {} : { guest }),
    })
    .toEqual({
      line,
      read: matcher(expected.read),
      write: matcher(expected.write),
      ...(guest === undefined ? {} : { guest: expected.guest ?? SOUND_GUEST }),
    });
  if (isHeader) {
    expect.soft({ line, check: told(check, refuses) }).toEqual({ line, check: matcher(refuses) });
    return;
  }
  expect.soft({ line, check, leaks, all }).toEqual({
    line,
    check: found,
    leaks: { ...NOTHING, corruptions: found.corruptions, ...expected.leftByLeaks },
    all: { ...NOTHING, ...expected.left },
  });
}

function sampleOf(records: readonly SpecRecord[]): readonly SpecRecord[] {
  const seen = new Set<string>();
  return records.filter(({ line, row, differs, unjudged }, i) => {
    if (unjudged !== undefined) return false;
    const family = line.replaceAll(/\d+/g, "");
    const isNew = !seen.has(family);
    seen.add(family);
    if (STEP === 1) return true;
    return row === true ? isNew : i % STEP === 0 || differs !== undefined;
  });
}

/** What both say, where a record does not tell that they differ. */
function expectAlike({ line, differs = {} }: SpecRecord, ours: Outcome, theirs: QemuVerdict): void {
  const { words } = theirs;
  const isWhole = ours.guest !== undefined && !ours.guest.includes("!");
  const pairs = {
    read: [ours.read === undefined, theirs.read],
    info: [ours.info, theirs.info],
    write: [ours.write === undefined, theirs.write],
    guest: [isWhole ? ours.guest : undefined, theirs.guest],
    check: [isRefusal(ours.check) ? undefined : ours.check, theirs.check],
    repaired: [isRefusal(ours.all) ? undefined : isClean(ours.all), theirs.repaired],
  };
  for (const [what, [our, their]] of Object.entries(pairs)) {
    const isAlike = JSON.stringify(our) === JSON.stringify(their);
    const isTold = differs[what as keyof typeof differs] !== undefined;
    if (isAlike !== isTold) continue;
    const alike = isTold ? "not alike, or the record tells a difference that is none" : their;
    expect.soft({ line, what, words, says: our }).toEqual({ line, what, words, says: alike });
  }
}

/** Runs the tests of a set of records. */
export function describeRecords(records: readonly SpecRecord[]): void {
  const outcomes = new Map<SpecRecord, Promise<Outcome>>();
  const outcomeFor = (record: SpecRecord): Promise<Outcome> => {
    const known = outcomes.get(record) ?? outcomeOf(record, record.build().bytes);
    outcomes.set(record, known);
    return known;
  };

  test(
    `must become of each image what the specification says, ${records.length} of them`,
    async () => {
      for (const record of records) {
        const started = performance.now();
        expectOutcome(record, await outcomeFor(record));
        expect(performance.now() - started).toBeLessThan(MAX_RECORD_MS);
      }
    },
    TIMEOUT_MS,
  );

  test("must have no line twice", () => {
    const lines = records.map(({ line }) => line);
    expect(lines.length).toBe(new Set(lines).size);
  });

  describeWithQemu("beside QEMU's tools", () => {
    const scratch = useScratch();
    const sample = sampleOf(records);

    test(
      `must be alike for ${sample.length} images, but where the record says why not`,
      async () => {
        const queue = [...sample.entries()];
        const worker = async (): Promise<void> => {
          for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
            const [index, record] = next;
            const bytes = record.build().bytes;
            const ours = await outcomeFor(record);
            const theirs = await judgeWithQemu(scratch(String(index)), record, bytes, {
              ...(ours.guestBytes === undefined ? {} : { guestBytes: ours.guestBytes }),
              ...(isRefusal(ours.all) ? {} : { repaired: ours.repairedBytes }),
            });
            expectAlike(record, ours, theirs);
          }
        };
        await Promise.all([worker(), worker()]);
        expect(queue).toEqual([]);
      },
      TIMEOUT_MS,
    );
  });
}
