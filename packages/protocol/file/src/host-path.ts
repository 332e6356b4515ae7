/**
 * Paths as the operating system has them: bytes.
 *
 * Above: whoever calls the file system by name. A name that an image holds need not be UTF-8; as a string it would be
 * that of another file.
 */
import { Buffer } from "node:buffer";
import { encodeName, hasOddBytes } from "@blocklayer/bytes";

/** What to call the file system with. */
export function hostPath(filename: string): string | Buffer {
  return hasOddBytes(filename) ? Buffer.from(encodeName(filename)) : filename;
}
