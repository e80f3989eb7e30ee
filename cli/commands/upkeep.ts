/** Maintenance: node drain, which can wait and tell, and service rebalance. */
import type { Command } from 'commander';
import type { ClusterNode, NodeSpec, Service, Task } from '../../proto/docker.ts';
import { delay } from '../../proto/ports.ts';
import { isTerminal } from '../../proto/task-state.ts';
import type { Context } from '../context.ts';
import { print } from '../output.ts';

const pollIntervalMs = 250;
/** Label of a node by which it gives up all its tasks at once; see docs/services.md. */
const drainLabel = 'shoal.drain';

interface DrainFlags {
  readonly wait?: boolean;
  readonly now?: boolean;
}

/** Adds `node drain`. */
export function addDrain(node: Command, context: Context): void {
  node
    .command('drain')
    .description('have tasks leave a node, each service’s as its updates go')
    .argument('<node>')
    .option('-w, --wait', 'until none is left, telling what is and why')
    .option('--now', 'stop all at once, without waiting for others to serve in their place')
    .action(async (name: string, flags: DrainFlags) => {
      const client = context.client();
      const found = await client.get<ClusterNode>(`/nodes/${encodeURIComponent(name)}`);
      const { [drainLabel]: _, ...labels } = found.Spec.Labels;
      const Labels = flags.now ? { ...labels, [drainLabel]: 'at-once' } : labels;
      const spec: NodeSpec = { ...found.Spec, Labels, Availability: 'drain' };
      await client.post(`/nodes/${found.ID}/update`, spec, { version: String(found.Version.Index) });
      if (flags.wait) await waitUntilEmpty(context, found.ID);
      print(name);
    });
}

/** Tells on standard error what is left on a node and what it waits for, whenever that changes. */
async function waitUntilEmpty(context: Context, nodeId: string): Promise<void> {
  const client = context.client();
  let told = '';
  for (;;) {
    const left = (
      await client.get<Task[]>('/tasks', { filters: JSON.stringify({ node: { [nodeId]: true } }) })
    ).filter((task) => !isTerminal(task.Status.State));
    if (left.length === 0) return;
    const serviceIds = [...new Set(left.map((task) => task.ServiceID))];
    const lines = await Promise.all(serviceIds.map((id) => lineOf(context, id, left)));
    const words = lines.join('\n');
    if (words !== told) process.stderr.write(`${words}\n`);
    told = words;
    await delay(context.clock, pollIntervalMs);
  }
}

/** One service's tasks that are left, and what the first of those that are to take over says. */
async function lineOf(context: Context, serviceId: string, left: readonly Task[]): Promise<string> {
  const client = context.client();
  const [service, tasks] = await Promise.all([
    client.get<Service>(`/services/${serviceId}`).catch(() => undefined),
    client
      .get<Task[]>('/tasks', { filters: JSON.stringify({ service: { [serviceId]: true } }) })
      .catch(() => []),
  ]);
  const own = left.filter((task) => task.ServiceID === serviceId);
  const slots = new Set(own.map((task) => task.Slot));
  const isNext = (task: Task) => task.Status.State !== 'running' && !isTerminal(task.Status.State);
  const next = tasks.find(
    (task) => slots.has(task.Slot) && isNext(task) && !own.some(({ ID }) => ID === task.ID),
  );
  const why = next && `: the next is ${next.Status.State}${next.Status.Err ? ` (${next.Status.Err})` : ''}`;
  return `${service?.Spec.Name ?? serviceId}: ${own.length} left${why ?? ''}`;
}

interface AnsweredMove {
  readonly TaskID: string;
  readonly Slot: number;
  readonly From: string;
  readonly To: string;
  readonly Reason: string;
}

/** Adds `service rebalance`. */
export function addRebalance(service: Command, context: Context): void {
  service
    .command('rebalance')
    .description('move tasks to nodes that have less to do')
    .argument('<service>')
    .option('--dry-run', 'only tell which')
    .action(async (name: string, flags: { dryRun?: boolean }) => {
      const path = `/services/${encodeURIComponent(name)}/rebalance`;
      const query = flags.dryRun ? { 'dry-run': 'true' } : {};
      const { Moves } = await context.client().post<{ Moves: AnsweredMove[] }>(path, undefined, query);
      for (const { Slot, Reason } of Moves) print(`${name}.${Slot}: ${Reason}`);
      if (Moves.length === 0) print(`${name}: nothing to move`);
    });
}
