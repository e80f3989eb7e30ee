/**
 * Long work in short slices, so that the loop answers others in between: making and taking in a large snapshot takes
 * seconds.
 *
 * In: an iterator whose every step is short. Out: the same work done, with pauses. A clock that stands still during
 * the work (a simulated one) makes it one slice.
 */
import { type Clock, delay } from '../../proto/ports.ts';
import type { StateMachine } from './contract.ts';

const sliceMs = 3;
const copiedBytes = 2 ** 20;
const leastRoomBytes = 2 ** 16;
const firstRoomBytes = 2 ** 22;
/** More room than is expected to be needed. */
const spareShare = 1 / 16;

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
    await pause(clock);
    if (isGivenUp()) return;
  }
}

/** Until what has arrived meanwhile is looked at, and no longer: a timer's least wait would be a quarter of the time. */
function pause(clock: Clock): Promise<void> {
  if (clock.soon === undefined) return delay(clock, 0);
  return new Promise((resolve) => clock.soon?.(resolve));
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

/**
 * Bytes that come in pieces, gathered slice by slice. Each piece is copied at once into room for all: pieces that wait
 * for the last one are hundreds of megabytes more, and have the collector mark everything again and again.
 */
export class Gathering {
  readonly #clock: Clock;
  readonly #steps: Iterator<unknown>;
  readonly #expectedBytes: number;
  #room = Buffer.allocUnsafe(leastRoomBytes);
  #whole: Uint8Array | undefined;

  /** `expectedBytes`: about how much it will be, if that is known. */
  constructor(clock: Clock, pieces: Iterable<Uint8Array>, expectedBytes = 0) {
    this.#clock = clock;
    this.#steps = this.#gather(pieces);
    this.#expectedBytes = Math.ceil(expectedBytes * (1 + spareShare));
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
    let lengthBytes = 0;
    for (const piece of pieces) {
      const end = lengthBytes + piece.length;
      if (end > this.#room.length) yield* this.#moveTo(this.#roomFor(end), lengthBytes);
      for (let at = 0; at < piece.length; at += copiedBytes) {
        this.#room.set(piece.subarray(at, at + copiedBytes), lengthBytes + at);
        yield;
      }
      lengthBytes = end;
    }
    // It is kept for long: much more than what is needed is not.
    if (lengthBytes < this.#room.length * (1 - 2 * spareShare)) yield* this.#moveTo(lengthBytes, lengthBytes);
    this.#whole = this.#room.subarray(0, lengthBytes);
  }

  /** All that is expected, once it is more than the first slice: one that is given up then has taken little. */
  #roomFor(bytes: number): number {
    const expectedBytes = bytes > firstRoomBytes ? this.#expectedBytes : 0;
    return Math.max(bytes, 2 * this.#room.length, expectedBytes);
  }

  /** Goes on in room for `roomBytes`, of which the first `filledBytes` are taken already. */
  *#moveTo(roomBytes: number, filledBytes: number): Generator<void, void> {
    const room = Buffer.allocUnsafe(roomBytes);
    for (let at = 0; at < filledBytes; at += copiedBytes) {
      room.set(this.#room.subarray(at, Math.min(filledBytes, at + copiedBytes)), at);
      yield;
    }
    this.#room = room;
  }
}
