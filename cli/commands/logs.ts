/** shoal service logs: the lines of a service's or a task's containers, from wherever they run. */
import type { Command } from 'commander';
import type { ClusterNode, Service } from '../../proto/docker.ts';
import { isShoalError, ShoalError } from '../../proto/errors.ts';
import type { Context } from '../context.ts';
import { parseDuration } from '../parse.ts';
import { UsageError } from '../usage.ts';
import type { ListedTask } from './tasks.ts';

interface LogFlags {
  readonly follow?: boolean;
  readonly tail?: string;
  readonly since?: string;
  readonly timestamps?: boolean;
  readonly raw?: boolean;
  readonly trunc?: boolean;
  readonly resolve?: boolean;
  readonly taskIds?: boolean;
  readonly details?: boolean;
}

/** Adds the verb. */
export function addLogs(service: Command, context: Context): void {
  service
    .command('logs')
    .description('print the logs of a service or task')
    .argument('<service|task>')
    .option('-f, --follow', 'go on as lines come in')
    .option('-n, --tail <lines>', 'only the last lines of each task', 'all')
    .option('--since <time>', 'only lines after a time, or as old as a duration (e.g. 10m)')
    .option('-t, --timestamps', 'print the time of each line')
    .option('--raw', 'print the lines only')
    .option('--details', 'print what the log driver adds to each line')
    .option('--no-trunc', 'do not shorten ids')
    .option('--no-resolve', 'print ids instead of names')
    .option('--no-task-ids', 'leave task ids out')
    .action(async (name: string, flags: LogFlags) => {
      checkTail(flags.tail);
      await printLogs(name, flags, context);
    });
}

async function printLogs(name: string, flags: LogFlags, context: Context): Promise<void> {
  const client = context.client();
  const { path, isTerminal } = await findLogs(name, context);
  if (isTerminal && !flags.raw)
    throw new UsageError('logs of a service with a terminal (--tty) can only be shown with --raw');
  const prefix = flags.raw ? (line: string) => line : await prefixer(flags, context);
  const response = await client.open('GET', path, {
    stdout: 'true',
    stderr: 'true',
    details: flags.raw ? 'false' : 'true',
    follow: flags.follow ? 'true' : 'false',
    timestamps: flags.timestamps ? 'true' : 'false',
    tail: flags.tail ?? 'all',
    since: flags.since === undefined ? undefined : sinceSeconds(flags.since, context.clock.now()),
  });
  if (isTerminal) {
    // Without frames: a terminal has one stream.
    for await (const chunk of response as AsyncIterable<Buffer>) process.stdout.write(chunk);
    return;
  }
  for await (const frame of frames(response as AsyncIterable<Buffer>)) {
    const target = frame.stream === 2 ? process.stderr : process.stdout;
    for (const line of linesOf(frame.data)) target.write(`${prefix(line)}\n`);
  }
}

interface LogSource {
  readonly path: string;
  readonly isTerminal: boolean;
}

/** The logs of the service of this name or id, else of the task of this id. */
async function findLogs(name: string, context: Context): Promise<LogSource> {
  const client = context.client();
  const key = encodeURIComponent(name);
  try {
    const { ID, Spec } = await client.get<Service>(`/services/${key}`);
    return { path: `/services/${ID}/logs`, isTerminal: Spec.TaskTemplate.ContainerSpec.TTY === true };
  } catch (error) {
    if (!isShoalError(error, 'not-found')) throw error;
  }
  try {
    const { ID, Spec } = await client.get<ListedTask>(`/tasks/${key}`);
    return { path: `/tasks/${ID}/logs`, isTerminal: Spec.ContainerSpec?.TTY === true };
  } catch (error) {
    if (!isShoalError(error, 'not-found')) throw error;
    throw new ShoalError('not-found', `no such task or service: ${name}`);
  }
}

function checkTail(tail: string | undefined): void {
  if (tail === undefined || tail === 'all' || /^\d+$/.test(tail)) return;
  throw new UsageError(`--tail "${tail}" is neither a number of lines nor all`);
}

function sinceSeconds(text: string, nowMs: number): string {
  if (/^\d+$/.test(text)) return text;
  const isTime = /^\d{4}-\d{2}-\d{2}/.test(text);
  const ms = isTime ? Date.parse(text) : nowMs - parseDuration(text, '--since') / 1e6;
  if (Number.isNaN(ms)) throw new UsageError(`--since "${text}" is not a time, e.g. 2026-01-02T15:04:05Z`);
  return (ms / 1000).toFixed(3);
}

interface Frame {
  readonly stream: number;
  readonly data: Buffer;
}

/** Frames of Docker's multiplexed stream: a byte for the stream, three empty, four of length, then the data. */
async function* frames(chunks: AsyncIterable<Buffer>): AsyncGenerator<Frame> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of chunks) {
    rest = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk;
    while (rest.length >= 8 && rest.length >= 8 + rest.readUInt32BE(4)) {
      const end = 8 + rest.readUInt32BE(4);
      yield { stream: rest[0]!, data: rest.subarray(8, end) };
      rest = rest.subarray(end);
    }
  }
}

function linesOf(data: Buffer): string[] {
  const text = data.toString('utf8');
  return (text.endsWith('\n') ? text.slice(0, -1) : text).split('\n');
}

interface Known {
  readonly service: ReadonlyMap<string, string>;
  readonly node: ReadonlyMap<string, string>;
  readonly task: ReadonlyMap<string, ListedTask>;
}

/** Fetches what the ids in the lines stand for. */
async function prefixer(flags: LogFlags, context: Context): Promise<(line: string) => string> {
  const client = context.client();
  const [services, nodes, tasks] = await Promise.all([
    client.get<Service[]>('/services'),
    client.get<ClusterNode[]>('/nodes'),
    client.get<ListedTask[]>('/tasks'),
  ]);
  const known: Known = {
    service: new Map(services.map((one) => [one.ID, one.Spec.Name])),
    node: new Map(nodes.map((one) => [one.ID, one.Description.Hostname])),
    task: new Map(tasks.map((one) => [one.ID, one])),
  };
  let width = 0;
  return (line) => {
    const read = readLine(line, flags.timestamps === true);
    if (!read) return line;
    const source = sourceOf(read.details, known, flags);
    // As docker does it, the bars stand below each other once the longest name has been seen.
    width = Math.max(width, source.length);
    return `${read.time}${source.padEnd(width)}    | ${restOf(read.details, flags)}${read.text}`;
  };
}

const swarmDetail = 'com.docker.swarm.';

interface ReadLine {
  /** With a space after it, or empty. */
  readonly time: string;
  readonly details: ReadonlyMap<string, string>;
  readonly text: string;
}

/** With details=true a line is `[time ]key=value,key=value text`, values escaped as in a URL. */
export function readLine(line: string, hasTime: boolean): ReadLine | undefined {
  const match = (hasTime ? /^(\S+ )(\S+) ?(.*)$/s : /^()(\S+) ?(.*)$/s).exec(line);
  if (!match?.[2]?.includes(swarmDetail)) return undefined;
  const details = match[2].split(',').map((pair): [string, string] => {
    const at = pair.indexOf('=');
    return at < 0 ? [unescaped(pair), ''] : [unescaped(pair.slice(0, at)), unescaped(pair.slice(at + 1))];
  });
  return { time: match[1]!, details: new Map(details), text: match[3]! };
}

function unescaped(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    return text;
  }
}

/** `web.1.abcdefghijkl@node-1` */
function sourceOf(details: ReadonlyMap<string, string>, known: Known, flags: LogFlags): string {
  const taskId = details.get(`${swarmDetail}task.id`) ?? '';
  const serviceId = details.get(`${swarmDetail}service.id`) ?? '';
  const nodeId = details.get(`${swarmDetail}node.id`) ?? '';
  const resolve = flags.resolve !== false;
  const slot = known.task.get(taskId)?.Slot ?? nodeId;
  const service = (resolve && known.service.get(serviceId)) || serviceId;
  const shownTask = flags.trunc === false ? taskId : taskId.slice(0, 12);
  const task = flags.taskIds === false ? '' : `.${shownTask}`;
  const node = (resolve && known.node.get(nodeId)) || nodeId;
  return `${service}.${slot}${task}@${node}`;
}

function restOf(details: ReadonlyMap<string, string>, flags: LogFlags): string {
  if (!flags.details) return '';
  const rest = [...details].filter(([key]) => !key.startsWith(swarmDetail));
  return rest.length === 0 ? '' : `${rest.map(([key, value]) => `${key}=${value}`).join(',')} `;
}
