/**
 * The leader's read points: an index that, once applied, shows everything acknowledged before the question.
 *
 * In: callers, the core's answers, ticks. Out: one index for all who asked meanwhile. It asks the core
 * again when an answer does not come (its heartbeats may have been lost). Every caller gets an answer or an
 * error: one who still waited for its turn when the leadership was lost is refused by `ask`.
 */
import type { ShoalError } from '../../proto/errors.ts';
import type { ReadState } from './core/types.ts';
import { SharedRequest } from './waiting.ts';

const repeatTicks = 3;

interface Question {
  readonly context: Buffer;
  ticks: number;
  readonly resolve: (index: number) => void;
  readonly reject: (error: ShoalError) => void;
}

export class ReadPoints {
  readonly #ask: (context: Uint8Array) => void;
  readonly #maxTicks: number;
  readonly #shared = new SharedRequest(() => this.#start());
  #counter = 0;
  #question: Question | undefined;

  /** `ask` throws where it cannot be asked; `maxTicks`: after so long without an answer the question fails. */
  constructor(ask: (context: Uint8Array) => void, maxTicks: number) {
    this.#ask = ask;
    this.#maxTicks = maxTicks;
  }

  get(): Promise<number> {
    return this.#shared.get();
  }

  answered(states: readonly ReadState[]): void {
    const question = this.#question;
    if (question === undefined) return;
    const state = states.find(({ context }) => question.context.equals(context));
    if (state === undefined) return;
    this.#question = undefined;
    question.resolve(state.index);
  }

  tick(overdue: () => ShoalError): void {
    const question = this.#question;
    if (question === undefined) return;
    question.ticks += 1;
    if (question.ticks > this.#maxTicks) this.failAll(overdue);
    else if (question.ticks % repeatTicks === 0) this.#ask(question.context);
  }

  failAll(error: () => ShoalError): void {
    const question = this.#question;
    this.#question = undefined;
    question?.reject(error());
  }

  async #start(): Promise<number> {
    this.#counter += 1;
    const context = Buffer.alloc(8);
    context.writeDoubleLE(this.#counter, 0);
    this.#ask(context);
    return new Promise((resolve, reject) => {
      this.#question = { context, ticks: 0, resolve, reject };
    });
  }
}
