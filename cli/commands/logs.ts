/** shoal service logs: the lines of a service's or a task's containers, from wherever they run. */
import type { Command } from 'commander';
import type { ClusterNode, Service } from '../../proto/docker.ts';
import { isShoalError } from '../../proto/errors.ts';
import type { Context } from '../context.ts';
import { parseDuration } from '../parse.ts';
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
    .option('--no-trunc', 'do not shorten ids')
    .option('--no-resolve', 'print ids instead of names')
    .option('--no-task-ids', 'leave task ids out')
    .action(async (name: string, flags: LogFlags) => {
      await printLogs(name, flags, context);
    });
}

async function printLogs(name: string, flags: LogFlags, context: Context): Promise<void> {
  const client = context.client();
  const path = await logPath(name, context);
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
  for await (const frame of frames(response as AsyncIterable<Buffer>)) {
    const target = frame.stream === 2 ? process.stderr : process.stdout;
    for (const line of linesOf(frame.data)) target.write(`${prefix(line)}\n`);
  }
}

async function logPath(name: string, context: Context): Promise<string> {
  try {
    return `/services/${(await context.client().get<Service>(`/services/${name}`)).ID}/logs`;
  } catch (error) {
    if (!isShoalError(error, 'not-found')) throw error;
  }
  try {
    return `/tasks/${(await context.client().get<ListedTask>(`/tasks/${name}`)).ID}/logs`;
  } catch (error) {
    if (!isShoalError(error, 'not-found')) throw error;
    throw Object.assign(error, { message: `no such task or service: ${name}` });
  }
}

function sinceSeconds(text: string, nowMs: number): string {
  if (/^\d+$/.test(text)) return text;
  const time = Date.parse(text);
  const ms = Number.isNaN(time) ? nowMs - parseDuration(text, '--since') / 1e6 : time;
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

/** With details=true each line begins with `com.docker.swarm.node.id=…,…service.id=…,…task.id=… `. */
async function prefixer(flags: LogFlags, context: Context): Promise<(line: string) => string> {
  const client = context.client();
  const [services, nodes, tasks] = await Promise.all([
    client.get<Service[]>('/services'),
    client.get<ClusterNode[]>('/nodes'),
    client.get<ListedTask[]>('/tasks'),
  ]);
  const known = {
    service: new Map<string, string>(services.map((one) => [one.ID, one.Spec.Name])),
    node: new Map<string, string>(nodes.map((one) => [one.ID, one.Description.Hostname])),
    task: new Map(tasks.map((one) => [one.ID, one])),
  };
  return (line) => {
    const match = /^((?:\S+ )?)((?:com\.docker\.swarm\.[a-z.]+=[^ ,]*,?)+) ?(.*)$/s.exec(line);
    if (!match) return line;
    const details = new Map(match[2]!.split(',').map((pair) => pair.split('=') as [string, string]));
    const taskId = details.get('com.docker.swarm.task.id') ?? '';
    const serviceId = details.get('com.docker.swarm.service.id') ?? '';
    const nodeId = details.get('com.docker.swarm.node.id') ?? '';
    const resolve = flags.resolve !== false;
    const slot = known.task.get(taskId)?.Slot ?? nodeId.slice(0, 12);
    const serviceName = (resolve && known.service.get(serviceId)) || serviceId;
    const task = flags.taskIds === false ? '' : `.${flags.trunc === false ? taskId : taskId.slice(0, 12)}`;
    const node = (resolve && known.node.get(nodeId)) || nodeId;
    return `${match[1]}${`${serviceName}.${slot}${task}@${node}`.padEnd(20)}    | ${match[3]}`;
  };
}
