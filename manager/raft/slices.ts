/**
 * Long work in short slices, so that the loop answers others in between: making and taking in a large snapshot takes
 * seconds.
 *
 * In: an iterator whose every step is short. Out: the same work done, with pauses. A clock that stands still during
 * the work (a simulated one) makes it one slice.
 */
import { type Clock, delay } from '../../proto/ports.ts';
import type { StateMachine } from './contract.ts';
import { roomFor } from './room.ts';

const sliceMs = 1;
const copiedBytes = 2 ** 20;
const leastRoomBytes = 2 ** 16;
const firstRoomBytes = 2 ** 22;
/** Room of so much or more is not left for larger room. */
const chainedBytes = 2 ** 26;
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
  #room = roomFor(leastRoomBytes);
  /** How much of it is taken. */
  #filledBytes = 0;
  /** What came before it. */
  #full: Uint8Array[] = [];
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
    for (const piece of pieces) {
      const end = this.#filledBytes + piece.length;
      if (end > this.#room.length) {
        if (this.#room.length < chainedBytes) yield* this.#moveTo(this.#roomFor(end));
        else this.#openAnother(piece.length);
      }
      for (let at = 0; at < piece.length; at += copiedBytes) {
        this.#room.set(piece.subarray(at, at + copiedBytes), this.#filledBytes + at);
        yield;
      }
      this.#filledBytes += piece.length;
    }
    // It is kept for long: much more than what is needed is not.
    const isMuchMore = this.#filledBytes < this.#room.length * (1 - 2 * spareShare);
    if (this.#full.length > 0) yield* this.#join();
    else if (isMuchMore) yield* this.#moveTo(this.#filledBytes);
    this.#whole = this.#room.subarray(0, this.#filledBytes);
  }

  /** All that is expected, once it is more than the first slice: one that is given up then has taken little. */
  #roomFor(bytes: number): number {
    const expectedBytes = bytes > firstRoomBytes ? this.#expectedBytes : 0;
    return Math.max(bytes, 2 * this.#room.length, expectedBytes);
  }

  /** Goes on behind what is full. To move it each time it doubles would leave as much behind again. */
  #openAnother(leastBytes: number): void {
    this.#full.push(this.#room.subarray(0, this.#filledBytes));
    this.#room = roomFor(Math.max(chainedBytes, leastBytes));
    this.#filledBytes = 0;
  }

  *#join(): Generator<void, void> {
    const parts = [...this.#full, this.#room.subarray(0, this.#filledBytes)];
    this.#full = [];
    const whole = roomFor(parts.reduce((sum, { length }) => sum + length, 0));
    let filledBytes = 0;
    for (const part of parts) {
      yield* copied(part, whole, filledBytes);
      filledBytes += part.length;
    }
    this.#room = whole;
    this.#filledBytes = filledBytes;
  }

  /** Goes on in room for `roomBytes`, with what is filled already. */
  *#moveTo(roomBytes: number): Generator<void, void> {
    const room = roomFor(roomBytes);
    yield* copied(this.#room.subarray(0, this.#filledBytes), room, 0);
    this.#room = room;
  }
}

function* copied(from: Uint8Array, to: Uint8Array, toByte: number): Generator<void, void> {
  for (let at = 0; at < from.length; at += copiedBytes) {
    to.set(from.subarray(at, at + copiedBytes), toByte + at);
    yield;
  }
}
