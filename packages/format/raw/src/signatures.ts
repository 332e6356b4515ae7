/**
 * By which bytes other formats are known. Pure; FirstSectorGuard stands above.
 *
 * The list is wider than what this library opens, since the disk may be opened with other tools too.
 */

/** The bytes by which one format is known, and where they are. */
interface Signature {
  readonly format: string;
  readonly offset: number;
  /** A character stands for the byte of its code. */
  readonly text: string;
}

const SIGNATURES: readonly Signature[] = [
  { format: "qcow2", offset: 0, text: "QFI\u00fb" },
  { format: "qed", offset: 0, text: "QED\0" },
  { format: "vmdk", offset: 0, text: "KDMV" },
  { format: "vmdk", offset: 0, text: "COWD" },
  { format: "vhdx", offset: 0, text: "vhdxfile" },
  { format: "vpc", offset: 0, text: "conectix" },
  { format: "luks", offset: 0, text: "LUKS\u00ba\u00be" },
  { format: "parallels", offset: 0, text: "WithoutFreeSpace" },
  { format: "parallels", offset: 0, text: "WithouFreSpacExt" },
  { format: "bochs", offset: 0, text: "Bochs Virtual HD Image" },
  { format: "cloop", offset: 0, text: "#!/bin/sh\n#V2.0 Format\n" },
  { format: "vdi", offset: 64, text: "\u007f\u0010\u00da\u00be" },
];

/** A vmdk descriptor is text: comments and blank lines, then `version=`. */
const VMDK_DESCRIPTOR = /^(?:#[^\n]*\n|[ \t]*\r?\n)*[ \t]*version=/;

/**
 * The format that a first sector shows, or `undefined` when it shows none.
 *
 * @param sector - the first 512 bytes of a disk
 */
export function formatOf(sector: Uint8Array): string | undefined {
  const text = String.fromCharCode(...sector);
  for (const signature of SIGNATURES) {
    if (text.startsWith(signature.text, signature.offset)) return signature.format;
  }
  return VMDK_DESCRIPTOR.test(text) ? "vmdk" : undefined;
}
