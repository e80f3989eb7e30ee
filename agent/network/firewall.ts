/**
 * The one thing that the engine's own firewall rules (iptables) must let through: connections that our tables sent to
 * a task. Pure. A chain of ours stands first in FORWARD; the engine and firewalld put theirs in front again when they
 * restart, so it is looked at in every reconcile.
 */
export const forwardChain = 'SHOAL-FORWARD';

/** The chain's rules, as `iptables -S` prints them. */
const rules: readonly string[] = [
  `-A ${forwardChain} -o shoal+ -m conntrack --ctstate DNAT -j ACCEPT`,
  `-A ${forwardChain} -i shoal+ -m conntrack --ctstate DNAT -j ACCEPT`,
];
const jump = `-A FORWARD -j ${forwardChain}`;

/**
 * Lines for `iptables-restore --noflush` that make the filter table of `listing` (`iptables -S`) as it should be; none
 * when it is. `isWanted`: whether the node has a network at all; without one our chain goes.
 */
export function firewallCommands(listing: string, isWanted: boolean): string[] {
  const lines = listing.split('\n').map((line) => line.trim());
  const exists = lines.includes(`-N ${forwardChain}`);
  const own = lines.filter((line) => line.startsWith(`-A ${forwardChain} `));
  const forward = lines.filter((line) => line.startsWith('-A FORWARD '));
  const jumps = forward.filter((line) => line === jump).length;
  if (!isWanted) {
    if (!exists && jumps === 0) return [];
    return restore([
      ...Array<string>(jumps).fill(`-D FORWARD -j ${forwardChain}`),
      `-F ${forwardChain}`,
      `-X ${forwardChain}`,
    ]);
  }
  const isWhole = own.length === rules.length && own.every((line, index) => line === rules[index]);
  const isFirst = forward[0] === jump && jumps === 1;
  if (exists && isWhole && isFirst) return [];
  return restore([
    ...(exists ? [`-F ${forwardChain}`] : [`-N ${forwardChain}`]),
    ...rules,
    ...Array<string>(jumps).fill(`-D FORWARD -j ${forwardChain}`),
    `-I FORWARD 1 -j ${forwardChain}`,
  ]);
}

function restore(commands: readonly string[]): string[] {
  return ['*filter', ...commands, 'COMMIT'];
}
