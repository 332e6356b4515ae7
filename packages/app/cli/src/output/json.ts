/** JSON as qemu-img prints it: four spaces, one line feed at the end. */
export function jsonText(value: unknown): string {
  return `${JSON.stringify(value, wellFormed, 4)}\n`;
}

/** JSON is Unicode: bytes of a name that are no UTF-8 are replacement characters here. */
function wellFormed(_: string, value: unknown): unknown {
  return typeof value === "string" ? value.replaceAll(/\p{Surrogate}/gu, "\ufffd") : value;
}
