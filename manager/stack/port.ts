/** Published ports: `[[ip:]published:]target[/protocol]`, with ranges. */
import type { PortConfig } from '../../proto/docker.ts';
import { BadValue } from './quantity.ts';
import type { Tree } from './tree.ts';

export interface ShortPort {
  readonly ports: PortConfig[];
  /** The address that the port was asked for on; services publish on all of a node's. */
  readonly hostIp?: string;
}

const shortForm = /^(?:(\[[^\]]+\]|[^:]*):)?(?:([\d-]*):)?([\d-]+)(?:\/(\w+))?$/;

/** The ports of a short form, published in ingress mode as Docker does. Throws BadValue. */
export function parseShortPort(text: string): ShortPort {
  const parts = split(text);
  if (!parts) throw new BadValue(`invalid port ${JSON.stringify(text)}: write [published:]target[/protocol]`);
  const protocol = (parts.protocol ?? 'tcp').toLowerCase();
  if (protocol !== 'tcp' && protocol !== 'udp' && protocol !== 'sctp') {
    throw new BadValue(
      `invalid protocol ${JSON.stringify(protocol)} of port ${text}: it is tcp, udp or sctp`,
    );
  }
  const targets = range(parts.target, text);
  const published = parts.published === undefined ? [] : range(parts.published, text);
  if (published.length > 0 && published.length !== targets.length) {
    throw new BadValue(`invalid port ${JSON.stringify(text)}: the two ranges differ in length`);
  }
  const ports = targets.map((target, index): PortConfig => {
    const publishedPort = published[index];
    return {
      Protocol: protocol,
      TargetPort: target,
      ...(publishedPort ? { PublishedPort: publishedPort } : {}),
      PublishMode: 'ingress',
    };
  });
  return { ports, ...(parts.hostIp ? { hostIp: parts.hostIp } : {}) };
}

interface Parts {
  readonly hostIp: string | undefined;
  readonly published: string | undefined;
  readonly target: string;
  readonly protocol: string | undefined;
}

function split(text: string): Parts | undefined {
  const [, first, second, target, protocol] = shortForm.exec(text) ?? [];
  if (target === undefined) return undefined;
  if (second !== undefined) return { hostIp: first, published: second || undefined, target, protocol };
  if (first !== undefined && !/^[\d-]*$/.test(first)) return undefined;
  return { hostIp: undefined, published: first || undefined, target, protocol };
}

function range(text: string, whole: string): number[] {
  const [, first, last = first] = /^(\d+)(?:-(\d+))?$/.exec(text) ?? [];
  const [low, high] = [Number(first), Number(last)];
  if (first === undefined || low < 1 || high > 65535 || low > high) {
    throw new BadValue(`invalid port ${JSON.stringify(whole)}: ports go from 1 to 65535, ranges upwards`);
  }
  return Array.from({ length: high - low + 1 }, (_, index) => low + index);
}

/** By what a port is told from others when files are merged: what it is published as. */
export function portKey(tree: Tree): string | undefined {
  if (tree.kind === 'scalar') {
    const parts = split(String(tree.value));
    return parts && `${parts.published ?? `-${parts.target}`}/${parts.protocol ?? 'tcp'}`;
  }
  if (tree.kind !== 'map') return undefined;
  const field = (name: string) => {
    const value = tree.entries.get(name)?.value;
    return value?.kind === 'scalar' ? value.value : undefined;
  };
  return `${field('published') ?? `-${field('target')}`}/${field('protocol') ?? 'tcp'}`;
}
