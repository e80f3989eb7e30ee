/**
 * Questions under way to one other manager, over its stream: those of one moment leave in one frame.
 *
 * In: questions, answers off the stream, its loss. Out: each asker's answer, or an error that says whether
 * the question may have been heard. It never asks twice.
 */
import { ShoalError } from '../../proto/errors.ts';
import type { Clock, Timer } from '../../proto/ports.ts';
import { type Answer, encodeQuestions, groupsThatFit, type Question, type QuestionKind } from './frame.ts';

export interface HeardAnswer {
  readonly index: number;
  readonly result: unknown;
}

interface Asked {
  readonly timer: Timer;
  readonly resolve: (answer: HeardAnswer) => void;
  readonly reject: (error: ShoalError) => void;
}

export interface QuestionsOptions {
  readonly clock: Clock;
  /** Where the leader is, for the error. */
  readonly address: string;
  readonly timeoutMs: number;
  readonly write: (frame: Buffer) => void;
}

export class Questions {
  readonly #options: QuestionsOptions;
  readonly #asked = new Map<number, Asked>();
  #unsent: Question[] = [];
  #lastId = 0;

  constructor(options: QuestionsOptions) {
    this.#options = options;
  }

  ask(kind: QuestionKind, data: Uint8Array): Promise<HeardAnswer> {
    this.#lastId += 1;
    const id = this.#lastId;
    if (this.#unsent.length === 0) queueMicrotask(() => this.flush());
    this.#unsent.push({ id, kind, data });
    return new Promise((resolve, reject) => {
      const timer = this.#options.clock.after(this.#options.timeoutMs, () => this.#giveUp(id, 'in time'));
      this.#asked.set(id, { timer, resolve, reject });
    });
  }

  answered(answers: readonly Answer[]): void {
    for (const answer of answers) {
      const asked = this.#asked.get(answer.id);
      if (asked === undefined) continue;
      this.#asked.delete(answer.id);
      asked.timer.cancel();
      if ('error' in answer) asked.reject(answer.error);
      else asked.resolve(answer);
    }
  }

  /** The stream is gone, and with it all answers. */
  lost(): void {
    for (const id of [...this.#asked.keys()]) this.#giveUp(id, 'before the connection broke');
  }

  /** Sends what was asked, without waiting for more. */
  flush(): void {
    const questions = this.#unsent;
    this.#unsent = [];
    for (const group of groupsThatFit(questions, ({ data }) => data.length + 32)) {
      this.#options.write(encodeQuestions(group));
    }
  }

  #giveUp(id: number, when: string): void {
    const asked = this.#asked.get(id);
    if (asked === undefined) return;
    this.#asked.delete(id);
    asked.timer.cancel();
    asked.reject(
      new ShoalError(
        'unavailable',
        `the leader at ${this.#options.address} did not answer ${when}; whether the change was made is unknown: look before repeating it`,
        { details: { outcome: 'unknown' } },
      ),
    );
  }
}
