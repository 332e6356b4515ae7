/**
 * Options as one word of a command line: the `key=value,key=value` of qemu-img's `-o` and `--image-opts`.
 *
 * 1. A comma in a value is doubled: `backing_file=a,,b` names `a,b`.
 * 2. A key without a value means `on`.
 */
import { BlockError } from "@blocklayer/bytes";

/** The longest option string that is read. */
const MAX_TEXT_LENGTH = 64 * 1024;

/**
 * Takes an option string apart, in order. What a repeated key means is the caller's to say.
 *
 * @throws BlockError `EINVAL` for an empty key or a string that is too long
 * @example parseKeyValues("size=1G,backing_file=a,,b") // [["size", "1G"], ["backing_file", "a,b"]]
 */
export function parseKeyValues(text: string): readonly (readonly [key: string, value: string])[] {
  if (text.length > MAX_TEXT_LENGTH) {
    throw new BlockError("EINVAL", `option string is longer than ${MAX_TEXT_LENGTH} characters`);
  }
  return splitAtSingleCommas(text).map((part) => {
    const equals = part.indexOf("=");
    if (equals === 0 || part === "") {
      throw new BlockError("EINVAL", `option string '${text}': a key is missing`);
    }
    return equals < 0 ? [part, "on"] : [part.slice(0, equals), part.slice(equals + 1)];
  });
}

function splitAtSingleCommas(text: string): string[] {
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
