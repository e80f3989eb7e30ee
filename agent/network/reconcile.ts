/**
 * The data plane's plan: from what stands in the kernel to what should, as operations. Pure. The same plan is executed
 * (apply.ts), printed (`shoal network diff`) and tested.
 */
import { assertNever } from '../../proto/errors.ts';
import { bridgeName, type Desired, isIpv6 } from './desired.ts';
import { firewallCommands } from './firewall.ts';
import { type LinkOptions, type Links, linkCommands, linksOf } from './links.ts';
import { rulesetCommands } from './nftables.ts';
import { type Ruleset, type RulesetOptions, rulesetOf } from './ruleset.ts';
import {
  describeTunnelOperation,
  type TunnelOperation,
  type Tunnels,
  tunnelOperations,
  tunnelRemovals,
  tunnelsOf,
} from './tunnel.ts';

/** What stands in the kernel, of what can be ours. */
export interface Actual {
  readonly ruleset: Ruleset;
  readonly links: Links;
  readonly tunnels: Tunnels;
  /** Bridges of the engine that have the name of one of ours. */
  readonly bridges: ReadonlySet<string>;
  /** Those of them that belong to no network any more, neither ours nor the engine's; absent: none is known. */
  readonly orphans?: ReadonlySet<string>;
  /** Interfaces of ours that take the place of bridges which the engine is to forget (remnants.ts); absent: none. */
  readonly holders?: ReadonlySet<string>;
  /** Ports of those bridges (containers' ends), and whether a frame may leave by the port it came from. */
  readonly hairpins: ReadonlyMap<string, boolean>;
  /** Path under /proc/sys → value. */
  readonly settings: ReadonlyMap<string, string>;
  /** Settings of the host that were changed for us: path → what it was before. */
  readonly priorSettings?: ReadonlyMap<string, string>;
  /** `iptables -S` and `ip6tables -S` of the filter table; undefined where there is no such program. */
  readonly firewalls: { readonly ipv4?: string; readonly ipv6?: string };
}

export type Operation =
  | { readonly kind: 'nft'; readonly commands: readonly string[] }
  | { readonly kind: 'ip'; readonly commands: readonly string[] }
  | TunnelOperation
  | { readonly kind: 'bridge'; readonly commands: readonly string[] }
  | { readonly kind: 'settings'; readonly settings: ReadonlyMap<string, string> }
  | { readonly kind: 'firewall'; readonly family: 'ipv4' | 'ipv6'; readonly commands: readonly string[] };

export type PlanOptions = RulesetOptions & LinkOptions;

/** The settings of the host at large that the desired state needs. */
export function hostSettingsOf(desired: Desired): Map<string, string> {
  const settings = new Map<string, string>();
  if (desired.networks.length === 0) return settings;
  // Packets between two ports of a bridge pass the rules of IP, too: virtual addresses live from it.
  settings.set('net/bridge/bridge-nf-call-iptables', '1');
  if (desired.networks.some(({ subnets }) => subnets.some(isIpv6))) {
    settings.set('net/bridge/bridge-nf-call-ip6tables', '1');
    settings.set('net/ipv6/conf/all/forwarding', '1');
  }
  return settings;
}

/** All settings that the desired state needs, those of bridges that are there included. */
export function settingsOf(desired: Desired, bridges: ReadonlySet<string>): Map<string, string> {
  const settings = hostSettingsOf(desired);
  for (const network of desired.networks) {
    const bridge = bridgeName(network);
    if (!bridges.has(bridge)) continue;
    settings.set(`net/ipv4/conf/${bridge}/send_redirects`, '0');
    // A published port answers on 127.0.0.1, too.
    if (network.isIngress) settings.set(`net/ipv4/conf/${bridge}/route_localnet`, '1');
  }
  return settings;
}

/** Paths whose values a plan for `desired` looks at. `prior`: see Actual. */
export function settingPaths(
  desired: Desired,
  bridges: ReadonlySet<string>,
  prior: ReadonlyMap<string, string>,
): string[] {
  return [...new Set([...settingsOf(desired, bridges).keys(), ...prior.keys()])];
}

/** The operations that lead from `actual` to `desired`, in the order in which they are to run; none when it is so. */
export function planDataPlane(desired: Desired, actual: Actual, options: PlanOptions): Operation[] {
  // The guard and the rules stand before the first frame can pass.
  const nft = rulesetCommands(actual.ruleset, rulesetOf(desired, options));
  const rest = planBesideRules(desired, actual, options);
  return nft.length > 0 ? [{ kind: 'nft', commands: nft }, ...rest] : rest;
}

/**
 * The commands for `nft -f` that lead from the rules of `before`, which stand, to those of `after`. While the networks
 * are the same, only services that changed are looked at: what one brings along is its own, whatever others do.
 */
export function ruleChanges(before: Desired, after: Desired, options: RulesetOptions): string[] {
  const isSameGround =
    before.networks === after.networks &&
    before.dataPathPort === after.dataPathPort &&
    before.networks.length > 0;
  if (!isSameGround) return rulesetCommands(rulesetOf(before, options), rulesetOf(after, options));
  const had = new Set(before.services);
  const has = new Set(after.services);
  const only = (state: Desired, others: ReadonlySet<unknown>): Desired => ({
    ...state,
    services: state.services.filter((service) => !others.has(service)),
  });
  return rulesetCommands(rulesetOf(only(before, has), options), rulesetOf(only(after, had), options));
}

/** Addresses that took new connections before and do not any more; only services that changed are looked at. */
export function withdrawnAddresses(before: Desired, after: Desired): string[] {
  const had = new Set(before.services);
  const has = new Set(after.services);
  const serving = (services: Desired['services']) =>
    services.flatMap(({ endpoints }) =>
      endpoints
        .filter(({ isDraining }) => !isDraining)
        .flatMap(({ addresses }) => Object.values(addresses).flat()),
    );
  const still = new Set(serving(after.services.filter((service) => !had.has(service))));
  return serving(before.services.filter((service) => !has.has(service))).filter(
    (address) => !still.has(address),
  );
}

/**
 * `actual` with the bridges that nobody needs: a network that the engine could not make wholly leaves one, which it then
 * takes for somebody else's and keeps when the network goes. `engineBridges`: those of its networks; undefined: not known.
 */
export function withOrphans<T extends Pick<Actual, 'bridges'>>(
  actual: T,
  desired: Desired,
  engineBridges: ReadonlySet<string> | undefined,
): T & Pick<Actual, 'orphans'> {
  const needed = new Set([...desired.networks.map(bridgeName), ...(engineBridges ?? actual.bridges)]);
  return { ...actual, orphans: new Set([...actual.bridges].filter((bridge) => !needed.has(bridge))) };
}

/**
 * Whether all networks that the engine has of ours are desired; not when it has not said. Until then it may still change
 * settings of the host for one that is to go, as it does when it starts.
 */
export function hasNoOther(engineBridges: ReadonlySet<string> | undefined, desired: Desired): boolean {
  const wanted = new Set(desired.networks.map(bridgeName));
  return engineBridges !== undefined && [...engineBridges].every((bridge) => wanted.has(bridge));
}

/** As planDataPlane, without the rules of nftables. */
export function planBesideRules(
  desired: Desired,
  actual: Omit<Actual, 'ruleset'>,
  options: PlanOptions,
): Operation[] {
  const operations: Operation[] = [];
  const tunnels = tunnelsOf(desired, options.keys ?? []);
  operations.push(...tunnelOperations(actual.tunnels, tunnels));
  const links = linkCommands(actual.links, linksOf(desired, actual.bridges, options));
  // A holder stays as long as there are networks: at each of its starts the engine would take up what it holds off.
  const holders = desired.networks.length === 0 ? [...(actual.holders ?? [])] : [];
  const orphans = [...(actual.orphans ?? []), ...holders].map((name) => `link delete ${name}`);
  if (links.ip.length + orphans.length > 0) {
    operations.push({ kind: 'ip', commands: [...links.ip, ...orphans] });
  }
  const hairpins = [...actual.hairpins]
    .filter(([, isOn]) => !isOn)
    .map(([port]) => `link set dev ${port} hairpin on`);
  if (links.bridge.length + hairpins.length > 0) {
    operations.push({ kind: 'bridge', commands: [...links.bridge, ...hairpins] });
  }
  operations.push(...tunnelRemovals(actual.tunnels, tunnels));
  const wanted = settingsOf(desired, actual.bridges);
  const prior = [...(actual.priorSettings ?? [])].filter(([path]) => !wanted.has(path));
  const settings = new Map(
    [...prior, ...wanted].filter(([path, value]) => (actual.settings.get(path) ?? value) !== value),
  );
  if (settings.size > 0) operations.push({ kind: 'settings', settings });
  const bridges = desired.networks.map(bridgeName).sort();
  for (const family of ['ipv4', 'ipv6'] as const) {
    const listing = actual.firewalls[family];
    if (listing === undefined) continue;
    const commands = firewallCommands(listing, bridges);
    if (commands.length > 0) operations.push({ kind: 'firewall', family, commands });
  }
  return operations;
}

/** An operation's lines for a person. */
export function describeOperation(operation: Operation): string[] {
  switch (operation.kind) {
    case 'nft':
    case 'ip':
    case 'bridge':
      return operation.commands.map((command) => `${operation.kind} ${command}`);
    case 'tunnel':
    case 'tunnel-removal':
      return describeTunnelOperation(operation);
    case 'settings':
      return [...operation.settings].map(([path, value]) => `sysctl ${path.replaceAll('/', '.')}=${value}`);
    case 'firewall':
      return operation.commands.map(
        (line) => `${operation.family === 'ipv4' ? 'iptables' : 'ip6tables'} ${line}`,
      );
    default:
      return assertNever(operation);
  }
}
