/**
 * Connections that the kernel keeps to where they were sent when they began. Those to an address that takes no more are
 * forgotten, so that what comes next of them goes to another: flows of UDP, which have no end of their own, and
 * connections that nobody has answered, whose next attempt would find a task that has been stopped.
 */

import { isIpv6 } from './desired.ts';
import type { Kernel } from './kernel.ts';

/** Rejects with 'unavailable' where there is no program for it: then flows end after their idle time. */
export async function forgetFlows(kernel: Kernel, addresses: readonly string[]): Promise<void> {
  if (addresses.length === 0) return;
  const script = addresses.flatMap((address) => {
    const to = `${isIpv6(address) ? '-f ipv6 ' : ''}-r ${address}`;
    return [`conntrack -D -p tcp --state SYN_SENT ${to}`, `conntrack -D -p udp ${to}`];
  });
  // Exit code 1 says that there was none.
  await kernel.run('sh', ['-s'], `${script.join('\n')}\ntrue\n`);
}
