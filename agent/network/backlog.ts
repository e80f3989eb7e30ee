/**
 * Connections that stand before a program's door: the kernel has made them, or is about to, and the program has not taken
 * them yet. A program that is told to stop closes its door, and the kernel resets those; so a task that gets nothing new
 * any more is told once it has taken what came before. In: a process. Out: the word that nobody waits any more, or that it
 * took too long.
 */
import type { Clock } from '../../proto/ports.ts';
import type { Kernel } from './kernel.ts';

/** As long as a program may take; one that takes nothing at all is stopped all the same. */
export const backlogTimeoutMs = 2_000;
const lookAgainMs = 50;
/** Of /proc/PID/net. */
const files = ['tcp', 'tcp6'] as const;
const listenState = '0A';
const halfOpenState = '03';

/** How many wait in the network of whose /proc/PID/net these are: each listener's queue, and those that have yet to shake hands. */
export function waitingIn(texts: Iterable<string>): number {
  let waiting = 0;
  for (const line of [...texts].flatMap((text) => text.split('\n'))) {
    const [, state, queued = '0'] =
      /^\s*\d+: [0-9A-F]+:[0-9A-F]{4} [0-9A-F]+:[0-9A-F]{4} (\w\w) [0-9A-F]+:([0-9A-F]+) /.exec(line) ?? [];
    if (state === listenState) waiting += Number.parseInt(queued, 16);
    if (state === halfOpenState) waiting += 1;
  }
  return waiting;
}

/**
 * Resolves once nobody waits in the network of process `pid` (its id as the kernel's tools here see it), when there is no
 * such process, or when that takes too long. Never rejects: a task that can't be looked at is stopped as ever.
 */
export async function backlogTaken(kernel: Kernel, clock: Clock, pid: number): Promise<void> {
  const endMs = clock.monotonicMs() + backlogTimeoutMs;
  while (clock.monotonicMs() < endMs) {
    const texts = await kernel.processFiles(pid, files).catch(() => undefined);
    if (texts === undefined || waitingIn(texts.values()) === 0) return;
    await new Promise<void>((resolve) => clock.after(lookAgainMs, resolve));
  }
}
