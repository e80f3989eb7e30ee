/** What a client asks before anything else: /_ping, /version, /info. */
import type { IncomingHttpHeaders } from 'node:http';
import os from 'node:os';
import { type Response, Router } from 'express';
import { assertNever } from '../../proto/errors.ts';
import { lockedMessage } from '../../proto/identity.ts';
import type { Timer } from '../../proto/ports.ts';
import { clusterAnswer } from './answers.ts';
import type { ApiHost, EngineFacts, ManagedCluster, Membership } from './contract.ts';
import type { LocalEngine } from './local-engine.ts';
import { minimumMinor } from './request.ts';

const factsWithinMs = 10_000;

export function systemRoutes(host: ApiHost, engine: LocalEngine): Router {
  const routes = Router();
  // Express answers HEAD by the same route.
  routes.get('/_ping', async (_request, response) => {
    pingHeaders(response, host.membership(), await engine.ping());
    response.set('Api-Version', `1.${engine.minor}`);
    response.type('text/plain; charset=utf-8').send('OK');
  });
  routes.get('/version', async (_request, response) => {
    const [facts] = await Promise.all([factsOf(host), engine.ping()]);
    response.json(versionAnswer(host, engine, facts?.version));
  });
  routes.get('/info', async (_request, response) => {
    const [facts, Swarm] = await Promise.all([factsOf(host), swarmInfo(host)]);
    response.json({ ...infoOf(host, facts), Swarm });
  });
  return routes;
}

/** What the engine says of itself; undefined when it does not in time, for a node has more to tell than its engine. */
async function factsOf(host: ApiHost): Promise<EngineFacts | undefined> {
  let timer: Timer | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = host.clock.after(factsWithinMs, () => resolve(undefined));
  });
  return Promise.race([host.engine(), late]).finally(() => timer?.cancel());
}

/** What the engine says of its abilities, clients choose by: the kind of builder, for one. */
function pingHeaders(
  response: Response,
  membership: Membership,
  engine: IncomingHttpHeaders | undefined,
): void {
  response.set('Cache-Control', 'no-cache, no-store, must-revalidate');
  response.set('Pragma', 'no-cache');
  for (const name of ['Builder-Version', 'Docker-Experimental', 'Ostype']) {
    const said = engine?.[name.toLowerCase()];
    if (said !== undefined) response.set(name, said);
  }
  const { kind } = membership;
  if (kind === 'manager' || kind === 'worker') response.set('Swarm', `active/${kind}`);
  else response.set('Swarm', kind === 'none' ? 'inactive' : kind);
}

/**
 * The engine's own answer, with the versions of the API that are spoken here and with a component of our own. Without
 * an engine this program stands in its place.
 */
function versionAnswer(
  host: ApiHost,
  engine: LocalEngine,
  said: EngineFacts['version'] | undefined,
): Record<string, unknown> {
  const api = { ApiVersion: `1.${engine.minor}`, MinAPIVersion: `1.${minimumMinor}` };
  const arch = { x64: 'amd64', arm64: 'arm64' }[os.arch() as 'x64' | 'arm64'] ?? os.arch();
  const machine = { Os: os.platform(), Arch: arch, KernelVersion: os.release() };
  const Details = { ...api, ...machine, NodeVersion: process.version };
  const own = { Name: 'Shoal', Version: host.version, Details };
  if (said && Array.isArray(said.Components)) {
    return { ...said, Components: [...(said.Components as unknown[]).map(component), own], ...api };
  }
  const program = { GitCommit: '', GoVersion: '', BuildTime: '' };
  // Clients look for a component of this name.
  const Engine = { ...own, Name: 'Engine', Details: { ...Details, ...program, Experimental: 'false' } };
  return {
    Platform: { Name: `Shoal ${host.version}` },
    Components: [Engine, own],
    Version: host.version,
    ...api,
    ...program,
    ...machine,
  };

  function component(one: unknown): unknown {
    const { Name, Details: theirs } = one as { Name?: unknown; Details?: object };
    return Name === 'Engine' ? { ...(one as object), Details: { ...theirs, ...api } } : one;
  }
}

/** What is known of this machine while its engine does not answer. */
function infoOf(host: ApiHost, engine: EngineFacts | undefined): Record<string, unknown> {
  if (engine) return engine.info;
  return {
    ID: '',
    Containers: 0,
    ContainersRunning: 0,
    ContainersPaused: 0,
    ContainersStopped: 0,
    Images: 0,
    Name: os.hostname(),
    NCPU: os.cpus().length,
    MemTotal: os.totalmem(),
    KernelVersion: os.release(),
    OperatingSystem: os.version(),
    OSType: os.platform(),
    Architecture: os.machine(),
    SystemTime: new Date(host.clock.now()).toISOString(),
    ServerVersion: host.version,
    Labels: [],
    Warnings: ['The container engine of this node does not answer'],
  };
}

interface SwarmInfo {
  readonly NodeID: string;
  readonly NodeAddr: string;
  readonly LocalNodeState: 'inactive' | 'pending' | 'active' | 'error' | 'locked';
  readonly ControlAvailable: boolean;
  readonly Error: string;
  readonly RemoteManagers: { NodeID: string; Addr: string }[] | null;
}

const outside: SwarmInfo = {
  NodeID: '',
  NodeAddr: '',
  LocalNodeState: 'inactive',
  ControlAvailable: false,
  Error: '',
  RemoteManagers: null,
};

async function swarmInfo(host: ApiHost): Promise<SwarmInfo> {
  const membership = host.membership();
  const NodeAddr = membership.kind === 'none' ? '' : host.advertiseAddress();
  switch (membership.kind) {
    case 'none':
      return outside;
    case 'pending':
      return { ...outside, NodeAddr, LocalNodeState: 'pending' };
    case 'locked':
      return {
        ...outside,
        NodeID: membership.nodeId,
        NodeAddr,
        LocalNodeState: 'locked',
        Error: lockedMessage,
      };
    case 'error':
      return {
        ...outside,
        NodeID: membership.nodeId ?? '',
        NodeAddr,
        LocalNodeState: 'error',
        Error: membership.message,
      };
    case 'worker':
      return {
        ...outside,
        NodeID: membership.nodeId,
        NodeAddr,
        LocalNodeState: 'active',
        RemoteManagers: membership.managers,
      };
    case 'manager':
      return managerInfo(membership.cluster, NodeAddr);
    default:
      return assertNever(membership);
  }
}

/** A manager without a quorum still says who it is; what the cluster holds it can't say then. */
async function managerInfo(cluster: ManagedCluster, NodeAddr: string): Promise<SwarmInfo> {
  const base: SwarmInfo = {
    NodeID: cluster.nodeId,
    NodeAddr,
    LocalNodeState: 'active',
    ControlAvailable: true,
    Error: '',
    RemoteManagers: cluster.managerAddresses(),
  };
  try {
    await cluster.readBarrier();
  } catch (error) {
    const Error_ = error instanceof Error ? error.message : String(error);
    return { ...base, Error: Error_ };
  }
  const object = cluster.store.cluster();
  return {
    ...base,
    Nodes: cluster.store.count('node'),
    Managers: cluster.store.find('node', 'role', 'manager').length,
    ...(object ? { Cluster: clusterAnswer(object, { tokens: false }) } : {}),
  } as SwarmInfo;
}
