/** The real clock, for tests that talk to a real engine, and waiting for what it brings about. */
import type { Clock } from '../../proto/ports.ts';

const lookAgainMs = 10;

/** Time as it is. */
export function realClock(): Clock {
  return {
    now: () => Date.now(),
    monotonicMs: () => performance.now(),
    after(delayMs, action) {
      const timer = setTimeout(action, delayMs);
      return { cancel: () => clearTimeout(timer) };
    },
  };
}

/** Resolves when `condition` holds; throws when it does not within `boundMs`. */
export async function waitFor(
  condition: () => boolean,
  boundMs: number,
  what = 'the condition',
): Promise<void> {
  const endMs = performance.now() + boundMs;
  while (!condition()) {
    if (performance.now() > endMs) throw new Error(`${what} did not come about within ${boundMs} ms`);
    await new Promise((resolve) => {
      setTimeout(resolve, lookAgainMs);
    });
  }
}
