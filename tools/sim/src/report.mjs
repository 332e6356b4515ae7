// A failure as a program that runs, and as a command that repeats it.

/**
 * @param {import("./config.mjs").Mode} mode
 * @param {number} seed
 * @param {import("./job.mjs").Failure} failure
 * @param {string} [defect]
 */
export function reportOf(mode, seed, failure, defect) {
  const again = `npm run sim -- ${mode} --seed ${seed}${defect === undefined ? "" : ` --defect ${defect}`}`;
  return [
    `${mode}: seed ${seed} fails`,
    indented(failure.message),
    "",
    "The same as a program; save it in tools/sim as replay.mjs and run it with node:",
    "",
    programOf(mode, failure, defect),
    `The whole seed again: ${again}`,
  ].join("\n");
}

/** The program. It exits with an error for as long as the failure is there. */
export function programOf(mode, { config, operations }, defect) {
  const options = defect === undefined ? "" : `, ${JSON.stringify({ defect })}`;
  return [
    'import { replay } from "./src/replay.mjs";',
    "",
    `await replay(${JSON.stringify(mode)}, ${literal(config)}, [`,
    ...operations.map((operation) => `  ${literal(operation)},`),
    `]${options});`,
    "",
  ].join("\n");
}

/** As code: keys without quotes. */
function literal(value) {
  return JSON.stringify(value, undefined, 1)
    .replace(/\n\s*/g, " ")
    .replace(/"([a-zA-Z]\w*)":/g, "$1:");
}

function indented(text) {
  return text
    .split("\n")
    .map((line) => `  ${line}`)
    .join("\n");
}
