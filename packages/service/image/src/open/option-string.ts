/**
 * The `key=value,key=value` strings of qemu-img's `-o`.
 *
 * 1. A comma in a value is doubled: `backing_file=a,,b` names `a,b`.
 * 2. A key without a value means `on`.
 */
import { BlockError } from "@blocklayer/bytes";

/** Longest option string, that is read. */
const MAX_TEXT_LENGTH = 64 * 1024;

/**
 * Takes an option string apart, in order.
 *
 * @param impliedKey - the key of a first part that has no `=`
 * @throws BlockError `EINVAL` for an empty key or a string that is too long
 * @example parseKeyValues("size=1G,backing_file=a,,b") // [["size", "1G"], ["backing_file", "a,b"]]
 */
export function parseKeyValues(
  text: string,
  impliedKey?: string,
): readonly (readonly [key: string, value: string])[] {
  if (text.length > MAX_TEXT_LENGTH) {
    throw new BlockError("EINVAL", `option string is longer than ${MAX_TEXT_LENGTH} characters`);
  }
  const pairs: (readonly [string, string])[] = [];
  for (const [index, part] of splitAtSingleCommas(text).entries()) {
    const equals = part.indexOf("=");
    if (equals > 0) pairs.push([part.slice(0, equals), part.slice(equals + 1)]);
    else if (equals === 0 || part === "") throw emptyKey(text);
    else if (index === 0 && impliedKey !== undefined) pairs.push([impliedKey, part]);
    else pairs.push([part, "on"]);
  }
  return pairs;
}

function emptyKey(text: string): BlockError {
  return new BlockError("EINVAL", `option string '${text}': a key is missing`);
}

function splitAtSingleCommas(text: string): string[] {
  if (text === "") return [];
  const parts: string[] = [];
  let current = "";
  for (let i = 0; i < text.length; i++) {
    if (text[i] !== ",") current += text[i];
    else if (text[i + 1] === ",") {
      current += ",";
      i++;
    } else {
      parts.push(current);
      current = "";
    }
  }
  // A single comma at the very end is allowed, as in QEMU.
  if (current !== "") parts.push(current);
  return parts;
}

/**
 * Reads what stands behind one or several `-o`. A later value replaces an earlier one; `help` alone is a key too.
 *
 * @throws BlockError `EINVAL`
 * @example parseOptionString("cluster_size=2M,lazy_refcounts") // { cluster_size: "2M", lazy_refcounts: "on" }
 */
export function parseOptionString(texts: string | readonly string[]): Record<string, string> {
  const all = typeof texts === "string" ? [texts] : texts;
  return Object.fromEntries(all.flatMap((text) => parseKeyValues(text)));
}

/** Whether a value is a plain record. */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
