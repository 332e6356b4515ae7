/** `blk check` for people, as qemu-img words it. */
import type { CheckResult } from "@blocklayer/block-api";
import type { ImageCheck } from "@blocklayer/image";
import { percentText } from "./percent.js";

/** What a repair came to, before the second look. */
export function repairText({ corruptionsFixed = 0, leaksFixed = 0 }: CheckResult): string {
  return (
    "The following inconsistencies were found and repaired:\n\n" +
    `    ${leaksFixed} leaked clusters\n` +
    `    ${corruptionsFixed} corruptions\n\n` +
    "Double checking the fixed image now...\n"
  );
}

/** The summary that goes to standard output. */
export function checkText(check: ImageCheck): string {
  const { corruptions = 0, leaks = 0, "check-errors": checkErrors } = check;
  let text = "";
  if (corruptions + leaks + checkErrors === 0) text += "No errors were found on the image.\n";
  if (corruptions > 0) {
    text += `\n${corruptions} errors were found on the image.\n`;
    text += "Data may be corrupted, or further writes to the image may corrupt it.\n";
  }
  if (leaks > 0) {
    text += `\n${leaks} leaked clusters were found on the image.\n`;
    text += "This means waste of disk space, but no harm to data.\n";
  }
  if (checkErrors > 0) text += `\n${checkErrors} internal errors have occurred during the check.\n`;
  return text + clusterLine(check) + endLine(check);
}

function clusterLine(check: ImageCheck): string {
  const total = check["total-clusters"] ?? 0;
  const allocated = check["allocated-clusters"] ?? 0;
  if (total === 0 || allocated === 0) return "";
  const percent = (part: number, whole: number) => `${percentText((part * 100) / whole)}%`;
  const fragmented = percent(check["fragmented-clusters"] ?? 0, allocated);
  const compressed = percent(check["compressed-clusters"] ?? 0, allocated);
  return `${allocated}/${total} = ${percent(allocated, total)} allocated, ${fragmented} fragmented, ${compressed} compressed clusters\n`;
}

function endLine(check: ImageCheck): string {
  const end = check["image-end-offset"] ?? 0;
  return end > 0 ? `Image end offset: ${end}\n` : "";
}
