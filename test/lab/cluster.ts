/** A Shoal cluster on the lab's hosts, asked through its API as a client would. */
import { ApiClient } from '../../cli/client.ts';
import type { ListedTask } from '../../cli/commands/tasks.ts';
import type { ClusterNode, Service } from '../../proto/docker.ts';
import { type Lab, type LabHost, type ShoaldOptions, waitFor } from './lab.ts';

/** The API of the daemon on `host`. */
export function clientOf(host: LabHost): ApiClient {
  return new ApiClient({ kind: 'unix', path: host.shoalSocket });
}

/** Starts shoald on every host and joins them: the first `managers` of them as managers, the rest as workers. */
export async function formCluster(lab: Lab, managers: number, options: ShoaldOptions = {}): Promise<void> {
  await Promise.all(lab.hosts.map((host) => host.startShoald(options)));
  const [first, ...others] = lab.hosts;
  await first!.shoal('swarm', 'init', '--advertise-addr', first!.address);
  for (const [index, host] of others.entries()) {
    const role = index + 1 < managers ? 'manager' : 'worker';
    const { stdout: token } = await first!.shoal('swarm', 'join-token', '-q', role);
    await host.shoal('swarm', 'join', '--token', token.trim(), `${first!.address}:2377`);
  }
  await waitFor('all nodes to be ready and all managers reachable', 30_000, async () => {
    const nodes = await nodesSeenBy(first!);
    const reachable = nodes.filter((node) => node.ManagerStatus?.Reachability === 'reachable');
    return nodes.filter(isReady).length === lab.hosts.length && reachable.length === managers;
  });
}

/** Whether the node is up. */
export function isReady(node: ClusterNode): boolean {
  return node.Status.State === 'ready';
}

export function nodesSeenBy(host: LabHost): Promise<ClusterNode[]> {
  return clientOf(host).get<ClusterNode[]>('/nodes');
}

/** The host that leads, as `witness` sees it. */
export async function leaderHost(lab: Lab, witness: LabHost): Promise<LabHost> {
  const nodes = await nodesSeenBy(witness);
  const name = nodes.find((node) => node.ManagerStatus?.Leader)?.Description.Hostname;
  const host = lab.hosts.find((candidate) => candidate.name === name);
  if (!host) throw new Error(`no host is shown as the leader (${name ?? 'none'})`);
  return host;
}

/** Tasks of a service, all of them. */
export async function tasksOf(witness: LabHost, service: string): Promise<ListedTask[]> {
  const client = clientOf(witness);
  const { ID } = await client.get<Service>(`/services/${service}`);
  return client.get<ListedTask[]>('/tasks', { filters: JSON.stringify({ service: { [ID]: true } }) });
}

/** Tasks that run, on nodes other than `lost`, by what the managers know. */
export async function runningTasks(witness: LabHost, service: string, lost?: string): Promise<ListedTask[]> {
  const [tasks, nodes] = await Promise.all([tasksOf(witness, service), nodesSeenBy(witness)]);
  const lostId = nodes.find((node) => node.Description.Hostname === lost)?.ID;
  return tasks.filter(
    (task) => task.DesiredState === 'running' && task.Status.State === 'running' && task.NodeID !== lostId,
  );
}

/** Ids of the running containers of an engine that belong to tasks, sorted. */
export async function containersOn(host: LabHost): Promise<string[]> {
  const filter = ['--filter', 'label=com.docker.swarm.task.id'];
  const { stdout } = await host.engine('ps', '-q', '--no-trunc', ...filter);
  return stdout.split('\n').filter(Boolean).sort();
}

/** What would differ if a container had been restarted: id, start time and restart count. */
export async function containerFingerprint(host: LabHost): Promise<string[]> {
  const ids = await containersOn(host);
  if (ids.length === 0) return [];
  const format = '{{.Id}} {{.State.StartedAt}} {{.RestartCount}}';
  const { stdout } = await host.engine('inspect', '--format', format, ...ids);
  return stdout.split('\n').filter(Boolean).sort();
}
