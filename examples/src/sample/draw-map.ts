/** A disk as a strip of characters, and its bytes by kind. */

export type Kind = "compressed" | "data" | "zero";

/** A stretch of one kind. */
export interface Stretch {
  readonly kind: Kind;
  readonly bytes: number;
}

const SIGNS: Readonly<Record<Kind, string>> = { compressed: "▓", data: "█", zero: "·" };
const COLUMNS = 64;
const ROWS = 4;

/** Bytes by kind. */
export function tally(stretches: readonly Stretch[]): Record<Kind, number> {
  const sums: Record<Kind, number> = { compressed: 0, data: 0, zero: 0 };
  for (const { kind, bytes } of stretches) sums[kind] += bytes;
  return sums;
}

/**
 * Draws the disk, row by row; a cell shows what most of its bytes are, and any data wins over zeroes.
 *
 * @param stretches - in order, covering the disk
 * @param totalBytes - the disk's length
 */
export function drawMap(stretches: readonly Stretch[], totalBytes: number): string {
  const cells = COLUMNS * ROWS;
  const perCell = totalBytes / cells;
  const sums = Array.from({ length: cells }, () => tally([]));
  let at = 0;
  for (const { kind, bytes } of stretches) {
    const end = at + bytes;
    for (let cell = Math.floor(at / perCell); cell < cells && cell * perCell < end; cell++) {
      const overlap = Math.min(end, (cell + 1) * perCell) - Math.max(at, cell * perCell);
      const sum = sums[cell];
      if (sum !== undefined) sum[kind] += overlap;
    }
    at = end;
  }
  const signs = sums.map(({ compressed, data }) =>
    compressed + data === 0 ? SIGNS.zero : compressed >= data ? SIGNS.compressed : SIGNS.data,
  );
  const rows = Array.from(
    { length: ROWS },
    (_, row) => `  ${signs.slice(row * COLUMNS, (row + 1) * COLUMNS).join("")}`,
  );
  return `${rows.join("\n")}\n  ${SIGNS.compressed} compressed  ${SIGNS.data} plain  ${SIGNS.zero} zeroes`;
}
