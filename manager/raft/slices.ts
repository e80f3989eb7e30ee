/**
 * Long work in short slices, so that the loop answers others in between: making and taking in a large snapshot takes
 * seconds.
 *
 * In: an iterator whose every step is short. Out: the same work done, with pauses. A clock that stands still during
 * the work (a simulated one) makes it one slice.
 */
import { type Clock, delay } from '../../proto/ports.ts';
import type { StateMachine } from './contract.ts';

const sliceMs = 5;
const copiedBytes = 2 ** 20;

/** Takes steps for one slice; answers whether the work is done. */
export function workOneSlice(clock: Clock, steps: Iterator<unknown>): boolean {
  const endMs = clock.monotonicMs() + sliceMs;
  do {
    if (steps.next().done === true) return true;
  } while (clock.monotonicMs() < endMs);
  return false;
}

/** Does all of it, unless it is given up at a pause. Without a pause when one slice is enough. */
export async function workInSlices(
  clock: Clock,
  steps: Iterator<unknown>,
  isGivenUp: () => boolean = () => false,
): Promise<void> {
  while (!workOneSlice(clock, steps)) {
    await delay(clock, 0);
    if (isGivenUp()) return;
  }
}

/** Hands a snapshot to the state machine, slice by slice if it can take it so. */
export async function restoreInSlices(
  clock: Clock,
  stateMachine: StateMachine,
  index: number,
  state: Uint8Array,
  isGivenUp?: () => boolean,
): Promise<void> {
  const steps = stateMachine.restoreSteps?.(index, state);
  if (steps === undefined) stateMachine.restore(index, state);
  else await workInSlices(clock, steps, isGivenUp);
}

/** Bytes that come in pieces, gathered slice by slice. */
export class Gathering {
  readonly #clock: Clock;
  readonly #steps: Iterator<unknown>;
  #pieces: Uint8Array[] = [];
  #whole: Uint8Array | undefined;

  constructor(clock: Clock, pieces: Iterable<Uint8Array>) {
    this.#clock = clock;
    this.#steps = this.#gather(pieces);
  }

  /** One slice of work; the whole if that was the last one. */
  workOneSlice(): Uint8Array | undefined {
    return workOneSlice(this.#clock, this.#steps) ? this.#whole : undefined;
  }

  async whole(): Promise<Uint8Array> {
    if (this.#whole === undefined) await workInSlices(this.#clock, this.#steps);
    return this.#whole!;
  }

  *#gather(pieces: Iterable<Uint8Array>): Generator<void, void> {
    let length = 0;
    for (const piece of pieces) {
      this.#pieces.push(piece);
      length += piece.length;
      yield;
    }
    const whole = Buffer.allocUnsafe(length);
    let at = 0;
    for (const piece of this.#pieces) {
      for (let from = 0; from < piece.length; from += copiedBytes) {
        whole.set(piece.subarray(from, from + copiedBytes), at + from);
        yield;
      }
      at += piece.length;
    }
    this.#pieces = [];
    this.#whole = whole;
  }
}
