/** qemu-img's progress line: `(12.34/100%)`, rewritten in place. */
import type { Terminal } from "../terminal.js";
import { percentText } from "./percent.js";

/** How many steps a hundred per cent is printed in, at most: a line a step would be slower than the work. */
const SMALLEST_STEP_PERCENT = 0.5;

export class Progress {
  readonly #terminal: Terminal;
  readonly #enabled: boolean;
  #shown = -1;

  /** Prints 0% at once. Disabled, nothing is ever printed. */
  constructor(terminal: Terminal, enabled: boolean) {
    this.#terminal = terminal;
    this.#enabled = enabled;
    this.#show(0);
  }

  /** May be called as often as one likes. */
  readonly update = (done: number, total: number): void => {
    const percent = total === 0 ? 100 : (done / total) * 100;
    if (percent - this.#shown >= SMALLEST_STEP_PERCENT) this.#show(percent);
  };

  /** The work is done: 100%. */
  finish(): void {
    if (this.#shown < 100) this.#show(100);
  }

  /** The line is over: what comes next begins below it. */
  end(): void {
    if (this.#enabled) this.#terminal.out("\n");
  }

  #show(percent: number): void {
    this.#shown = percent;
    if (this.#enabled) this.#terminal.out(`    (${percentText(percent)}/100%)\r`);
  }
}
