/**
 * What the engine's own firewall rules (iptables) must let through: connections that our tables sent to a task, and what
 * stays on one network. Pure. A chain of ours stands first in FORWARD; the engine and firewalld put theirs in front again
 * when they restart, and who flushes the table leaves the engine's refusal of all else, so it is looked at in every
 * reconcile. Where nothing in FORWARD refuses anything there is no chain: a table that iptables made for it would stay.
 */
export const forwardChain = 'SHOAL-FORWARD';

/** The chain's rules, as `iptables -S` prints them. */
function rulesFor(bridges: readonly string[]): string[] {
  return [
    `-A ${forwardChain} -o shoal+ -m conntrack --ctstate DNAT -j ACCEPT`,
    `-A ${forwardChain} -i shoal+ -m conntrack --ctstate DNAT -j ACCEPT`,
    ...bridges.map((bridge) => `-A ${forwardChain} -i ${bridge} -o ${bridge} -j ACCEPT`),
  ];
}
const jump = `-A FORWARD -j ${forwardChain}`;

/**
 * Lines for `iptables-restore --noflush` that make the filter table of `listing` (`iptables -S`) as it should be; none
 * when it is. `bridges`: those of the node's networks; without one our chain goes.
 */
export function firewallCommands(listing: string, bridges: readonly string[]): string[] {
  const lines = listing.split('\n').map((line) => line.trim());
  const exists = lines.includes(`-N ${forwardChain}`);
  const own = lines.filter((line) => line.startsWith(`-A ${forwardChain} `));
  const forward = lines.filter((line) => line.startsWith('-A FORWARD '));
  const jumps = forward.filter((line) => line === jump).length;
  const isOpen = forward.length === jumps && !lines.some((line) => /^-P FORWARD (?!ACCEPT)/.test(line));
  if (bridges.length === 0 || isOpen) {
    if (!exists) return [];
    return restore([
      ...Array<string>(jumps).fill(`-D FORWARD -j ${forwardChain}`),
      `-F ${forwardChain}`,
      `-X ${forwardChain}`,
    ]);
  }
  const rules = rulesFor(bridges);
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
