/** Short questions to a cluster in the lab: services made, reasons awaited, raw requests sent. */
import { request } from 'node:http';
import type { ListedTask } from '../../cli/commands/tasks.ts';
import type { ClusterNode, Service } from '../../proto/docker.ts';
import { clientOf, nodesSeenBy, tasksOf } from './cluster.ts';
import { type LabHost, type Output, waitFor } from './lab.ts';

/** What a container runs that does nothing for ever, and ends at once when asked. */
export const idle = ['busybox:lab', 'sh', '-c', 'trap "exit 0" TERM; while :; do sleep 1000000 & wait; done'];

/** `shoal service create --detach --name NAME …`: returns before the tasks run. */
export function create(host: LabHost, name: string, ...rest: string[]): Promise<Output> {
  return host.shoal('service', 'create', '--detach', '--name', name, ...rest);
}

/** Waits until a task of the service shows `reason`, as an error or as a message; answers that task. */
export function waitForReason(host: LabHost, service: string, reason: RegExp): Promise<ListedTask> {
  let seen: string[] = [];
  return waitFor(`a task of ${service} to say ${reason}`, 40_000, async () => {
    const tasks = await tasksOf(host, service);
    seen = tasks.map(({ Status }) => `${Status.State}: ${Status.Message ?? ''}: ${Status.Err ?? ''}`);
    const found = tasks.find(({ Status }) => reason.test(`${Status.Message ?? ''}: ${Status.Err ?? ''}`));
    if (!found) throw new Error(seen.join(' | ') || 'it has no tasks');
    return found;
  });
}

/** Waits until exactly `count` tasks of the service are wanted and run; answers them. */
export function waitForRunning(host: LabHost, service: string, count: number): Promise<ListedTask[]> {
  return waitFor(`${count} tasks of ${service} to run`, 60_000, async () => {
    const wanted = (await tasksOf(host, service)).filter((task) => task.DesiredState === 'running');
    const running = wanted.filter((task) => task.Status.State === 'running');
    if (running.length === count && wanted.length === count) return running;
    throw new Error(wanted.map(({ Status }) => `${Status.State} ${Status.Err ?? ''}`).join(' | '));
  });
}

export function serviceOf(host: LabHost, name: string): Promise<Service> {
  return clientOf(host).get<Service>(`/services/${name}`);
}

/** The node of this name, as `witness` sees it; the newest when there are several. */
export async function nodeNamed(witness: LabHost, name: string): Promise<ClusterNode> {
  const nodes = (await nodesSeenBy(witness)).filter((node) => node.Description.Hostname === name);
  const node = nodes.sort((a, b) => b.CreatedAt.localeCompare(a.CreatedAt))[0];
  if (!node) throw new Error(`${witness.name} knows no node ${name}`);
  return node;
}

/** What the daemon says of its own place in the cluster. */
export async function swarmOf(
  host: LabHost,
): Promise<{ LocalNodeState: string; ControlAvailable: boolean; NodeID: string; Error: string }> {
  const { Swarm } = await clientOf(host).get<{ Swarm: Awaited<ReturnType<typeof swarmOf>> }>('/info');
  return Swarm;
}

/** What a container's command printed. */
export async function inside(host: LabHost, containerId: string, ...command: string[]): Promise<string> {
  return (await host.engine('exec', containerId, ...command)).stdout;
}

/** A request as it is, body and all, without what a client does to help. */
export function send(
  host: LabHost,
  method: string,
  path: string,
  body?: string | Buffer,
  headers: Record<string, string> = {},
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    let answered = false;
    const sent = request({ socketPath: host.shoalSocket, method, path, headers }, (response) => {
      answered = true;
      const parts: Buffer[] = [];
      const end = (): void =>
        resolve({ status: response.statusCode ?? 0, text: Buffer.concat(parts).toString('utf8') });
      response.on('data', (part: Buffer) => parts.push(part));
      response.on('end', end);
      response.on('error', end);
    });
    // A server that has answered may close before it has read all of the body.
    sent.on('error', (error) => {
      if (!answered) reject(error);
    });
    sent.setTimeout(20_000, () => sent.destroy(new Error(`${method} ${path}: no answer in 20 s`)));
    sent.end(body);
  });
}
