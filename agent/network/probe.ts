/**
 * Whether this host can have a data plane. In: the kernel. Out: yes, or why not, in words. One process of a network
 * namespace may have it: the name that it holds is free again when it ends, however it ends.
 */
import { createServer, type Server } from 'node:net';
import { messageOf } from '../../proto/errors.ts';
import type { Kernel } from './kernel.ts';

/** A socket name of the network namespace, not of a file system. */
const lockName = '\0shoal-data-plane';
const trialLink = 'shoal-trial';

export type Probe =
  /** limits: what works otherwise than on other hosts, and why; undefined: nothing does. */
  | { readonly kind: 'possible'; readonly lock: Server; readonly limits: string | undefined }
  /** isOthers: another daemon of this host has it, and its ports. */
  | { readonly kind: 'impossible'; readonly reason: string; readonly isOthers: boolean };

/** Tries what a data plane is made of, and leaves nothing of it. */
export async function probeDataPlane(kernel: Kernel): Promise<Probe> {
  const lock = await takeLock();
  if (lock === undefined) {
    const reason = 'another shoald of this host has the networks between hosts';
    return { kind: 'impossible', reason, isOthers: true };
  }
  const reason = await missing(kernel);
  if (reason === undefined) return { kind: 'possible', lock, limits: await limitsOf(kernel) };
  lock.close();
  return { kind: 'impossible', reason, isOthers: false };
}

function takeLock(): Promise<Server | undefined> {
  const server = createServer((socket) => socket.destroy());
  server.unref();
  return new Promise((resolve) => {
    server.once('error', () => resolve(undefined));
    server.listen(lockName, () => resolve(server));
  });
}

async function missing(kernel: Kernel): Promise<string | undefined> {
  if (process.getuid?.() !== 0) return 'shoald does not run as root';
  try {
    await kernel.nft(['add table inet shoal_trial', 'delete table inet shoal_trial']);
  } catch (error) {
    return `nftables can't be used (install nftables): ${messageOf(error)}`;
  }
  // One that was ended in the middle of its trial left this, and nobody else of the host is at it (see the lock).
  await kernel.ip([`link delete ${trialLink}`]).catch(() => {});
  try {
    await kernel.ip([`link add ${trialLink} type vxlan id 1 dstport 4789`, `link delete ${trialLink}`]);
  } catch (error) {
    return `the kernel makes no vxlan interface: ${messageOf(error)}`;
  }
  return undefined;
}

/** Without br_netfilter answers between two ports of a bridge pass no rules: they have to come by way of the host. */
async function limitsOf(kernel: Kernel): Promise<string | undefined> {
  const settings = await kernel.settings(['net/bridge/bridge-nf-call-iptables']);
  if (settings.size > 0) return undefined;
  return 'the kernel lacks br_netfilter (try "modprobe br_netfilter"): behind virtual addresses tasks see the address of the node that a connection comes from, not the client\'s';
}
