/**
 * The agent's end of the process that answers names (name-server.ts). In: states, as the data plane gives them. Out: a
 * process that knows them. One that an agent before this left is taken over as it stands; one of another version is
 * replaced by one that is ready to listen, so that names are away for a moment only; one that ended is started anew.
 */
import { spawn } from 'node:child_process';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { createConnection, type Socket } from 'node:net';
import { join } from 'node:path';
import { messageOf, ShoalError } from '../../proto/errors.ts';
import type { EndpointsUpdate } from '../../proto/generated/shoal/v1/EndpointsUpdate.ts';
import { type Clock, delay, type Log } from '../../proto/ports.ts';
import { type Desired, nothingDesired } from './desired.ts';
import type { NameAnswerer } from './dns.ts';
import { onLines, type Said, type ServersByEnd, sendLine, type Told } from './name-wire.ts';

/** A rule is not held up for longer by a name. */
const knowTimeoutMs = 1_000;
const listenTimeoutMs = 10_000;
/** From its start until it can be connected to. */
const startTimeoutMs = 15_000;
const helloTimeoutMs = 3_000;
const endTimeoutMs = 3_000;
const retryMs = 20;
const socketName = /^names-\d+\.sock$/;

export interface NameProcessOptions {
  /** The program and its first parameters; `--socket PATH --version VERSION` follow. */
  readonly program: readonly string[];
  /** Folder of the sockets, which only this daemon uses. */
  readonly folder: string;
  readonly version: string;
  readonly clock: Clock;
  readonly log: Log;
  /** It ended, and nobody told it to: `listen` starts another. */
  readonly onLost: () => void;
}

type Request<Kind = Told> = Kind extends { readonly id: number } ? Omit<Kind, 'id'> : never;

export class NameProcess implements NameAnswerer {
  readonly #options: NameProcessOptions;
  #link: Link | undefined;
  #opening: Promise<Link> | undefined;
  #desired: Desired = nothingDesired;
  /** Undefined: not known in this life yet, so that what a process knows stands. */
  #servers: ServersByEnd | undefined;
  #isStopped = false;

  constructor(options: NameProcessOptions) {
    this.#options = options;
  }

  know(desired: Desired, update?: EndpointsUpdate): Promise<void> {
    const before = this.#desired;
    this.#desired = desired;
    return this.#tellState(update !== undefined && this.#link?.holds === before ? update : undefined);
  }

  useServers(servers: ReadonlyMap<string, readonly string[]>): void {
    this.#servers = [...servers];
    this.#tellServers();
  }

  async listen(desired: Desired): Promise<readonly string[]> {
    try {
      if (desired.networks.length === 0) {
        await this.end();
        return [];
      }
      this.#opening ??= this.#open().finally(() => {
        this.#opening = undefined;
      });
      const link = await this.#opening;
      const problems = await within(this.#options.clock, listenTimeoutMs, link.ask({ kind: 'listen' }));
      return problems ?? ['names may not be answered: the process that does it is busy'];
    } catch (error) {
      return [`names are not answered: ${messageOf(error)}`];
    }
  }

  stop(): void {
    this.#isStopped = true;
    this.#link?.close();
    this.#link = undefined;
  }

  async end(): Promise<void> {
    const link = this.#link;
    this.#link = undefined;
    for (const one of link === undefined ? await this.#standing() : [link]) await one.end();
  }

  async #tellState(update: EndpointsUpdate | undefined): Promise<void> {
    const link = this.#link;
    if (link === undefined) return;
    const desired = this.#desired;
    link.holds = desired;
    const told =
      update === undefined ? ({ kind: 'state', desired } as const) : ({ kind: 'update', update } as const);
    // Should it have ended, listen tells the next one all of it.
    await within(this.#options.clock, knowTimeoutMs, link.ask(told)).catch(() => {});
  }

  #tellServers(): void {
    if (this.#servers === undefined) return;
    this.#link?.ask({ kind: 'servers', servers: this.#servers }).catch(() => {});
  }

  /** A process that knows the newest state: the one that is connected, one that stands, or a new one. */
  async #open(): Promise<Link> {
    if (this.#link !== undefined) return this.#link;
    const { version, log, onLost } = this.#options;
    const standing = await this.#standing();
    const kept = standing.find((one) => one.version === version);
    const link = kept ?? (await this.#start());
    this.#link = link;
    this.#tellServers();
    await this.#tellState(undefined);
    for (const other of standing) if (other !== link) await other.end();
    void link.closed.then(() => {
      if (this.#link !== link || this.#isStopped) return;
      this.#link = undefined;
      log.warn({}, 'the process that answers names has ended; another one is started');
      onLost();
    });
    return link;
  }

  /** Processes that stand, however they came to be; sockets of those that don't are removed. */
  async #standing(): Promise<Link[]> {
    const links: Link[] = [];
    for (const name of await this.#sockets()) {
      const path = join(this.#options.folder, name);
      const link = await this.#connect(path);
      if (link === undefined) await rm(path, { force: true });
      else links.push(link);
    }
    return links;
  }

  async #sockets(): Promise<string[]> {
    const names = await readdir(this.#options.folder).catch(() => []);
    return names.filter((name) => socketName.test(name)).sort();
  }

  async #start(): Promise<Link> {
    const { program, folder, version, clock, log } = this.#options;
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const taken = new Set(await this.#sockets());
    let number = 1;
    while (taken.has(`names-${number}.sock`)) number += 1;
    const path = join(folder, `names-${number}.sock`);
    const [file = '', ...parameters] = [...program, '--socket', path, '--version', version];
    // Detached, and with no pipe to this process: it outlives it.
    const child = spawn(file, parameters, { detached: true, stdio: 'ignore', cwd: '/' });
    child.unref();
    let reason: string | undefined;
    child.on('error', (error) => {
      reason = messageOf(error);
    });
    child.on('exit', (code, signal) => {
      reason ??= `the process that answers names ended (${signal ?? `exit ${code}`})`;
    });
    const sinceMs = clock.monotonicMs();
    for (;;) {
      const link = await this.#connect(path);
      if (link !== undefined) {
        log.info({ process: link.pid }, 'a process of its own answers names now');
        return link;
      }
      if (reason === undefined && clock.monotonicMs() - sinceMs > startTimeoutMs) {
        child.kill('SIGKILL');
        reason = `the process that answers names did not begin within ${startTimeoutMs / 1000} s`;
      }
      if (reason !== undefined) throw new ShoalError('unavailable', reason);
      await delay(clock, retryMs);
    }
  }

  /** Undefined: nobody is there. Throws 'unavailable' when somebody is and does not answer. */
  async #connect(path: string): Promise<Link | undefined> {
    const socket = await connected(path);
    if (socket === undefined) return undefined;
    const link = new Link(socket, this.#options.clock, this.#options.log);
    const ended = link.closed.then(() => 'ended' as const);
    const outcome = await within(this.#options.clock, helloTimeoutMs, Promise.race([link.greeted, ended]));
    // It was on its way out when the connection was made.
    if (outcome === 'ended') return undefined;
    if (outcome === undefined) {
      link.close();
      throw new ShoalError('unavailable', `the process at ${path} does not answer`);
    }
    return link;
  }
}

/** A connection to a process. */
class Link {
  version = '';
  pid = 0;
  /** The state that it was told last. */
  holds: Desired | undefined;
  readonly greeted: Promise<'greeted'>;
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #clock: Clock;
  readonly #asked = new Map<number, PromiseWithResolversOf<readonly string[]>>();
  #lastId = 0;

  constructor(socket: Socket, clock: Clock, log: Log) {
    this.#socket = socket;
    this.#clock = clock;
    // It is no reason for this process to go on.
    socket.unref();
    this.closed = new Promise((resolve) => socket.once('close', () => resolve()));
    socket.on('error', () => socket.destroy());
    void this.closed.then(() => {
      const error = new ShoalError('unavailable', 'the process that answers names has ended');
      for (const { reject } of this.#asked.values()) reject(error);
      this.#asked.clear();
    });
    this.greeted = new Promise((resolve) => {
      onLines<Said>(socket, (said) => {
        switch (said.kind) {
          case 'hello':
            this.version = said.version;
            this.pid = said.pid;
            resolve('greeted');
            break;
          case 'done':
            this.#asked.get(said.id)?.resolve(said.problems);
            this.#asked.delete(said.id);
            break;
          case 'warn':
            log.warn(said.fields, said.message);
            break;
          default:
            break; // Of another version: it is about to be replaced.
        }
      });
    });
  }

  /** What could not be done, in words. Rejects with 'unavailable' when the process ends first. */
  ask(request: Request): Promise<readonly string[]> {
    if (this.#socket.destroyed) {
      return Promise.reject(new ShoalError('unavailable', 'the process that answers names has ended'));
    }
    this.#lastId += 1;
    const id = this.#lastId;
    return new Promise((resolve, reject) => {
      this.#asked.set(id, { resolve, reject });
      sendLine(this.#socket, { ...request, id } as Told);
    });
  }

  /** Makes it end, in order or otherwise; resolves when nothing of it answers any more. */
  async end(): Promise<void> {
    sendLine(this.#socket, { kind: 'end' });
    const isClosed = await within(
      this.#clock,
      endTimeoutMs,
      this.closed.then(() => true),
    );
    if (isClosed === true || this.pid === 0) return;
    try {
      process.kill(this.pid, 'SIGKILL');
    } catch {
      // It has ended in this moment.
    }
    await within(this.#clock, endTimeoutMs, this.closed);
  }

  close(): void {
    this.#socket.destroy();
  }
}

interface PromiseWithResolversOf<T> {
  readonly resolve: (value: T) => void;
  readonly reject: (error: Error) => void;
}

function connected(path: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = createConnection({ path });
    socket.once('error', () => resolve(undefined));
    socket.once('connect', () => resolve(socket));
  });
}

/** The outcome of `work`, or undefined when it takes longer. */
function within<T>(clock: Clock, boundMs: number, work: Promise<T>): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const timer = clock.after(boundMs, () => resolve(undefined));
    work.then(resolve, reject).finally(() => timer.cancel());
  });
}
