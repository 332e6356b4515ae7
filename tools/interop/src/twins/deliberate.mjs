// Where the twins may part: each difference with its reason. A difference of guest bytes or in a check is none of these.
//
// What else is not compared, or not asked of QEMU, stands where it is left out: judge.mjs (`twinForm`, `mapForm`),
// looseness.mjs, marked-ranges.mjs, twin-pair.mjs (`rebased`, `#mayCompress`, `#isBeyondQemu`, `#clearStale`, `#afterFailure`).

import { DOES_NOT_END } from "../programs.mjs";

/**
 * @typedef {import("../programs.mjs").Outcome} Outcome
 * @typedef {{step: import("./plan.mjs").Step, ours: Outcome, theirs: Outcome}} Parting
 * @typedef {object} Deliberate
 * @property {string} why
 * @property {"ours" | "theirs"} right - whose images both go on with
 * @property {(parting: Parting) => boolean} fits
 */

/** Steps that one tool does and the other refuses. @type {readonly Deliberate[]} */
const PARTINGS = [
  {
    why: "compat=0.10 would lose the bitmaps of the image, and QEMU 7.2 loses them without a word",
    right: "ours",
    fits: ({ step, ours }) =>
      step.words?.[0] === "amend" && /Bitmaps prevent downgrade/.test(ours.stderr),
  },
  {
    why: "compat=0.10 is refused for images with snapshots; QEMU 7.2 looks at what each of them needs",
    right: "ours",
    fits: ({ step, ours }) =>
      step.words?.[0] === "amend" && /Internal snapshots prevent downgrade/.test(ours.stderr),
  },
  {
    why: "QEMU 7.2 cannot make a version 2 image longer over a longer backing file; blk writes the zeroes",
    right: "ours",
    fits: ({ step, theirs }) =>
      /^(resize|commit)$/.test(step.words?.[0] ?? "") &&
      /(Failed to zero out new clusters|Block job failed): Operation not supported/.test(
        theirs.stderr,
      ),
  },
  {
    why: "QEMU 7.2 sets no space aside in a file that is longer than what its clusters in use need",
    right: "ours",
    fits: ({ step, ours, theirs }) =>
      step.words?.[0] === "resize" &&
      ours.status === 0 &&
      theirs.stderr.includes("Cannot use preallocation for shrinking files"),
  },
  {
    why: "QEMU 7.2 does not end when it changes the width of some images' refcounts",
    right: "ours",
    fits: ({ step, ours, theirs }) =>
      step.words?.[0] === "amend" && ours.status === 0 && theirs.stderr.includes(DOES_NOT_END),
  },
];

/** The reason for which one tool may succeed where the other fails; `undefined` when there is none. @param {Parting} parting */
export function reasonToPart(parting) {
  return PARTINGS.find(({ fits }) => fits(parting));
}
