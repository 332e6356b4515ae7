/**
 * Closing nodes, and what only they used.
 *
 * Above: BlockGraph, BlockBackend, open.ts when it has to undo. Below: the drivers' `close`.
 *
 * 1. A node closes when nobody uses it and it is not pinned: drain, flush, close the driver, then the children.
 * 2. Every step is tried even when one before it failed. The first error is thrown; when there are others, all of
 *    them are in its cause.
 */
import { BlockError, type BlockErrorCode } from "@blocklayer/bytes";
import { loosen, removeEdge } from "./attach.js";
import type { Edge } from "./edge.js";
import type { GraphState } from "./graph-state.js";
import type { BlockNode } from "./node.js";

/** Takes errors as they come, and throws them at the end. */
export class ErrorCollector {
  readonly #errors: unknown[] = [];

  async try(work: () => unknown): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#errors.push(error);
    }
  }

  /** Throws the first error, if there was one. */
  throwFirst(): void {
    const [first] = this.#errors;
    if (this.#errors.length > 1) throw firstOfMany(first, this.#errors);
    if (this.#errors.length === 1) throw first;
  }
}

function firstOfMany(first: unknown, errors: readonly unknown[]): BlockError {
  const message = first instanceof Error ? first.message : String(first);
  const code: BlockErrorCode = first instanceof BlockError ? first.code : "EIO";
  const summary = `${message} (and ${errors.length - 1} more)`;
  return new BlockError(code, summary, { op: "close", cause: new AggregateError(errors, message) });
}

/** Ends a use, and closes the node if it was the last. */
export async function release(state: GraphState, edge: Edge): Promise<void> {
  removeEdge(edge);
  await closeIfUnused(state, edge.node);
}

/** Closes a node that nobody uses; otherwise lets its remaining users have what was given back. */
async function closeIfUnused(state: GraphState, node: BlockNode): Promise<void> {
  if (node.isUnused) await closeNode(state, node);
  else await loosen(node);
}

/**
 * Closes a node. Requires: nobody uses it.
 *
 * @throws the first error of the flush, the driver, or a child
 */
export async function closeNode(state: GraphState, node: BlockNode): Promise<void> {
  const errors = new ErrorCollector();
  const wasOpen = node.isOpen;
  node.closing();
  if (wasOpen) {
    await node.whileDrained(async () => {
      await errors.try(() => node.flushDrained());
      await errors.try(() => node.driver.close());
      node.closed();
    });
  }
  state.nodes.delete(node.name);
  for (const edge of [...node.childEdges.values()].toReversed()) {
    await errors.try(() => release(state, edge));
  }
  errors.throwFirst();
}
