import fc from "fast-check";
import { expect, test } from "vitest";
import { AssertionError, IoVector } from "../src/index.js";

const parts = fc.array(fc.uint8Array({ maxLength: 9 }), { maxLength: 6 });

function flat(buffers: readonly Uint8Array[]): Uint8Array {
  return Uint8Array.from(buffers.flatMap((part) => [...part]));
}

test("slice() must name the same bytes as the slice of the joined buffers", () => {
  fc.assert(
    fc.property(parts, fc.nat(60), fc.nat(60), (buffers, a, b) => {
      const whole = flat(buffers);
      const start = Math.min(a, b, whole.length);
      const end = Math.min(Math.max(a, b), whole.length);
      const slice = IoVector.from(buffers).slice(start, end);
      expect(slice.lengthBytes).toBe(end - start);
      expect([...slice.toBytes()]).toEqual([...whole.subarray(start, end)]);
    }),
  );
});

test("slice() must refuse a range outside the vector", () => {
  const vector = IoVector.of(new Uint8Array(4));
  for (const [start, end] of [
    [-1, 2],
    [3, 2],
    [0, 5],
  ] as const) {
    expect(() => vector.slice(start, end)).toThrow(AssertionError);
  }
});

test("copyFrom() and copyTo() must move bytes across part bounds, and only these", () => {
  fc.assert(
    fc.property(parts, fc.uint8Array({ maxLength: 20 }), fc.nat(40), (buffers, source, at) => {
      const vector = IoVector.from(buffers.map((part) => part.slice()));
      fc.pre(at + source.length <= vector.lengthBytes);
      const expected = flat(vector.parts);
      expected.set(source, at);
      vector.copyFrom(source, at);
      expect([...flat(vector.parts)]).toEqual([...expected]);
      const back = new Uint8Array(source.length);
      vector.copyTo(back, at);
      expect([...back]).toEqual([...source]);
    }),
  );
});

test("fill() must change the range and nothing else", () => {
  const vector = IoVector.from([new Uint8Array(3), new Uint8Array(3), new Uint8Array(3)]);
  vector.fill(7, 2, 7);
  expect([...vector.toBytes()]).toEqual([0, 0, 7, 7, 7, 7, 7, 0, 0]);
  vector.fill(1);
  expect([...vector.toBytes()]).toEqual(Array(9).fill(1));
});

test("toBytes() must return the part itself when there is only one", () => {
  const part = new Uint8Array(2);
  expect(IoVector.from([new Uint8Array(0), part]).toBytes()).toBe(part);
});

test("concat() must keep the order", () => {
  const joined = IoVector.of(Uint8Array.of(1, 2)).concat(IoVector.of(Uint8Array.of(3)));
  expect(joined.lengthBytes).toBe(3);
  expect([...joined.toBytes()]).toEqual([1, 2, 3]);
});
