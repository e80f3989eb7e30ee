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
import { hexadecimalOf } from './ruleset.ts';

/** Until the first attempt of a connection that is answered at all has been; the next one would be after a second. */
export const answerMs = 250;

const udp = '-p udp';
const unanswered = '-p tcp --state SYN_SENT';

/**
 * To be called when no rule leads to `addresses` any more. Each use of the tool goes through all that the kernel keeps, tens of
 * thousands on a busy host: so all addresses are looked for at once, and only those that are found are gone through again.
 * Rejects with 'unavailable' where the tool can't be run: then flows end after their idle time.
 */
export async function forgetFlows(kernel: Kernel, clock: Clock, addresses: readonly string[]): Promise<void> {
  for (const isOfIpv6 of [false, true]) {
    const own = addresses.filter((address) => isIpv6(address) === isOfIpv6);
    if (own.length === 0) continue;
    const family = isOfIpv6 ? '-f ipv6 ' : '';
    // Exit code 1 says that there was none.
    const run = (lines: readonly string[]) => kernel.run('sh', ['-s'], `${lines.join('\n')}\ntrue\n`);
    const found = async (what: string) => {
      const keys = sentTo(await run([`conntrack -L ${family}${what}`]));
      return own.filter((address) => keys.has(keyOf(address)));
    };
    const forget = async (what: string, some: readonly string[]) => {
      if (some.length > 0) await run(some.map((address) => `conntrack -D ${family}${what} -r ${address}`));
    };
    await forget(udp, await found(udp));
    if ((await found(unanswered)).length === 0) continue;
    await new Promise<void>((resolve) => clock.after(answerMs, resolve));
    await forget(unanswered, await found(unanswered));
  }
}

/** Equal for one address however it is written. */
function keyOf(address: string): string {
  return isIpv6(address) ? hexadecimalOf(address) : address;
}

/** Who is to answer each of the connections that the tool lists: the source of its second half. */
function sentTo(listing: string): Set<string> {
  return new Set(
    listing.split('\n').flatMap((line) => {
      const [, answering] = [...line.matchAll(/ src=(\S+)/g)];
      return answering === undefined ? [] : [keyOf(answering[1]!)];
    }),
  );
}
