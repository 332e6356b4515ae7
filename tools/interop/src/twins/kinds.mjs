// What kinds of steps a run had, so that one can see what a number of lists stands for.

/** Flags that make another kind of step of a command. */
const FLAGS =
  /^(-[acdlnBuS]|--(add|remove|clear|enable|disable|merge|bitmaps|shrink|preallocation=.*))$/;

/**
 * The kinds that a step is of: its command with each flag, and the options of a new image.
 *
 * @param {import("./plan.mjs").Step} step
 * @returns {string[]}
 */
export function kindsOf(step) {
  switch (step.does) {
    case "io":
      return [`io ${step.op.kind}`, ...ioFlags(step.op)];
    case "damage":
      return [`check -r ${step.words[3]} of damage: ${step.what}`];
    case "img":
      return imgKinds(step.words);
    default:
      return [step.does];
  }
}

function ioFlags({ kind, fua, source, noFallback }) {
  const flags = { fua, noise: source !== undefined, "no fallback": noFallback };
  return Object.keys(flags).flatMap((name) => (flags[name] ? [`io ${kind}, ${name}`] : []));
}

function imgKinds(words) {
  const [command, ...rest] = words;
  const options = rest[rest.indexOf("-o") + 1]?.split(",") ?? [];
  if (command === "amend") return options.map((option) => `amend ${option}`);
  if (command === "check") return [`check -r ${rest[rest.indexOf("-r") + 1]}`];
  const flags = rest.filter((word) => FLAGS.test(word)).map((flag) => `${command} ${flag}`);
  const isMaking = rest.includes("-o") && (command === "create" || command === "convert");
  const hasBacking = isMaking && (rest.includes("-b") || rest.includes("-B"));
  const made = isMaking
    ? options.map((option) => `-o ${option.replace(/^data_file=.*/, "data_file")}`)
    : [];
  return [command, ...flags, ...made, ...(hasBacking ? ["-o backing_file"] : [])];
}

/**
 * Lines for people: each kind, how many steps of it succeeded, and how many both tools refused.
 *
 * @param {ReadonlyMap<string, {succeeded: number, refused: number}>} kinds
 */
export function kindLines(kinds) {
  return [...kinds]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([kind, { succeeded, refused }]) => {
      const rest = refused === 0 ? "" : `, and ${refused} that both refused`;
      return `${kind}: ${succeeded}${rest}`;
    });
}
