/**
 * Names that are bytes: of files, snapshots, bitmaps. Most are UTF-8, and none needs to be.
 *
 * As a string such a name loses nothing: a byte that belongs to no UTF-8 sequence becomes the lone surrogate U+DC00 plus
 * the byte, which no text holds (as Python has it: "surrogateescape"). Two names are equal as strings when their bytes
 * are.
 */
const ESCAPE = 0xdc00;
const DECODER = new TextDecoder("utf-8", { ignoreBOM: true });
const REPLACEMENT = "\ufffd";
const LONE_SURROGATE = /\p{Surrogate}/u;

/** The string of a name. @example decodeName(Uint8Array.of(0x61, 0xff)) // "a\udcff" */
export function decodeName(bytes: Uint8Array): string {
  const text = DECODER.decode(bytes);
  if (!text.includes(REPLACEMENT)) return text;
  let name = "";
  for (let at = 0; at < bytes.length; ) {
    const length = sequenceLength(bytes, at);
    name +=
      length === 0
        ? String.fromCharCode(ESCAPE + (bytes[at] as number))
        : DECODER.decode(bytes.subarray(at, at + length));
    at += Math.max(length, 1);
  }
  return name;
}

/** The bytes of a name: those that `decodeName` was given; UTF-8 of any other string. */
export function encodeName(name: string): Uint8Array<ArrayBuffer> {
  const encoder = new TextEncoder();
  if (!hasOddBytes(name)) return encoder.encode(name);
  const bytes: number[] = [];
  for (const character of name) {
    const code = character.codePointAt(0) ?? 0;
    if (code > ESCAPE + 0x7f && code <= ESCAPE + 0xff) bytes.push(code - ESCAPE);
    else bytes.push(...encoder.encode(character));
  }
  return Uint8Array.from(bytes);
}

/** Whether a name holds bytes that are no UTF-8. */
export function hasOddBytes(name: string): boolean {
  return LONE_SURROGATE.test(name);
}

/** Bytes of the UTF-8 sequence that begins here; 0 when none does. */
function sequenceLength(bytes: Uint8Array, at: number): number {
  const first = bytes[at] as number;
  if (first < 0x80) return 1;
  const length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || at + length > bytes.length) return 0;
  // The second byte's bounds leave out surrogates, what is too large, and what fewer bytes can say.
  const least = first === 0xe0 ? 0xa0 : first === 0xf0 ? 0x90 : 0x80;
  const most = first === 0xed ? 0x9f : first === 0xf4 ? 0x8f : 0xbf;
  const second = bytes[at + 1] as number;
  if (second < least || second > most) return 0;
  const rest = bytes.subarray(at + 2, at + length);
  return rest.every((byte) => byte >= 0x80 && byte <= 0xbf) ? length : 0;
}
