/**
 * Containers that a client makes on this node's engine itself (`docker run`), on networks of the cluster. In: requests to
 * make a container. Out: the engine's answer; where the request names a network of the cluster that allows it, the engine
 * is asked with its own network, the address that the managers gave, and the servers that know the names there. All else
 * goes to the engine as it came.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { networkIdLabel } from '../../proto/docker.ts';
import { isShoalError, messageOf, ShoalError } from '../../proto/errors.ts';
import type { ApiHost, ContainerNetwork } from './contract.ts';
import type { EngineNetwork } from './engine-networks.ts';
import { passOn } from './engine-proxy.ts';
import type { EngineAnswer, LocalEngine } from './local-engine.ts';

/** More than any container's configuration needs. */
const maximumBodyBytes = 4 * 1024 * 1024;
const engineModes: ReadonlySet<string> = new Set(['', 'default', 'bridge', 'host', 'none', 'nat']);
const containerIdPattern = /^[0-9a-f]{12,64}$/;

interface IpamConfig {
  readonly IPv4Address?: string;
  readonly IPv6Address?: string;
}

export interface EndpointConfig {
  readonly IPAMConfig?: IpamConfig | null;
  readonly Aliases?: readonly string[] | null;
}

/** What is read here of the body of POST /containers/create. */
interface ContainerCreate {
  readonly HostConfig?: { readonly NetworkMode?: string; readonly Dns?: readonly string[] | null } | null;
  readonly NetworkingConfig?: {
    readonly EndpointsConfig?: Readonly<Record<string, EndpointConfig | null>> | null;
  } | null;
}

/** Whether a request to the engine may name networks of the cluster. */
export function makesContainer(method: string, path: string): boolean {
  return method === 'POST' && path === '/containers/create';
}

/** Answers POST /containers/create. */
export async function createContainer(
  host: ApiHost,
  engine: LocalEngine,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const attached = new Map<string, ContainerNetwork>();
  try {
    const bytes = await bodyOf(request);
    const body = parsed(bytes);
    const asked = body === undefined ? [] : namesOf(body);
    if (body !== undefined && asked.length > 0) {
      const container = new URL(request.url ?? '', 'http://engine').searchParams.get('name') ?? '';
      await attachAll({ host, engine, body, container, asked, attached });
    }
    if (body === undefined || attached.size === 0) {
      await passOn(engine, request, response, host.log, bytes);
      return;
    }
    const answer = await engine.ask({
      method: 'POST',
      path: request.url ?? '',
      body: JSON.stringify(withNetworks(body, attached)),
    });
    for (const { made, release } of attached.values()) answer.status < 300 ? made() : release();
    send(response, answer.status, answer.json);
  } catch (error) {
    for (const { release } of attached.values()) release();
    send(response, isShoalError(error) ? error.httpStatus : 500, { message: messageOf(error) });
  }
}

interface Wish {
  readonly host: ApiHost;
  readonly engine: LocalEngine;
  readonly body: ContainerCreate;
  readonly container: string;
  readonly asked: readonly string[];
  /** Filled by the name in the request. */
  readonly attached: Map<string, ContainerNetwork>;
}

async function attachAll({ host, engine, body, container, asked, attached }: Wish): Promise<void> {
  const answer = await engine.ask({ method: 'GET', path: '/networks' });
  const there = answer.status === 200 ? (answer.json as EngineNetwork[]) : [];
  for (const name of asked) {
    const found = there.find(({ Id, Name }) => Name === name || Id === name);
    const carried = found?.Labels?.[networkIdLabel];
    if (found !== undefined && carried === undefined) continue;
    const end = body.NetworkingConfig?.EndpointsConfig?.[name] ?? {};
    const network = await attachOne(host, { name, id: carried, container, end });
    if (network !== undefined) attached.set(name, network);
  }
}

interface End {
  /** As the request says it. */
  readonly name: string;
  /** The cluster's id of the network, where the engine has it. */
  readonly id: string | undefined;
  /** Name or id of the container; empty: the engine's choice. */
  readonly container: string;
  readonly end: EndpointConfig;
}

/** A container's place in a network of the cluster; undefined when the cluster has no such network. */
export async function attachOne(
  host: ApiHost,
  { name, id, container, end }: End,
): Promise<ContainerNetwork | undefined> {
  const { IPv4Address, IPv6Address } = end.IPAMConfig ?? {};
  const names = [container, ...(end.Aliases ?? [])].filter(
    (one) => one !== '' && !containerIdPattern.test(one),
  );
  try {
    const network = await host.attachContainer(id ?? name, names);
    if (!IPv4Address && !IPv6Address) return network;
    network.release();
  } catch (error) {
    // A network that is neither's is refused in the engine's own words; so is any where there is none between hosts.
    const isNobodys = isShoalError(error, 'not-found') || isShoalError(error, 'failed-precondition');
    if (id === undefined && isNobodys) return undefined;
    throw error;
  }
  throw new ShoalError(
    'invalid-argument',
    `network ${name} is the cluster's, which gives its addresses itself: leave out --ip and --ip6`,
  );
}

/** A container's end of a network as the engine is to make it. */
export function endOf(network: ContainerNetwork, asked: EndpointConfig): EndpointConfig {
  const bare = network.addresses.map((address) => address.replace(/\/\d+$/, ''));
  const [IPv4Address, IPv6Address] = [
    bare.find((one) => !one.includes(':')),
    bare.find((one) => one.includes(':')),
  ];
  return {
    ...asked,
    IPAMConfig: { ...(IPv4Address ? { IPv4Address } : {}), ...(IPv6Address ? { IPv6Address } : {}) },
  };
}

/** Names that may be of networks of the cluster, each once. */
function namesOf({ HostConfig, NetworkingConfig }: ContainerCreate): string[] {
  const names = [HostConfig?.NetworkMode ?? '', ...Object.keys(NetworkingConfig?.EndpointsConfig ?? {})];
  return [...new Set(names)].filter((name) => !engineModes.has(name) && !name.startsWith('container:'));
}

/** The request as the engine is asked. */
function withNetworks(
  body: ContainerCreate,
  attached: ReadonlyMap<string, ContainerNetwork>,
): ContainerCreate {
  const mode = body.HostConfig?.NetworkMode ?? '';
  const ends: Record<string, EndpointConfig | null> = { ...body.NetworkingConfig?.EndpointsConfig };
  for (const [name, network] of attached) {
    const asked = ends[name] ?? {};
    delete ends[name];
    ends[network.name] = endOf(network, asked);
  }
  const servers = [...attached.values()].flatMap(({ nameservers }) => nameservers);
  return {
    ...body,
    HostConfig: {
      ...body.HostConfig,
      NetworkMode: attached.get(mode)?.name ?? mode,
      Dns: [...servers, ...(body.HostConfig?.Dns ?? [])],
    },
    NetworkingConfig: { ...body.NetworkingConfig, EndpointsConfig: ends },
  };
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request) {
    size += (chunk as Buffer).length;
    if (size > maximumBodyBytes) {
      throw new ShoalError('too-large', `the request's body is larger than ${maximumBodyBytes} bytes`);
    }
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks);
}

/** Undefined for what the engine is to refuse in its own words. */
function parsed(bytes: Buffer): ContainerCreate | undefined {
  try {
    const body: unknown = JSON.parse(bytes.toString());
    return typeof body === 'object' && body !== null ? (body as ContainerCreate) : undefined;
  } catch {
    return undefined;
  }
}

function send(response: ServerResponse, status: number, json: EngineAnswer['json']): void {
  if (response.headersSent || response.destroyed) return;
  const text = `${JSON.stringify(json ?? {})}\n`;
  response.writeHead(status, {
    'Content-Type': 'application/json',
    'Content-Length': Buffer.byteLength(text),
  });
  response.end(text);
}
