/**
 * What becomes of a connection where it comes in: at the node of its task. Pure. In: from which node, to which task and
 * port, what the node was told, what stands in its kernel, and what the task's own network holds as /proc tells it. Out:
 * steps in words; one that breaks is the last.
 */
import { bridgeName, isIpv6 } from './desired.ts';
import { hexadecimalOf, inetTable } from './ruleset.ts';
import { type Sight, type Step, wayBetween } from './trace.ts';
import { keysOf } from './tunnel.ts';

export interface Arrival {
  readonly fromNodeId: string;
  readonly networkId: string;
  /** The task's. */
  readonly address: string;
  readonly port: number;
  readonly protocol: 'tcp' | 'udp';
  /** Files of /proc/PID/net of the task's first process by name; undefined: it can't be seen. */
  readonly files: ReadonlyMap<string, string> | undefined;
}

/** Of /proc/PID/net: who listens, and which addresses there are. */
export const networkFiles = ['tcp', 'tcp6', 'udp', 'udp6', 'fib_trie', 'if_inet6'] as const;

const listenState = '0A';
const loopback = /^(0100007F|0B00007F|0{24}01000000)$/;

export function arrivalAt(arrival: Arrival, sight: Sight): Step[] {
  const steps: Step[] = [];
  for (const step of [comesIn(arrival, sight), isTaken(arrival)]) {
    steps.push(step);
    if (step.breaks) return steps;
  }
  return steps;
}

function comesIn({ fromNodeId, networkId }: Arrival, sight: Sight): Step {
  const { desired, actual, options } = sight;
  const broken = (text: string): Step => ({ text, breaks: true });
  const network = desired.networks.find(({ id }) => id === networkId);
  if (network === undefined) return broken('the managers have not told this node of the network yet');
  const bridge = bridgeName(network);
  if (!actual.bridges.has(bridge))
    return broken(`the bridge ${bridge} of network ${network.name} is not there`);
  if (fromNodeId === options.nodeId)
    return { text: `on bridge ${bridge} of network ${network.name}`, breaks: false };
  // Answers take the same way back, so what can't be sent there is no connection either.
  const back = wayBetween(network, fromNodeId, sight);
  if (back.breaks) return back;
  const peer = network.peers.find(({ nodeId }) => nodeId === fromNodeId);
  const underlay = peer?.underlay ?? '';
  const host = `${peer?.hostname} (${underlay})`;
  const peers = actual.ruleset.get(inetTable)?.collections.get(isIpv6(underlay) ? 'peers6' : 'peers4');
  const isSecret = network.isEncrypted;
  const isKnown = isSecret
    ? keysOf(peer?.wireguardPublicKey ?? '').some(({ key }) =>
        [...actual.tunnels.values()].some((one) => one.peers.has(key)),
      )
    : peers?.elements.has(underlay) === true;
  if (!isKnown) return broken(`packets from ${host} are dropped: it is not among the peers`);
  return {
    text: `comes in from ${host} to bridge ${bridge}${isSecret ? ' through WireGuard' : ''}`,
    breaks: false,
  };
}

/** Whether a program of the task takes it. */
function isTaken({ address, port, protocol, files }: Arrival): Step {
  if (files === undefined) return { text: 'whether a program listens there can’t be seen', breaks: false };
  if (!hasAddress(files, address))
    return { text: `the task’s container does not have the address ${address}`, breaks: true };
  const all = listeners(files, protocol);
  const what = `port ${port}/${protocol}`;
  if (all.some((one) => one.port === port && takes(one.address, address))) {
    return { text: `a program of the task listens on ${what}`, breaks: false };
  }
  if (all.some((one) => one.port === port && loopback.test(one.address))) {
    return { text: `a program of the task listens on ${what} for 127.0.0.1 alone`, breaks: true };
  }
  const others = new Set(
    all.filter(({ address: own }) => takes(own, address)).map((one) => `${one.port}/${protocol}`),
  );
  const instead = others.size === 0 ? '' : `; it listens on ${[...others].sort().join(', ')}`;
  return { text: `no program of the task listens on ${what}${instead}`, breaks: true };
}

interface Listener {
  /** As /proc writes it: groups of four bytes, the last one first. */
  readonly address: string;
  readonly port: number;
}

function listeners(files: ReadonlyMap<string, string>, protocol: 'tcp' | 'udp'): Listener[] {
  return [protocol, `${protocol}6`].flatMap((name) =>
    (files.get(name) ?? '').split('\n').flatMap((line) => {
      const [, address, port, remote, state] =
        /^\s*\d+: ([0-9A-F]+):([0-9A-F]{4}) ([0-9A-F]+:[0-9A-F]{4}) (\w\w) /.exec(line) ?? [];
      if (address === undefined || port === undefined) return [];
      const isOpen = protocol === 'tcp' ? state === listenState : remote?.endsWith(':0000') === true;
      return isOpen ? [{ address, port: Number.parseInt(port, 16) }] : [];
    }),
  );
}

/** Whether a socket bound to `own` takes what comes to `address`. */
function takes(own: string, address: string): boolean {
  if (/^0+$/.test(own)) return true;
  const wanted = asProcWrites(address);
  return own === wanted || (own.length > 8 && own === `0000000000000000FFFF0000${wanted}`);
}

function asProcWrites(address: string): string {
  const bytes = isIpv6(address)
    ? hexadecimalOf(address).slice(2).padStart(32, '0')
    : address
        .split('.')
        .map((one) => Number(one).toString(16).padStart(2, '0'))
        .join('');
  const groups = bytes.toUpperCase().match(/.{8}/g) ?? [];
  return groups.map((group) => (group.match(/../g) ?? []).reverse().join('')).join('');
}

function hasAddress(files: ReadonlyMap<string, string>, address: string): boolean {
  if (!isIpv6(address))
    return new RegExp(`\\|-- ${address.replaceAll('.', '\\.')}$`, 'm').test(files.get('fib_trie') ?? '');
  const digits = hexadecimalOf(address).slice(2).padStart(32, '0');
  return (files.get('if_inet6') ?? '').split('\n').some((line) => line.startsWith(`${digits} `));
}
