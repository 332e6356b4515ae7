/** A percentage as C's `%.2f` prints it: a tie goes to the even digit, where toFixed always goes up. */

/** @param percent - 0 or more */
export function percentText(percent: number): string {
  const hundredths = percent * 100;
  const below = Math.floor(hundredths);
  const isTie = hundredths - below === 0.5;
  return (isTie ? (below + (below % 2)) / 100 : percent).toFixed(2);
}
