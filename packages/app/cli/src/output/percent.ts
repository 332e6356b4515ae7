/** Numbers as C's `%.2f` and `%.3f` print them: a tie goes to the even digit, where toFixed always goes up. */

/** @param percent - 0 or more */
export function percentText(percent: number): string {
  return fixedText(percent, 2);
}

/** @param value - 0 or more, and so small that its last digit still counts */
export function fixedText(value: number, digits: number): string {
  const unit = 10 ** digits;
  const below = Math.floor(value * unit);
  const isTie = value * unit - below === 0.5;
  return (isTie ? (below + (below % 2)) / unit : value).toFixed(digits);
}
