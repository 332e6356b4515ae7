/** Refuses what is not as the model has it. Arrays are compared by their elements. */
export function equal(actual: unknown, expected: unknown, what: string): void {
  if (Object.is(actual, expected)) return;
  const [got, wanted] = [show(actual), show(expected)];
  if (got !== wanted) throw new Error(`${what}: ${got} instead of ${wanted}`);
}

function show(value: unknown): string {
  if (Array.isArray(value) || value instanceof Uint8Array) return `[${value.join(" ")}]`;
  return String(value);
}
