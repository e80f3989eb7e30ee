/** Lets virtual time pass as fast as the processor can: the loop under a whole simulated run. */
import type { VirtualClock } from './clock.ts';

/** Turns asked of Node at a time: one of its own loops costs more than a turn. */
const turnsAtATime = 64;

/**
 * Fires the timers of `clock`, with every promise settled in between, until `isOver` or none is left. What a
 * timer throws is thrown.
 */
export function passTime(clock: VirtualClock, isOver: () => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    let isDone = false;
    const turn = (): void => {
      if (isDone) return;
      try {
        if (!isOver() && clock.fireNext()) return;
        isDone = true;
        resolve();
      } catch (error) {
        isDone = true;
        reject(error);
      }
    };
    const more = (): void => {
      if (isDone) return;
      for (let count = 0; count < turnsAtATime; count += 1) setImmediate(turn);
      setImmediate(more);
    };
    more();
  });
}
