/**
 * Commands in tasks, wherever they run: POST /tasks/{id}/exec makes one, and Docker's own /exec/{id}/start, resize and json
 * go on with it, as if it were an engine's. Who may talk to this API may do so, as with an engine's socket.
 */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { type RequestHandler, type Response, Router } from 'express';
import type { Task } from '../../proto/docker.ts';
import { isShoalError, messageOf, ShoalError } from '../../proto/errors.ts';
import type { ExecCommand } from '../../proto/exec-command.ts';
import { asId, type TaskId } from '../../proto/ids.ts';
import { drained } from '../../proto/rpc-stream.ts';
import type { ExecOutput, TaskCommands } from '../exec/command.ts';
import { requireGrants } from '../store/privileges.ts';
import type { View } from '../store/store.ts';
import type { ApiHost, ManagedCluster } from './contract.ts';
import { lookupTask } from './lookup.ts';
import { jsonBody, managedCluster, pathOf, query } from './request.ts';

const maximumStartBytes = 64 * 1024;
const systemStream = 3;

/** The commands that this node's API knows of; none while it is no manager. */
export function taskCommands(host: ApiHost): TaskCommands | undefined {
  const membership = host.membership();
  return membership.kind === 'manager' ? membership.cluster.commands : undefined;
}

/** The id in a path below /exec, if there is one. */
export function execIdOf(path: string): string | undefined {
  return /^\/exec\/([^/]+)\/(?:start|resize|json)$/.exec(path)?.[1];
}

/**
 * The task that Docker's clients mean by a container's name in a path of theirs, when its container is no business of this
 * node's engine: it runs elsewhere (`web.3.TASKID`, as its container is called), or is named by the task's id alone.
 */
export function distantTask(host: ApiHost, path: string): Task | undefined {
  const name = /^\/containers\/([^/]+)\/(?:exec|json)$/.exec(path)?.[1];
  const id = name === undefined ? undefined : /^(?:.+\.)?([0-9a-z]{25})$/.exec(decodeURIComponent(name))?.[1];
  const membership = host.membership();
  if (id === undefined || membership.kind !== 'manager') return undefined;
  const { store, nodeId } = membership.cluster;
  const task = store.get('task', asId<TaskId>(id));
  return task && (task.NodeID !== nodeId || name === id) ? task : undefined;
}

export function execRoutes(host: ApiHost): Router {
  const routes = Router();
  const commands = async (): Promise<TaskCommands> => (await managedCluster(host)).commands;
  const make: RequestHandler = async (request, response) => {
    const cluster = await managedCluster(host);
    const command = readCommand(jsonBody(request));
    if (command.privileged) requirePrivileged(cluster);
    const task = distantTask(host, request.path)?.ID ?? pathOf(request, 'id');
    const Id = await cluster.commands.make(runningTask(cluster, task), command);
    response.status(201).json({ Id });
  };
  routes.post('/tasks/:id/exec', make);
  routes.post('/containers/:id/exec', make);
  // Docker's CLI looks at a container before it runs a command in it.
  routes.get('/containers/:id/json', async (request, response) => {
    const { store } = await managedCluster(host);
    const task = distantTask(host, request.path);
    response.json(containerAnswer(store, task ?? lookupTask(store, pathOf(request, 'id'))));
  });
  routes.post('/exec/:id/start', async (request, response) => {
    const id = pathOf(request, 'id');
    const { Detach } = readStart(jsonBody(request));
    const all = await commands();
    if (!Detach) return sendOutput(all, id, response);
    await all.start(id, { write: async () => {}, end: () => {} }, { detach: true });
    response.status(200).end();
  });
  routes.post('/exec/:id/resize', async (request, response) => {
    await (await commands()).resize(pathOf(request, 'id'), sizeOf(request, 'h'), sizeOf(request, 'w'));
    response.status(200).end();
  });
  routes.get('/exec/:id/json', async (request, response) => {
    response.json(factsAnswer(await commands(), pathOf(request, 'id')));
  });
  return routes;
}

/** What the cluster knows of a task's container on another node: less than its engine would tell. */
function containerAnswer(view: View, task: Task) {
  const spec = view.get('revision', task.RevisionID)?.Spec;
  const { Image, Labels, TTY, Env, Command, Args, Hostname } = spec?.TaskTemplate.ContainerSpec ?? {};
  const { ContainerID = '', PID = 0, ExitCode = 0 } = task.Status.ContainerStatus ?? {};
  const Running = task.Status.State === 'running';
  return {
    Id: ContainerID,
    Name: `/${spec?.Name ?? task.ServiceID}.${task.Slot ?? task.NodeID}.${task.ID}`,
    Created: task.CreatedAt,
    State: { Status: Running ? 'running' : 'exited', Running, Paused: false, Pid: PID, ExitCode },
    Image: Image ?? '',
    Config: {
      Hostname: Hostname ?? '',
      Image: Image ?? '',
      Tty: TTY === true,
      Env: Env ?? [],
      Entrypoint: Command ?? null,
      Cmd: Args ?? null,
      Labels: {
        ...Labels,
        'com.docker.swarm.node.id': task.NodeID ?? '',
        'com.docker.swarm.service.id': task.ServiceID,
        'com.docker.swarm.task.id': task.ID,
      },
    },
    HostConfig: {},
    Mounts: [],
    NetworkSettings: { Networks: {} },
  };
}

function runningTask(cluster: ManagedCluster, input: string) {
  const task = lookupTask(cluster.store, input);
  const node = cluster.store.get('node', task.NodeID);
  if (node === undefined || task.Status.State !== 'running')
    throw new ShoalError('conflict', `task ${input} is not running: it is ${task.Status.State}`);
  return { id: task.ID, nodeId: node.ID, nodeName: node.Description.Hostname || node.ID };
}

/** More rights than the service's containers have are the cluster's to give. */
function requirePrivileged({ store }: ManagedCluster): void {
  requireGrants(store.cluster()?.Spec, { 'shoal.privileged': 'true' });
}

const isText = (value: unknown): value is string => typeof value === 'string';

function readCommand(body: unknown): ExecCommand {
  const fields = (typeof body === 'object' && body !== null ? body : {}) as Record<string, unknown>;
  const words = (name: string): readonly string[] => {
    const value = fields[name] ?? [];
    if (Array.isArray(value) && value.every(isText)) return value;
    throw new ShoalError('invalid-argument', `${name} must be a list of strings`);
  };
  const text = (name: string): string => {
    const value = fields[name] ?? '';
    if (isText(value)) return value;
    throw new ShoalError('invalid-argument', `${name} must be a string`);
  };
  const flag = (name: string): boolean => fields[name] === true;
  if (words('Cmd').length === 0) throw new ShoalError('invalid-argument', 'No exec command specified');
  return {
    command: words('Cmd'),
    env: words('Env'),
    user: text('User'),
    workingDir: text('WorkingDir'),
    tty: flag('Tty'),
    stdin: flag('AttachStdin'),
    stdout: flag('AttachStdout'),
    stderr: flag('AttachStderr'),
    detachKeys: text('DetachKeys'),
    privileged: flag('Privileged'),
  };
}

function readStart(body: unknown): { Detach: boolean } {
  return { Detach: (body as { Detach?: unknown } | null)?.Detach === true };
}

function sizeOf(request: Parameters<typeof query>[0], name: string): number {
  const value = Number(query(request, name));
  if (Number.isSafeInteger(value) && value >= 0 && value < 65536) return value;
  throw new ShoalError('invalid-argument', `${name} must be a number of characters, below 65536`);
}

/** In Docker's shape; Problem, which Docker has not, says why the way to the command broke off. */
function factsAnswer(commands: TaskCommands, id: string) {
  const { task, command, containerId, isRunning, exitCode, problem } = commands.facts(id);
  const [entrypoint, ...rest] = command.command;
  return {
    ID: id,
    Running: isRunning,
    ExitCode: exitCode ?? null,
    ProcessConfig: {
      tty: command.tty,
      entrypoint,
      arguments: rest,
      privileged: command.privileged,
      ...(command.user === '' ? {} : { user: command.user }),
    },
    OpenStdin: command.stdin,
    OpenStdout: command.stdout,
    OpenStderr: command.stderr,
    CanRemove: exitCode !== undefined,
    ContainerID: containerId,
    DetachKeys: command.detachKeys,
    TaskID: task.id,
    NodeID: task.nodeId,
    Problem: problem,
  };
}

/** Output alone, for a client that asks for no connection of its own. */
async function sendOutput(commands: TaskCommands, id: string, response: Response): Promise<void> {
  const { tty } = commands.facts(id).command;
  const output = outputTo(response, tty);
  const handle = await commands.start(id, output, { detach: false });
  response.once('close', () => handle.close());
  response.status(200).type(streamType(tty)).flushHeaders();
  output.open();
  handle.endInput();
}

/** Starts command `id` on the connection of a request that said `Upgrade`, of which `rest` has been read already. */
export async function takeOverExec(
  commands: TaskCommands,
  id: string,
  { request, connection, rest }: { request: IncomingMessage; connection: Duplex; rest: Buffer },
): Promise<void> {
  connection.on('error', () => connection.destroy());
  connection.pause();
  try {
    const input = await readBody(request, connection, rest);
    const { tty } = commands.facts(id).command;
    const output = outputTo(connection, tty);
    const handle = await commands.start(id, output, { detach: false });
    connection.once('close', () => handle.close());
    connection.write(
      `HTTP/1.1 101 UPGRADED\r\nContent-Type: ${streamType(tty)}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n`,
    );
    output.open();
    if (input.length > 0) await handle.input(input);
    for await (const chunk of connection.iterator({ destroyOnReturn: false })) await handle.input(chunk);
    handle.endInput();
  } catch (error) {
    if (!connection.writableEnded && !connection.destroyed) refuse(connection, error);
  }
}

/** Reads the request's JSON, which says nothing that is not known; answers what came after it. */
async function readBody(request: IncomingMessage, connection: Duplex, rest: Buffer): Promise<Buffer> {
  const bytes = Number(request.headers['content-length'] ?? 0);
  if (request.headers['transfer-encoding'] !== undefined || !(bytes <= maximumStartBytes))
    throw new ShoalError('invalid-argument', 'the body of exec start must say its length, and be short');
  let read = rest;
  if (read.length < bytes) {
    for await (const chunk of connection.iterator({ destroyOnReturn: false })) {
      read = Buffer.concat([read, chunk as Buffer]);
      if (read.length >= bytes) break;
    }
  }
  return read.subarray(bytes);
}

function streamType(tty: boolean): string {
  return `application/vnd.docker.${tty ? 'raw' : 'multiplexed'}-stream`;
}

/** Bytes go to `to` once it was opened, for the head of the answer goes first. */
function outputTo(to: Duplex | Response, tty: boolean): ExecOutput & { open(): void } {
  let open: () => void = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  const write = async (bytes: Uint8Array): Promise<void> => {
    await opened;
    if (to.destroyed || to.writableEnded || to.write(bytes)) return;
    await drained(to);
  };
  return {
    open,
    write,
    end: (error) => {
      const last = error && !tty ? write(systemFrame(error)) : Promise.resolve();
      void last.then(() => opened).then(() => to.end());
    },
  };
}

/** Where there are frames, an error has one of its own, which Docker's clients know. */
function systemFrame(error: Error): Buffer {
  const text = Buffer.from(error.message);
  const head = Buffer.alloc(8);
  head.writeUInt8(systemStream, 0);
  head.writeUInt32BE(text.length, 4);
  return Buffer.concat([head, text]);
}

function refuse(connection: Duplex, error: unknown): void {
  const text = `${JSON.stringify({ message: messageOf(error) })}\n`;
  const status = isShoalError(error) ? error.httpStatus : 500;
  connection.end(
    `HTTP/1.1 ${status} Error\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(text)}\r\nConnection: close\r\n\r\n${text}`,
  );
  connection.resume();
}
