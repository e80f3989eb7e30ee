/** What a client asks before anything else: /_ping, /version, /info. */
import os from 'node:os';
import { type Response, Router } from 'express';
import { assertNever } from '../../proto/errors.ts';
import { clusterAnswer } from './answers.ts';
import type { ApiHost, EngineFacts, ManagedCluster, Membership } from './contract.ts';
import { currentMinor, minimumMinor, swarmLocked } from './request.ts';

export function systemRoutes(host: ApiHost): Router {
  const routes = Router();
  // Express answers HEAD by the same route.
  routes.get('/_ping', (_request, response) => {
    pingHeaders(response, host.membership());
    response.type('text/plain; charset=utf-8').send('OK');
  });
  routes.get('/version', async (_request, response) => {
    response.json(versionAnswer(host, (await host.engine())?.version));
  });
  routes.get('/info', async (_request, response) => {
    const engine = await host.engine();
    response.json({ ...infoOf(host, engine), Swarm: await swarmInfo(host) });
  });
  return routes;
}

function pingHeaders(response: Response, membership: Membership): void {
  response.set('Cache-Control', 'no-cache, no-store, must-revalidate');
  response.set('Pragma', 'no-cache');
  const { kind } = membership;
  if (kind === 'manager' || kind === 'worker') response.set('Swarm', `active/${kind}`);
  else response.set('Swarm', kind === 'none' ? 'inactive' : kind);
}

function versionAnswer(host: ApiHost, engine: EngineFacts['version'] | undefined): Record<string, unknown> {
  const ApiVersion = `1.${currentMinor}`;
  const MinAPIVersion = `1.${minimumMinor}`;
  const arch = { x64: 'amd64', arm64: 'arm64' }[os.arch() as 'x64' | 'arm64'] ?? os.arch();
  const facts = {
    GitCommit: '',
    GoVersion: '',
    Os: os.platform(),
    Arch: arch,
    KernelVersion: os.release(),
    BuildTime: '',
  };
  // Clients look for a component of this name.
  const own = {
    Name: 'Engine',
    Version: host.version,
    Details: {
      ApiVersion,
      Arch: arch,
      BuildTime: facts.BuildTime,
      Experimental: 'false',
      GitCommit: facts.GitCommit,
      GoVersion: facts.GoVersion,
      KernelVersion: facts.KernelVersion,
      MinAPIVersion,
      NodeVersion: process.version,
      Os: facts.Os,
    },
  };
  const components: unknown[] = Array.isArray(engine?.Components) ? engine.Components : [];
  return {
    Platform: { Name: `Shoal ${host.version}` },
    Components: [own, ...components.map(containerEngineComponent)],
    Version: host.version,
    ApiVersion,
    MinAPIVersion,
    ...facts,
  };
}

/** The container engine's own part goes by another name, so that it is not taken for this program. */
function containerEngineComponent(component: unknown): unknown {
  const isEngine = (component as { Name?: unknown } | null)?.Name === 'Engine';
  return isEngine ? { ...(component as object), Name: 'Container Engine' } : component;
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
        Error: swarmLocked,
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
