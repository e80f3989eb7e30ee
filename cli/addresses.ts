/** Which address this machine is reached by, when nobody said. */
import { type NetworkInterfaceInfo, networkInterfaces } from 'node:os';
import { ShoalError } from '../proto/errors.ts';

export const defaultClusterPort = 2377;

/** `host:port` of `text`, with `fallback` for a port where none is given. `what` names the flag in errors. */
export function withPort(text: string, what: string, fallback = defaultClusterPort): string {
  const match = /^(\[[0-9a-fA-F:.]+\]|[^:\s]+)(?::(\d{1,5}))?$/.exec(text);
  const port = Number(match?.[2] ?? fallback);
  if (!match || port < 1 || port > 65535) {
    throw new ShoalError('invalid-argument', `${what} "${text}" is not an address: write HOST or HOST:PORT`);
  }
  return `${match[1]}:${port}`;
}

/**
 * `text` (HOST or HOST:PORT) with the address of the network interface in place of its name, where the host is
 * one. Throws when that interface has several IPv4 addresses, or none, as Docker does.
 */
export function ofInterface(
  text: string,
  what: string,
  interfaces: NodeJS.Dict<NetworkInterfaceInfo[]> = networkInterfaces(),
): string {
  const [, host = '', port = ''] = /^([^:]+)(:\d+)?$/.exec(text) ?? [];
  const infos = interfaces[host];
  if (infos === undefined) return text;
  const own = infos.filter((info) => info.family === 'IPv4').map((info) => info.address);
  if (own.length === 1) return `${own[0]}${port}`;
  const fault = own.length === 0 ? 'has no IPv4 address' : `has several addresses (${own.join(', ')})`;
  throw new ShoalError('invalid-argument', `${what}: interface ${host} ${fault}: name an address`);
}

/** The host of `host:port`. */
export function hostOf(address: string): string {
  return address.slice(0, address.lastIndexOf(':'));
}

/** The port of `host:port`. */
export function portOf(address: string): number {
  return Number(address.slice(address.lastIndexOf(':') + 1));
}

/**
 * The address that other nodes reach this one by: the one it listens on, when that is one; else the only
 * address of this machine. Throws 'invalid-argument' when there are several, as Docker does.
 */
export function guessAdvertiseAddress(listenAddress: string): string {
  const host = hostOf(listenAddress);
  if (host !== '0.0.0.0' && host !== '[::]') return listenAddress;
  const own = Object.entries(networkInterfaces()).flatMap(([name, infos]) =>
    (infos ?? []).filter(isUsable).map((info) => ({ name, address: info.address })),
  );
  const outward = own.filter(({ name }) => !/^(docker|br-|veth|virbr|shoal)/.test(name));
  const [only, ...others] = outward;
  if (!only)
    throw new ShoalError(
      'invalid-argument',
      'could not find the system’s IP address - specify one with --advertise-addr',
    );
  if (others.length > 0) {
    const list = outward.map(({ name, address }) => `${address} on ${name}`).join(', ');
    throw new ShoalError(
      'invalid-argument',
      `could not choose an IP address to advertise since this system has multiple addresses (${list}) - specify one with --advertise-addr`,
    );
  }
  return `${only.address}:${portOf(listenAddress)}`;
}

function isUsable(info: NetworkInterfaceInfo): boolean {
  return !info.internal && info.family === 'IPv4';
}
