/**
 * The oracle of the property tests: a list of requests in order of arrival, and a rule that says which of
 * them may go in. A lock is right when, at every moment, exactly those requests hold it that the rule lets in.
 */
import type { MaybePromise } from "@blocklayer/bytes";
import { hasCode } from "@blocklayer/bytes";
import fc from "fast-check";
import { expect } from "vitest";
import type { Lease } from "../src/index.js";

export type State = "waiting" | "held" | "aborted" | "released";

export interface ModelRequest<A> {
  readonly args: A;
  readonly controller: AbortController;
  state: State;
  /** What the lock did, as far as its promises have said. */
  outcome: "pending" | "held" | "aborted";
  lease: Lease | undefined;
}

/** May `request` go in, given who came before it and still holds or waits? */
export type Admits<A> = (args: A, earlier: readonly ModelRequest<A>[]) => boolean;

export type Command<A> =
  | { readonly do: "acquire"; readonly args: A }
  | { readonly do: "tryAcquire"; readonly args: A }
  | { readonly do: "release"; readonly which: number }
  | { readonly do: "abort"; readonly which: number }
  | { readonly do: "settle" };

export function commandsOf<A>(args: fc.Arbitrary<A>): fc.Arbitrary<Command<A>[]> {
  const which = fc.nat({ max: 1000 });
  return fc.array(
    fc.oneof(
      { weight: 5, arbitrary: args.map((a) => ({ do: "acquire" as const, args: a })) },
      { weight: 1, arbitrary: args.map((a) => ({ do: "tryAcquire" as const, args: a })) },
      { weight: 4, arbitrary: which.map((w) => ({ do: "release" as const, which: w })) },
      { weight: 2, arbitrary: which.map((w) => ({ do: "abort" as const, which: w })) },
      { weight: 3, arbitrary: fc.constant({ do: "settle" as const }) },
    ),
    { minLength: 5, maxLength: 80, size: "max" },
  );
}

/** Lets every promise that is settled run its continuations. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

export interface LockUnderTest<A> {
  acquire(args: A, signal: AbortSignal): MaybePromise<Lease>;
  tryAcquire?(args: A): Lease | undefined;
  readonly waiting: number;
  /** Whether nothing is held any more. */
  isFree(): boolean;
}

/** Runs commands against the lock and the model; throws where they differ. */
export async function runModel<A>(
  lock: LockUnderTest<A>,
  admits: Admits<A>,
  commands: readonly Command<A>[],
): Promise<void> {
  const requests: ModelRequest<A>[] = [];
  for (const command of commands) {
    await runCommand(lock, admits, requests, command);
    update(requests, admits);
    expect(lock.waiting).toBe(requests.filter((request) => request.state === "waiting").length);
  }
  await drain(lock, admits, requests);
}

async function runCommand<A>(
  lock: LockUnderTest<A>,
  admits: Admits<A>,
  requests: ModelRequest<A>[],
  command: Command<A>,
): Promise<void> {
  switch (command.do) {
    case "acquire":
      return acquire(lock, admits, requests, command.args);
    case "tryAcquire":
      return tryAcquire(lock, admits, requests, command.args);
    case "release": {
      // A lease that was granted this very turn is still on its way.
      const held = requests.filter((r) => r.state === "held" && r.lease !== undefined);
      const request = held[command.which % held.length];
      if (request === undefined) return;
      request.state = "released";
      request.lease?.release();
      return;
    }
    case "abort": {
      // Also requests that are held already, perhaps since this turn: the abort must change nothing.
      // Recent ones only, as the older ones are mostly over.
      const recent = requests.slice(-5);
      const request = recent[command.which % recent.length];
      if (request === undefined) return;
      if (request.state === "waiting") request.state = "aborted";
      request.controller.abort("test");
      return;
    }
    case "settle":
      await turn();
      compare(requests);
  }
}

function acquire<A>(
  lock: LockUnderTest<A>,
  admits: Admits<A>,
  requests: ModelRequest<A>[],
  args: A,
): void {
  const request = newRequest(args);
  const admitted = admits(args, requests.filter(isAlive));
  requests.push(request);
  const result = lock.acquire(args, request.controller.signal);
  expect(result instanceof Promise).toBe(!admitted);
  if (result instanceof Promise) {
    result.then(
      (lease) => {
        request.outcome = "held";
        request.lease = lease;
      },
      (error: unknown) => {
        expect(hasCode(error, "ECANCELED")).toBe(true);
        request.outcome = "aborted";
      },
    );
  } else {
    request.outcome = "held";
    request.lease = result;
  }
}

function tryAcquire<A>(
  lock: LockUnderTest<A>,
  admits: Admits<A>,
  requests: ModelRequest<A>[],
  args: A,
): void {
  if (lock.tryAcquire === undefined) return;
  const lease = lock.tryAcquire(args);
  expect(lease !== undefined).toBe(admits(args, requests.filter(isAlive)));
  if (lease === undefined) return;
  const request = newRequest(args);
  request.state = "held";
  request.outcome = "held";
  request.lease = lease;
  requests.push(request);
}

/** Releases everything in order: each waiter must get its turn, and nothing may stay behind. */
async function drain<A>(
  lock: LockUnderTest<A>,
  admits: Admits<A>,
  requests: ModelRequest<A>[],
): Promise<void> {
  for (;;) {
    await turn();
    compare(requests);
    const held = requests.find((request) => request.state === "held");
    if (held === undefined) break;
    held.state = "released";
    held.lease?.release();
    update(requests, admits);
  }
  expect(requests.filter((request) => request.state === "waiting")).toEqual([]);
  expect(lock.waiting).toBe(0);
  expect(lock.isFree()).toBe(true);
}

function newRequest<A>(args: A): ModelRequest<A> {
  const controller = new AbortController();
  return { args, controller, state: "waiting", outcome: "pending", lease: undefined };
}

function isAlive<A>(request: ModelRequest<A>): boolean {
  return request.state === "held" || request.state === "waiting";
}

function update<A>(requests: readonly ModelRequest<A>[], admits: Admits<A>): void {
  requests.forEach((request, index) => {
    if (request.state !== "waiting") return;
    if (admits(request.args, requests.slice(0, index).filter(isAlive))) request.state = "held";
  });
}

function compare<A>(requests: readonly ModelRequest<A>[]): void {
  for (const request of requests) {
    const expected =
      request.state === "waiting"
        ? "pending"
        : request.state === "released"
          ? "held"
          : request.state;
    expect(request.outcome).toBe(expected);
  }
}
