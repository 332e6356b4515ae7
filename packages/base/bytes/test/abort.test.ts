import { getEventListeners } from "node:events";
import { expect, test } from "vitest";
import { ignoreAbort, listenForAbort } from "../src/index.js";

const countOf = (signal: AbortSignal): number => getEventListeners(signal, "abort").length;

test("a signal must have one listener for all who wait, and none when nobody does", () => {
  const { signal } = new AbortController();
  const many = Array.from({ length: 100 }, () => ({ aborted: () => undefined }));
  for (const one of many) listenForAbort(signal, one);
  expect(countOf(signal)).toBe(1);
  for (const one of many.slice(1)) ignoreAbort(signal, one);
  expect(countOf(signal)).toBe(1);
  ignoreAbort(signal, many[0] ?? { aborted: () => undefined });
  expect(countOf(signal)).toBe(0);
  ignoreAbort(signal, { aborted: () => undefined });
  listenForAbort(signal, { aborted: () => undefined });
  expect(countOf(signal)).toBe(1);
});

test("an abort must call everybody once who still waits, in order", () => {
  const controller = new AbortController();
  const { signal } = controller;
  const called: string[] = [];
  const last = { aborted: () => called.push("last") };
  const left = { aborted: () => called.push("left") };
  const first = {
    aborted: (): void => {
      called.push("first");
      ignoreAbort(signal, left);
      ignoreAbort(signal, first);
    },
  };
  for (const one of [first, left, last]) listenForAbort(signal, one);
  controller.abort();
  controller.abort();
  expect(called).toEqual(["first", "last"]);
  expect(countOf(signal)).toBe(0);
});
