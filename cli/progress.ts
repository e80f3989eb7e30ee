/**
 * Waits until a service has converged, and shows how far it is: a bar a task on a terminal, a count
 * elsewhere. Like docker it waits as long as it takes, and says meanwhile what keeps the tasks from running;
 * it ends with an error when waiting has no sense any more. An interrupt ends the waiting, not the service.
 */
import colors from 'picocolors';
import type { ClusterNode, Service } from '../proto/docker.ts';
import { ShoalError } from '../proto/errors.ts';
import { type Clock, delay } from '../proto/ports.ts';
import { compareTaskStates, type TaskState, taskStateRank } from '../proto/task-state.ts';
import type { ApiClient } from './client.ts';
import type { ListedTask } from './commands/tasks.ts';
import { type Picture, type Place, pictureOf } from './convergence.ts';
import { cut } from './output.ts';

const pollIntervalMs = 150;
/** A service has converged when it has been complete for this long. */
const stableMs = 1000;
const longestBarList = 20;

export interface ProgressOptions {
  readonly quiet: boolean;
  readonly clock: Clock;
  /** Where to draw. Bars when it is a terminal. */
  readonly output: NodeJS.WriteStream;
  /** The user asked for a rollback, so that one is no failure. */
  readonly isRollback?: boolean;
}

/** Resolves when every task of the service runs its newest revision; rejects with why it does not. */
export async function waitForService(
  client: ApiClient,
  serviceId: string,
  options: ProgressOptions,
): Promise<void> {
  const screen = new Screen(options);
  const interrupt = watchInterrupts();
  let completeSince: number | undefined;
  let rollbackCause: string | undefined;
  try {
    while (!interrupt.arrived()) {
      const picture = await look(client, serviceId);
      if (picture.rollback && !picture.rollback.isOver) rollbackCause = picture.rollback.message;
      screen.draw(picture);
      if (picture.failure) throw new ShoalError('failed-precondition', picture.failure);
      if (picture.rollback?.isOver && !options.isRollback) {
        const message = rollbackCause ?? picture.rollback.message;
        throw new ShoalError('failed-precondition', `service rolled back: ${message}`);
      }
      const now = options.clock.monotonicMs();
      if (picture.done < picture.total || picture.isRolling) completeSince = undefined;
      else completeSince ??= now;
      if (completeSince !== undefined && now - completeSince >= stableMs) {
        screen.say(picture.isJob ? 'job complete' : `verify: Service ${serviceId} converged`);
        return;
      }
      await Promise.race([delay(options.clock, pollIntervalMs), interrupt.promise]);
    }
    options.output.write(
      `Operation continuing in background.\nUse \`shoal service ps ${serviceId}\` to check progress.\n`,
    );
  } finally {
    interrupt.stop();
  }
}

async function look(client: ApiClient, serviceId: string): Promise<Picture> {
  const filtered = (more: Record<string, Record<string, true>>) =>
    client.get<ListedTask[]>('/tasks', {
      filters: JSON.stringify({ service: { [serviceId]: true }, ...more }),
    });
  const service = await client.get<Service>(`/services/${serviceId}`);
  const [all, current, nodes] = await Promise.all([
    filtered({}),
    filtered({ '_up-to-date': { true: true } }),
    service.Spec.Mode.Global || service.Spec.Mode.GlobalJob ? client.get<ClusterNode[]>('/nodes') : [],
  ]);
  return pictureOf(service, current, all, nodes);
}

/** Notices Ctrl-C in place of ending the program by it. */
function watchInterrupts() {
  let arrived = false;
  let settle: () => void = () => undefined;
  const promise = new Promise<void>((resolve) => {
    settle = resolve;
  });
  const note = (): void => {
    arrived = true;
    settle();
  };
  process.once('SIGINT', note);
  return { arrived: () => arrived, promise, stop: () => process.removeListener('SIGINT', note) };
}

// ---------------------------------------------------------------- drawing

class Screen {
  private readonly output: NodeJS.WriteStream;
  private readonly quiet: boolean;
  private drawnLines = 0;
  private lastLine = '';

  constructor(options: ProgressOptions) {
    this.output = options.output;
    this.quiet = options.quiet;
  }

  say(line: string): void {
    if (!this.quiet) this.output.write(`${line}\n`);
  }

  draw(picture: Picture): void {
    if (this.quiet) return;
    const lines = linesOf(picture);
    if (this.output.isTTY) this.redraw(lines);
    else this.drawLine(countLine(picture));
  }

  private redraw(lines: readonly string[]): void {
    const width = this.output.columns || 80;
    if (this.drawnLines > 0) this.output.write(`\x1b[${this.drawnLines}A`);
    this.output.write(`${lines.map((line) => `\x1b[2K${cut(line, width)}`).join('\n')}\n\x1b[J`);
    this.drawnLines = lines.length;
  }

  private drawLine(line: string): void {
    if (line !== this.lastLine) this.output.write(`${line}\n`);
    this.lastLine = line;
  }
}

function headOf(picture: Picture): string {
  const verb = picture.rollback && !picture.rollback.isOver ? 'rolling back: ' : 'overall progress: ';
  return `${verb}${picture.done} out of ${picture.total} tasks`;
}

/** The reason that most stands in the way, for where there is one line only. */
function mainProblem(picture: Picture): string | undefined {
  return picture.places.find((place) => place.problem !== undefined)?.problem;
}

function countLine(picture: Picture): string {
  const problem = picture.done < picture.total ? mainProblem(picture) : undefined;
  return problem ? `${headOf(picture)} (${cut(problem, 160)})` : headOf(picture);
}

/** What a terminal shows: the count, then a bar a place while they fit, else the reason beside the count. */
export function linesOf(picture: Picture): string[] {
  if (picture.places.length > longestBarList) return [countLine(picture)];
  const width = Math.max(0, ...picture.places.map((place) => place.name.length));
  return [headOf(picture), ...picture.places.map((place) => barOf(place, width))];
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
const barWidth = 50;

function barOf(place: Place, width: number): string {
  const state = place.task?.Status.State;
  const head = `${place.name.padEnd(width)}: ${(state ?? 'new').padEnd(9)}`;
  if (place.problem) return `${head} ${colors.yellow(place.problem.replaceAll('\n', ' '))}`;
  const reached = state ? stages.filter((stage) => compareTaskStates(stage, state) <= 0).length : 0;
  const hasEnded = state !== undefined && taskStateRank[state] > taskStateRank.running;
  const share = place.isDone ? 1 : hasEnded ? 0 : reached / stages.length;
  const filled = Math.round(share * barWidth);
  const drawn = filled > 0 ? `${'='.repeat(filled - 1)}>` : '';
  return `${head} [${drawn.padEnd(barWidth)}]`;
}
