/**
 * Waits until a service has converged, and shows how far it is: a bar a task on a terminal, a count
 * elsewhere. Ends with an error that says why, when the rollout was paused or rolled back.
 */
import type { Service } from '../proto/docker.ts';
import { ShoalError } from '../proto/errors.ts';
import { type Clock, delay } from '../proto/ports.ts';
import { compareTaskStates, type TaskState, taskStateRank } from '../proto/task-state.ts';
import type { ApiClient } from './client.ts';
import type { ListedTask } from './commands/tasks.ts';
import { cut } from './output.ts';

const pollIntervalMs = 150;
/** A service is done when it has been complete for this long, as Docker's client has it. */
const stableMs = 1000;
const longestBarList = 20;

export interface ProgressOptions {
  readonly quiet: boolean;
  readonly clock: Clock;
  /** Where to draw. Bars when it is a terminal. */
  readonly output: NodeJS.WriteStream;
}

interface Picture {
  readonly total: number;
  /** Newest live task of each place, by slot or node. */
  readonly tasks: ReadonlyMap<string, ListedTask>;
  readonly running: number;
  readonly problem: string | undefined;
}

/** Resolves when every task of the service runs its newest revision; rejects with why it does not. */
export async function waitForService(
  client: ApiClient,
  serviceId: string,
  options: ProgressOptions,
): Promise<void> {
  const screen = new Screen(options);
  let completeSince: number | undefined;
  try {
    for (;;) {
      const service = await client.get<Service>(`/services/${serviceId}`);
      const failure = failureOf(service);
      const picture = await look(client, service);
      screen.draw(picture);
      if (failure) throw new ShoalError('failed-precondition', failure);
      const settled =
        picture.running >= picture.total && picture.tasks.size === picture.total && !isUpdating(service);
      const now = options.clock.monotonicMs();
      if (!settled) completeSince = undefined;
      else if (completeSince === undefined) completeSince = now;
      else if (now - completeSince >= stableMs) break;
      await delay(options.clock, pollIntervalMs);
    }
  } finally {
    screen.end();
  }
  if (!options.quiet) options.output.write(`verify: Service ${serviceId} converged\n`);
}

function isUpdating(service: Service): boolean {
  return service.UpdateStatus?.State === 'updating' || service.UpdateStatus?.State === 'rollback_started';
}

function failureOf(service: Service): string | undefined {
  const status = service.UpdateStatus;
  switch (status?.State) {
    case 'paused':
      return `service update paused: ${status.Message}`;
    case 'rollback_paused':
      return `service rollback paused: ${status.Message}`;
    case 'rollback_completed':
      return /fail/i.test(status.Message) ? `service rolled back: ${status.Message}` : undefined;
    default:
      return undefined;
  }
}

async function look(client: ApiClient, service: Service): Promise<Picture> {
  const filters = JSON.stringify({ service: { [service.ID]: true } });
  const all = await client.get<ListedTask[]>('/tasks', { filters });
  const tasks = new Map<string, ListedTask>();
  for (const task of all) {
    if (task.DesiredState !== 'running' && task.DesiredState !== 'ready') continue;
    const place = String(task.Slot ?? task.NodeID ?? '');
    const other = tasks.get(place);
    if (!other || other.CreatedAt < task.CreatedAt) tasks.set(place, task);
  }
  const replicas = service.Spec.Mode.Replicated?.Replicas ?? 1;
  const total = service.Spec.Mode.Global ? tasks.size : replicas;
  const running = [...tasks.values()].filter((task) => task.Status.State === 'running').length;
  return { total, tasks, running, problem: problemOf(all) };
}

/** The newest reason that a task waits for or failed by. */
function problemOf(tasks: readonly ListedTask[]): string | undefined {
  const troubled = tasks.filter((task) => task.Status.Err && task.DesiredState !== 'remove');
  troubled.sort((a, b) => b.Status.Timestamp.localeCompare(a.Status.Timestamp));
  return troubled[0]?.Status.Err;
}

const stages: readonly TaskState[] = [
  'pending',
  'assigned',
  'accepted',
  'preparing',
  'ready',
  'starting',
  'running',
];

class Screen {
  private readonly output: NodeJS.WriteStream;
  private readonly quiet: boolean;
  private drawnLines = 0;
  private lastLine = '';

  constructor(options: ProgressOptions) {
    this.output = options.output;
    this.quiet = options.quiet;
  }

  draw(picture: Picture): void {
    if (this.quiet) return;
    const head = `overall progress: ${picture.running} out of ${picture.total} tasks`;
    const waiting = picture.running < picture.total && picture.problem ? cut(picture.problem, 160) : '';
    if (!this.output.isTTY) {
      this.drawLine(waiting === '' ? head : `${head} (${waiting})`);
      return;
    }
    const bars =
      picture.total <= longestBarList
        ? [...picture.tasks].sort(byPlace).map(([, task]) => bar(task, picture.total))
        : [];
    const lines = [head, ...bars, ...(waiting === '' ? [] : [waiting])];
    const width = this.output.columns || 80;
    if (this.drawnLines > 0) this.output.write(`\x1b[${this.drawnLines}A`);
    this.output.write(`${lines.map((line) => `\x1b[2K${cut(line, width)}`).join('\n')}\n\x1b[J`);
    this.drawnLines = lines.length;
  }

  private drawLine(line: string): void {
    if (line !== this.lastLine) this.output.write(`${line}\n`);
    this.lastLine = line;
  }

  end(): void {
    this.drawnLines = 0;
  }
}

function byPlace(a: [string, ListedTask], b: [string, ListedTask]): number {
  return a[0].localeCompare(b[0], 'en', { numeric: true });
}

const barWidth = 50;

function bar(task: ListedTask, total: number): string {
  const place = task.Slot === undefined ? (task.NodeID ?? '').slice(0, 12) : `${task.Slot}/${total}`;
  const state = task.Status.State;
  const reached = stages.filter((stage) => compareTaskStates(stage, state) <= 0).length;
  const share = taskStateRank[state] > taskStateRank.running ? 0 : reached / stages.length;
  const filled = Math.round(share * barWidth);
  const drawn = filled > 0 ? `${'='.repeat(filled - 1)}>` : '';
  return `${place}: ${state.padEnd(9)} [${drawn.padEnd(barWidth)}]`;
}
