// The picture of the stack that ARCHITECTURE.md shows: a row a rank, the highest on top.

export const BEGIN = "<!-- layers:begin (npm run layers -- --write) -->";
export const END = "<!-- layers:end -->";

/** @param {import("./read-house.mjs").House} house */
export function picture(house) {
  const byName = new Map(house.packages.map((one) => [one.name, one]));
  const ranks = [...new Set(Object.values(house.ranks))].sort((a, b) => b - a);
  const width = Math.max(...house.packages.map((one) => one.path.length));
  const lines = ["rank  shelf/package" + " ".repeat(width - 11) + "imports"];
  for (const rank of ranks) {
    for (const one of house.packages.filter((one) => house.ranks[one.path] === rank)) {
      const below = one.dependencies
        .map((name) => byName.get(name))
        .filter((target) => target !== undefined)
        .sort((a, b) => house.ranks[a.path] - house.ranks[b.path])
        .map((target) => target.path.split("/")[1]);
      lines.push(
        `${String(rank).padStart(4)}  ${one.path.padEnd(width)}  ${below.join(" ") || "–"}`,
      );
    }
  }
  return ["```", ...lines, "```"].join("\n");
}

/** The document with the picture between its marks replaced. */
export function withPicture(document, drawn) {
  const begin = document.indexOf(BEGIN);
  const end = document.indexOf(END);
  if (begin < 0 || end < begin) throw new Error(`ARCHITECTURE.md has no '${BEGIN}' … '${END}'`);
  return `${document.slice(0, begin + BEGIN.length)}\n${drawn}\n${document.slice(end)}`;
}
