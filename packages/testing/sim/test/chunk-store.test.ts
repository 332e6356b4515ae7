import fc from "fast-check";
import { expect, test } from "vitest";
import { CHUNK_BYTES, ChunkStore } from "../src/index.js";

const MAX_LENGTH = CHUNK_BYTES * 3 + 100;

const offset = fc.integer({ min: 0, max: MAX_LENGTH });
const length = fc.oneof(
  fc.integer({ min: 0, max: 300 }),
  fc.integer({ min: 0, max: CHUNK_BYTES * 2 }),
);
const step = fc.oneof(
  fc.record({
    kind: fc.constant("write" as const),
    offset,
    length,
    byte: fc.integer({ min: 1, max: 255 }),
  }),
  fc.record({ kind: fc.constant("zero" as const), offset, length }),
  fc.record({ kind: fc.constant("resize" as const), length: offset }),
  fc.record({ kind: fc.constant("fork" as const), keepOld: fc.boolean() }),
);

test("ChunkStore must hold what a byte array holds, and forks must not see each other's writes", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      let store = new ChunkStore();
      let model = new Uint8Array(0);
      const others: { store: ChunkStore; model: Uint8Array }[] = [];
      const grow = (end: number): void => {
        if (end <= model.length) return;
        const longer = new Uint8Array(end);
        longer.set(model);
        model = longer;
      };
      for (const s of steps) {
        switch (s.kind) {
          case "write":
            store.write(s.offset, new Uint8Array(s.length).fill(s.byte));
            if (s.length > 0) grow(s.offset + s.length);
            model.fill(s.byte, s.offset, s.offset + s.length);
            break;
          case "zero":
            store.zero(s.offset, s.length);
            grow(s.offset + s.length);
            model.fill(0, s.offset, s.offset + s.length);
            break;
          case "resize": {
            store.resize(s.length);
            const resized = new Uint8Array(s.length);
            resized.set(model.subarray(0, s.length));
            model = resized;
            break;
          }
          case "fork": {
            const fork = store.fork();
            others.push({ store: s.keepOld ? fork : store, model: model.slice() });
            if (!s.keepOld) store = fork;
          }
        }
      }
      for (const each of [...others, { store, model }]) {
        expect(each.store.lengthBytes).toBe(each.model.length);
        expect(Buffer.compare(each.store.toBytes(), each.model)).toBe(0);
      }
    }),
    { numRuns: 200, seed: 1 },
  );
});

test("read() past the end must return zeroes", () => {
  const store = ChunkStore.from(new Uint8Array(10).fill(7));
  const target = new Uint8Array(20).fill(9);
  store.read(5, target);
  expect([...target]).toEqual([7, 7, 7, 7, 7, ...new Uint8Array(15)]);
});

test("extent() must tell stored chunks from holes", () => {
  const store = new ChunkStore(CHUNK_BYTES * 4);
  store.write(CHUNK_BYTES, new Uint8Array(CHUNK_BYTES * 2).fill(1));
  expect(store.extent(0, CHUNK_BYTES * 4)).toEqual({ stored: false, lengthBytes: CHUNK_BYTES });
  expect(store.extent(CHUNK_BYTES, CHUNK_BYTES * 3)).toEqual({
    stored: true,
    lengthBytes: CHUNK_BYTES * 2,
  });
  expect(store.extent(CHUNK_BYTES + 5, 10)).toEqual({ stored: true, lengthBytes: 10 });
});
