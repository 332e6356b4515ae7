/**
 * Which combinations of outcomes a crash may leave: all of them while they are few, seeded samples above.
 *
 * Pure. A combination is an array of outcome numbers, one for each pending change, 0 for "lost".
 */
import type { Random } from "./random.js";

/** What to choose from. */
export interface ChoiceSpace {
  /** For each pending change the number of its outcomes. */
  readonly radices: readonly number[];
  /** For each change the least outcome: 1 where it cannot be lost. */
  readonly least: readonly number[];
}

/** How many times over a sample that was drawn before is drawn anew. */
const MAX_REDRAWS_PER_SAMPLE = 8;

/**
 * Combinations, all different. Those that come one after the other agree in their first places as far as
 * possible, so that a store built for one serves the next.
 *
 * @param maximum - how many at most
 */
export function* combinations(
  space: ChoiceSpace,
  maximum: number,
  random: Random,
): Generator<readonly number[]> {
  if (combinationCount(space, maximum) <= maximum) yield* allCombinations(space);
  else yield* sampledCombinations(space, maximum, random);
}

/** How many there are; any number above `limit` when there are more. */
function combinationCount(space: ChoiceSpace, limit: number): number {
  let count = 1;
  for (let i = 0; i < space.radices.length && count <= limit; i++) {
    count *= (space.radices[i] as number) - (space.least[i] as number);
  }
  return count;
}

/** Counts through them, the last place fastest. */
function* allCombinations(space: ChoiceSpace): Generator<readonly number[]> {
  const digits = [...space.least];
  for (;;) {
    yield digits.slice();
    let place = digits.length - 1;
    while (place >= 0 && (digits[place] as number) + 1 >= (space.radices[place] as number)) {
      digits[place] = space.least[place] as number;
      place--;
    }
    if (place < 0) return;
    digits[place] = (digits[place] as number) + 1;
  }
}

/** The telling ones first (all kept, none, all but one, one alone), then random ones. */
function* sampledCombinations(
  space: ChoiceSpace,
  maximum: number,
  random: Random,
): Generator<readonly number[]> {
  const seen = new Set<string>();
  const isNew = (digits: readonly number[]): boolean => {
    const size = seen.size;
    return seen.add(digits.join(",")).size > size;
  };
  for (const digits of tellingCombinations(space, random)) {
    if (seen.size >= maximum) return;
    if (isNew(digits)) yield digits;
  }
  let redraws = maximum * MAX_REDRAWS_PER_SAMPLE;
  while (seen.size < maximum && redraws-- > 0) {
    const digits = randomCombination(space, random);
    if (isNew(digits)) yield digits;
  }
}

function* tellingCombinations(space: ChoiceSpace, random: Random): Generator<number[]> {
  const none = [...space.least];
  const all = space.radices.map(() => 1);
  yield all;
  yield none;
  const places = random.shuffled(all.map((_, index) => index));
  for (const place of places) {
    yield all.map((digit, index) => (index === place ? (space.least[index] as number) : digit));
    yield none.map((digit, index) => (index === place ? 1 : digit));
  }
}

function randomCombination(space: ChoiceSpace, random: Random): number[] {
  // The share that is kept differs too: halves alone would hardly ever show "nearly all" or "nearly none".
  const share = random.fraction();
  return space.radices.map((radix, index) => {
    const least = space.least[index] as number;
    if (least === 0 && random.fraction() > share) return 0;
    return radix > 2 && random.oneIn(3) ? random.between(2, radix - 1) : 1;
  });
}
