/** Looks at the kernel's network for the plan, and executes the plan. Errors: 'unavailable' with the tool's words. */
import { assertNever, messageOf, ShoalError } from '../../proto/errors.ts';
import type { Desired } from './desired.ts';
import type { Kernel, Tool } from './kernel.ts';
import type { Keyring } from './keyring.ts';
import { parseLinks } from './links.ts';
import { parseRuleset } from './nftables.ts';
import { type Actual, type Operation, settingPaths } from './reconcile.ts';
import { listRuleset } from './rules.ts';
import { parseTunnels } from './tunnel.ts';

/** What stands there now. `prior`: settings as they were before they were changed for us. */
export async function readActual(
  kernel: Kernel,
  desired: Desired,
  prior: ReadonlyMap<string, string> = new Map(),
): Promise<Actual> {
  const [rules, rest] = await Promise.all([
    kernel.run('nft', listRuleset),
    readBesideRules(kernel, desired, prior),
  ]);
  return { ...rest, ruleset: parseRuleset(rules) };
}

/** What stands there now, without the rules of nftables. */
export async function readBesideRules(
  kernel: Kernel,
  desired: Desired,
  prior: ReadonlyMap<string, string> = new Map(),
): Promise<Omit<Actual, 'ruleset'>> {
  const [links, neighbours, routes, addresses, ports, tunnels, ipv4, ipv6] = await Promise.all([
    kernel.run('ip', ['-json', '-details', 'link']),
    kernel.run('bridge', ['-json', 'fdb']),
    kernel.run('ip', ['-json', '-4', 'route', 'show', 'table', 'local']),
    kernel.run('ip', ['-json', '-6', 'address']).catch(() => ''),
    kernel.run('bridge', ['-json', '-details', 'link']),
    // A host without the program has no tunnels of ours.
    kernel.run('wg', ['show', 'all', 'dump']).catch(() => ''),
    firewall(kernel, 'iptables'),
    firewall(kernel, 'ip6tables'),
  ]);
  const { links: found, bridges, holders, addressOf } = parseLinks({ links, neighbours, routes, addresses });
  return {
    links: found,
    tunnels: parseTunnels(tunnels, addressOf),
    bridges,
    holders,
    hairpins: parseHairpins(ports, bridges),
    settings: await kernel.settings(settingPaths(desired, bridges, prior)),
    priorSettings: prior,
    firewalls: {
      ...(ipv4 === undefined ? {} : { ipv4 }),
      ...(ipv6 === undefined ? {} : { ipv6 }),
    },
  };
}

/** A host without the program has no rules of it in the way. */
async function firewall(kernel: Kernel, tool: Tool): Promise<string | undefined> {
  return kernel.run(tool, ['-w', '-S']).catch(() => undefined);
}

interface ListedPort {
  readonly ifname?: string;
  readonly master?: string;
  readonly hairpin?: boolean;
}

function parseHairpins(listing: string, bridges: ReadonlySet<string>): Map<string, boolean> {
  const ports = listing.trim() === '' ? [] : (JSON.parse(listing) as ListedPort[]);
  return new Map(
    ports
      .filter(({ ifname = '', master = '' }) => bridges.has(master) && ifname.startsWith('veth'))
      .map(({ ifname = '', hairpin }) => [ifname, hairpin === true]),
  );
}

/** Runs `operations` in order. One that fails does not keep the others from running; the first failure is thrown. */
export async function applyOperations(
  kernel: Kernel,
  operations: readonly Operation[],
  keyring?: Keyring,
): Promise<void> {
  const failures: string[] = [];
  for (const operation of operations) {
    try {
      await applyOne(kernel, operation, keyring);
    } catch (error) {
      failures.push(messageOf(error));
    }
  }
  if (failures.length > 0) throw new ShoalError('unavailable', failures.join('; '));
}

async function applyOne(kernel: Kernel, operation: Operation, keyring?: Keyring): Promise<void> {
  switch (operation.kind) {
    case 'nft':
      return kernel.nft(operation.commands);
    case 'ip':
      return kernel.ip(operation.commands);
    case 'bridge':
      return kernel.bridge(operation.commands);
    case 'tunnel':
      return keyring?.apply(operation);
    case 'tunnel-removal':
      return kernel.ip([`link delete ${operation.name}`]);
    case 'settings':
      return kernel.set(operation.settings);
    case 'firewall': {
      const tool: Tool = operation.family === 'ipv4' ? 'iptables-restore' : 'ip6tables-restore';
      await kernel.run(tool, ['-w', '--noflush'], `${operation.commands.join('\n')}\n`);
      return;
    }
    default:
      return assertNever(operation);
  }
}
