/**
 * Connections that the kernel keeps to where they were sent when they began. Those to an address that takes no more are
 * forgotten, so that what comes next of them goes to another: flows of UDP, which have no end of their own, and
 * connections that nobody has answered, whose next attempt would find a task that has been stopped. One that is being answered
 * just now must not be: what comes next of it would go to a task that knows nothing of it. To look and to forget are two
 * steps of the tool, so those that began a moment ago are given another one first, in which the address answers them.
 */
import type { Clock } from '../../proto/ports.ts';
import { isIpv6 } from './desired.ts';
import type { Kernel } from './kernel.ts';

/** Until the first attempt of a connection that is answered at all has been; the next one would be after a second. */
export const answerMs = 250;

/**
 * To be called when no rule leads to `addresses` any more. Rejects with 'unavailable' where there is no program for it:
 * then flows end after their idle time.
 */
export async function forgetFlows(kernel: Kernel, clock: Clock, addresses: readonly string[]): Promise<void> {
  if (addresses.length === 0) return;
  const each = (words: (to: string) => string) =>
    addresses.map((address) => words(`${isIpv6(address) ? '-f ipv6 ' : ''}-r ${address}`));
  const unanswered = '-p tcp --state SYN_SENT';
  // Exit code 1 says that there was none.
  const run = (lines: readonly string[]) => kernel.run('sh', ['-s'], `${lines.join('\n')}\ntrue\n`);
  const waiting = await run([
    ...each((to) => `conntrack -D -p udp ${to} >/dev/null`),
    ...each((to) => `conntrack -L ${unanswered} ${to}`),
  ]);
  if (waiting.trim() === '') return;
  await new Promise<void>((resolve) => clock.after(answerMs, resolve));
  await run(each((to) => `conntrack -D ${unanswered} ${to}`));
}
