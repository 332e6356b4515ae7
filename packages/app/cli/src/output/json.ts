/** JSON as qemu-img prints it: four spaces, one line feed at the end. */
export function jsonText(value: unknown): string {
  return `${JSON.stringify(value, undefined, 4)}\n`;
}
