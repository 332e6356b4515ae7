import { expect, test } from "vitest";
import { Turns } from "../src/copy/turns.js";

test("Turns must let tickets act in the order in which they were taken", async () => {
  const turns = new Turns();
  const order: number[] = [];
  const tickets = [turns.take(), turns.take(), turns.take()];
  const act = async (ticket: number): Promise<void> => {
    await turns.wait(ticket);
    order.push(ticket);
    turns.done();
  };
  await Promise.all(tickets.toReversed().map(act));
  expect(order).toEqual([0, 1, 2]);
});

test("Turns.wait() must be plain when it is the ticket's turn already", () => {
  const turns = new Turns();
  expect(turns.wait(turns.take())).toBeUndefined();
});
