/** Reads a running Docker Swarm through its API. In: where its manager listens. Out: everything that an import looks at. */
import { messageOf, ShoalError } from '../../proto/errors.ts';
import { ApiClient, type Host } from '../client.ts';
import { UsageError } from '../usage.ts';
import type { SourceNetwork, SourceSwarm } from './plan.ts';

/** Where an engine listens. Throws UsageError for anything but unix:// and tcp://. */
export function parseSource(text: string, certPath: string | undefined): Host {
  if (/^unix:\/\/.+/.test(text)) return { kind: 'unix', path: text.slice('unix://'.length) };
  const tcp = /^tcp:\/\/(\[[^\]]+\]|[^:/]+):(\d+)$/.exec(text);
  if (tcp) return { kind: 'tcp', hostname: tcp[1]!.replace(/^\[|\]$/g, ''), port: Number(tcp[2]), certPath };
  if (text.startsWith('ssh://')) {
    throw new UsageError(
      `--from ${text}: let ssh carry the socket (ssh -nNT -L /tmp/swarm.sock:/var/run/docker.sock ${text.slice('ssh://'.length)}) and import --from unix:///tmp/swarm.sock`,
    );
  }
  throw new UsageError(
    `--from ${text}: write unix:///PATH or tcp://HOST:PORT of one of the Swarm's managers`,
  );
}

/** Everything, one list after the other. Throws 'failed-precondition' when it is no manager of a Docker Swarm. */
export async function readSwarm(host: Host): Promise<SourceSwarm> {
  // Without a version the engine answers in its newest, whichever that is.
  const client = new ApiClient(host, '');
  const { ID: clusterId } = await client.get<{ ID: string }>('/swarm').catch((error: unknown) => {
    throw new ShoalError(
      'failed-precondition',
      `what listens there is not asked as a manager of a Docker Swarm: ${messageOf(error)}`,
      { cause: error },
    );
  });
  const list = async <T>(path: string): Promise<T[]> => (await client.get<T[] | null>(path)) ?? [];
  const services = await list<SourceSwarm['services'][number]>('/services');
  const volumes = await client.get<{ Volumes?: { Name: string; ClusterVolume?: unknown }[] | null }>(
    '/volumes',
  );
  return {
    clusterId,
    services,
    networks: await networksOf(client, services),
    configs: await list('/configs'),
    secrets: await list('/secrets'),
    nodes: await list('/nodes'),
    clusterVolumes: (volumes.Volumes ?? []).flatMap((one) => (one.ClusterVolume ? [one.Name] : [])),
  };
}

/** The swarm's networks; and those of the engine that services name by an id which no list shows. */
async function networksOf(client: ApiClient, services: SourceSwarm['services']): Promise<SourceNetwork[]> {
  const networks = (await client.get<SourceNetwork[] | null>('/networks')) ?? [];
  const known = new Set(networks.map(({ Id }) => Id));
  const named = services.flatMap(({ Spec }) => Spec.TaskTemplate.Networks ?? Spec.Networks ?? []);
  const unknown = [...new Set(named.map(({ Target }) => Target))].filter((id) => !known.has(id));
  for (const id of unknown) {
    const found = await client
      .get<SourceNetwork>(`/networks/${encodeURIComponent(id)}`, { scope: 'swarm' })
      .catch(() => undefined);
    if (found) networks.push({ ...found, Id: id });
  }
  return networks;
}
