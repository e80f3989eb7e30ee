/**
 * What a process of its own does that answers the names of a node's networks, so that they are answered while there is
 * no agent: it crashed, or is being replaced. In: what an agent tells by a socket in the file system, the newest
 * connection being the agent. Out: answers (dns.ts). Without an agent it goes on with the last state; it ends when
 * an agent says so, or when nobody can ask any more: its socket's file is gone, or all of the addresses that it answers on.
 */
import { existsSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { networkInterfaces } from 'node:os';
import { assertNever } from '../../proto/errors.ts';
import { type Clock, type Log, silentLog } from '../../proto/ports.ts';
import { type Desired, nothingDesired, withUpdate } from './desired.ts';
import { DnsServer } from './dns.ts';
import { onLines, sendLine, type Told } from './name-wire.ts';

/** How often it looks whether anybody can ask, while no agent is there. */
const lookEveryMs = 10_000;
/** Looks in a row that must find nothing: an engine that is started anew makes its bridges anew. */
const emptyLooks = 3;

export interface NameServerOptions {
  /** Path of the socket. */
  readonly path: string;
  /** Told to the agent, which replaces one of another version. */
  readonly version: string;
  readonly clock: Clock;
  /** It ends: sockets are closed, the socket's file is gone. */
  readonly onEnd: () => void;
  /** Between looks. */
  readonly lookEveryMs?: number;
  /** Addresses of this host; asked of the system when absent. */
  readonly addresses?: () => readonly string[];
}

export class NameServer {
  readonly #options: NameServerOptions;
  readonly #dns: DnsServer;
  readonly #server: Server;
  #agent: Socket | undefined;
  #desired: Desired = nothingDesired;
  #emptyLooks = 0;
  #isEnding = false;

  constructor(options: NameServerOptions) {
    this.#options = options;
    const log: Log = {
      ...silentLog,
      warn: (fields, message) => this.#agent && sendLine(this.#agent, { kind: 'warn', fields, message }),
    };
    this.#dns = new DnsServer({ clock: options.clock, log });
    this.#server = createServer((socket) => this.#onConnection(socket));
  }

  /** Resolves when an agent can connect; rejects when the socket can't be made. */
  start(): Promise<void> {
    this.#lookLater();
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(this.#options.path, resolve);
    });
  }

  #onConnection(socket: Socket): void {
    this.#agent?.destroy();
    this.#agent = socket;
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      if (this.#agent === socket) this.#agent = undefined;
    });
    let turn: Promise<void> = Promise.resolve();
    onLines<Told>(socket, (message) => {
      turn = turn.then(() => this.#hear(socket, message));
    });
    sendLine(socket, { kind: 'hello', version: this.#options.version, pid: process.pid });
  }

  async #hear(socket: Socket, told: Told): Promise<void> {
    let problems: readonly string[] = [];
    switch (told.kind) {
      case 'state':
        await this.#know(told.desired);
        break;
      case 'update':
        await this.#know(withUpdate(this.#desired, told.update));
        break;
      case 'servers':
        this.#dns.useServers(new Map(told.servers));
        break;
      case 'listen':
        problems = await this.#dns.listen(this.#desired);
        break;
      case 'end':
        this.#end();
        return;
      default:
        assertNever(told);
    }
    sendLine(socket, { kind: 'done', id: told.id, problems });
  }

  #know(desired: Desired): Promise<void> {
    this.#desired = desired;
    return this.#dns.know(desired);
  }

  #lookLater(): void {
    this.#options.clock.after(this.#options.lookEveryMs ?? lookEveryMs, () => {
      if (this.#isEnding) return;
      this.#emptyLooks = this.#agent !== undefined || this.#canBeAsked() ? 0 : this.#emptyLooks + 1;
      if (this.#emptyLooks >= emptyLooks) this.#end();
      else this.#lookLater();
    });
  }

  #canBeAsked(): boolean {
    if (!existsSync(this.#options.path)) return false;
    const own = new Set((this.#options.addresses ?? hostAddresses)());
    return this.#dns.addresses().some((address) => own.has(address));
  }

  #end(): void {
    if (this.#isEnding) return;
    this.#isEnding = true;
    this.#dns.stop();
    this.#server.close();
    this.#agent?.destroy();
    this.#options.onEnd();
  }
}

function hostAddresses(): string[] {
  return Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map(({ address }) => address));
}
