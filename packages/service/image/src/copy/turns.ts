/**
 * Tickets: workers that finish in any order act in the order in which they began.
 *
 * 1. `take()` gives tickets 0, 1, 2, …; ticket n's turn comes when n - 1 is done.
 * 2. Every ticket that was taken must be done, also on failure, or those behind it wait for ever.
 */
export class Turns {
  #taken = 0;
  #current = 0;
  readonly #waiting = new Map<number, () => void>();

  take(): number {
    return this.#taken++;
  }

  /** Resolves when it is this ticket's turn; plainly when it is already. */
  wait(ticket: number): Promise<void> | undefined {
    if (ticket === this.#current) return undefined;
    return new Promise((resolve) => {
      this.#waiting.set(ticket, resolve);
    });
  }

  /** Ends the current turn. Requires: the ticket whose turn it is. */
  done(): void {
    this.#current++;
    const next = this.#waiting.get(this.#current);
    if (next === undefined) return;
    this.#waiting.delete(this.#current);
    next();
  }
}
