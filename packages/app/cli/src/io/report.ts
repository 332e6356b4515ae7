/** What a transfer prints when it has ended: how much, how fast. Lines as qemu-io has them. */
import { sizeText } from "./numbers.js";

/** A transfer that ended. */
export interface Transfer {
  /** `read`, `wrote`, `discard`. */
  readonly verb: string;
  readonly offset: number;
  readonly lengthBytes: number;
  readonly milliseconds: number;
}

const SHORTEST_SECONDS = 1e-6;

/**
 * @param isTerse - numbers between commas, for programs (`-C`)
 * @returns one or two lines
 */
export function reportText(
  { verb, offset, lengthBytes, milliseconds }: Transfer,
  isTerse: boolean,
): string {
  const seconds = Math.max(milliseconds / 1000, SHORTEST_SECONDS);
  const perSecond = lengthBytes / seconds;
  if (isTerse) {
    const rates = `${perSecond.toFixed(3)},${(1 / seconds).toFixed(3)}`;
    return `${lengthBytes},1,${clock(seconds, true)},${rates}\n`;
  }
  const rates = `${sizeText(perSecond)}/sec and ${(1 / seconds).toFixed(4)} ops/sec`;
  return (
    `${verb} ${lengthBytes}/${lengthBytes} bytes at offset ${offset}\n` +
    `${sizeText(lengthBytes)}, 1 ops; ${clock(seconds, false)} (${rates})\n`
  );
}

/** `00.12 sec` below a minute, else `0:01:02.03`, which `isFull` asks for always. */
function clock(seconds: number, isFull: boolean): string {
  const hundredths = Math.floor(seconds * 100);
  const two = (value: number): string => String(value).padStart(2, "0");
  const rest = `${two(Math.floor(hundredths / 100) % 60)}.${two(hundredths % 100)}`;
  if (!isFull && seconds < 60) return `${rest} sec`;
  const minutes = Math.floor(hundredths / 6000);
  return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${rest}`;
}

/** Bytes as a table: sixteen a line, in hexadecimal and in letters (`-v`). */
export function dumpText(bytes: Uint8Array, offset: number): string {
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const row = [...bytes.subarray(at, at + 16)];
    const digits = row.map((byte) => `${byte.toString(16).padStart(2, "0")} `).join("");
    const letters = row.map((byte) => (isLetter(byte) ? String.fromCharCode(byte) : ".")).join("");
    lines.push(`${(offset + at).toString(16).padStart(8, "0")}:  ${digits} ${letters}\n`);
  }
  return lines.join("");
}

/** What C's isalnum says, as qemu-io shows bytes. */
function isLetter(byte: number): boolean {
  return /[0-9A-Za-z]/.test(String.fromCharCode(byte));
}
