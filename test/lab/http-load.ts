/**
 * A steady load of HTTP requests, each on a connection of its own, so that each is a new decision of the data plane; or
 * every other one on one of a few connections that are kept for as long as their servers do. Started as a program of its
 * own (`node http-load.js ADDRESS PORT REQUESTS_PER_SECOND KEPT_CONNECTIONS`) it runs wherever the lab puts it: on the
 * switch, on a host, or inside a container's network. It loads until its standard input ends, then prints one line of
 * JSON, a LoadResult. It speaks over plain sockets, for at thousands a second a client of HTTP is what would be measured.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { connect, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';

export interface LoadFailure {
  /** Since the load began, when the request was sent and when it failed. */
  readonly sentMs: number;
  readonly failedMs: number;
  readonly reason: string;
  readonly isKept: boolean;
  /** Whether the connection stood. */
  readonly isConnected: boolean;
  /** Of this side of it, by which it is to be found elsewhere. */
  readonly localPort: number | undefined;
}

export interface LoadResult {
  /** When it began, on the clock of the machine. */
  readonly beganAtMs: number;
  /** Requests sent, and for how long they were; and those that were due while the load itself did not run. */
  readonly sent: number;
  readonly missed: number;
  readonly sentForMs: number;
  readonly succeeded: number;
  /** Of those, on connections that were kept. */
  readonly succeededOnKept: number;
  readonly failures: readonly LoadFailure[];
  /** Of those that succeeded. */
  readonly latencyMs: { readonly p50: number; readonly p99: number; readonly most: number };
  /** How many answers each server gave: first line of the body → count. */
  readonly servers: Readonly<Record<string, number>>;
  /** What the load itself took of one processor; near 1 it is what it measures. */
  readonly processorShare: number;
}

const timeoutMs = 10_000;
const tickMs = 10;
/** A load that did not run for longer than that sends what it missed no more: it would be a burst. */
const mostBehindMs = 250;
/** A load that did not run for so long first hears what came meanwhile. */
const stalledMs = 1_000;

/** A load under way. */
export interface Load {
  /** Ends it and resolves with what became of it. */
  finish(): Promise<LoadResult>;
}

/** Starts a load as a process of its own; `enter` are words before the command, to run it elsewhere. */
export function startLoad(
  enter: readonly string[],
  environment: NodeJS.ProcessEnv,
  address: string,
  port: number,
  perSecond: number,
  keptConnections = 0,
): Load {
  const command = [
    ...enter,
    process.execPath,
    fileURLToPath(import.meta.url),
    address,
    String(port),
    String(perSecond),
    String(keptConnections),
  ];
  const child: ChildProcess = spawn(command[0]!, command.slice(1), {
    env: environment,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout?.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  return {
    finish: async () => {
      child.stdin?.end();
      await ended;
      return JSON.parse(output) as LoadResult;
    },
  };
}

/** One request under way; `settle` is called once, with the answer's first line or with why there is none. */
interface Asked {
  readonly sentMs: number;
  readonly settle: (server: string | undefined, reason: string) => void;
}

/** A connection, with one request on it at a time. */
class Connection {
  readonly #socket: Socket;
  readonly #question: string;
  readonly #isKept: boolean;
  #asked: Asked | undefined;
  #answer = '';
  isOpen = true;
  isConnected = false;
  localPort: number | undefined;

  constructor(host: string, port: number, isKept: boolean) {
    this.#isKept = isKept;
    this.#question = `GET / HTTP/1.1\r\nHost: ${host}\r\n${isKept ? '' : 'Connection: close\r\n'}\r\n`;
    this.#socket = connect({ host, port, noDelay: true });
    this.#socket.setEncoding('latin1');
    this.#socket.on('connect', () => {
      this.isConnected = true;
      this.localPort = this.#socket.localPort;
    });
    this.#socket.on('data', (chunk: string) => this.#hear(chunk));
    this.#socket.on('end', () => this.#over('the connection ended without an answer'));
    this.#socket.on('error', (error: NodeJS.ErrnoException) => this.#over(error.code ?? error.message));
    this.#socket.on('close', () => this.#over('the connection was closed'));
  }

  get isIdle(): boolean {
    return this.#asked === undefined;
  }

  ask(asked: Asked): void {
    this.#asked = asked;
    this.#answer = '';
    this.#socket.write(this.#question);
  }

  /** It is of no use any more. A reset leaves no port to rest for a minute, of which there are too few for thousands a second. */
  drop(reason: string): void {
    this.#over(reason);
    this.#socket.resetAndDestroy();
  }

  #hear(chunk: string): void {
    this.#answer += chunk;
    const endOfHead = this.#answer.indexOf('\r\n\r\n');
    if (endOfHead < 0) return;
    const head = this.#answer.slice(0, endOfHead);
    const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
    if (length === undefined || this.#answer.length < endOfHead + 4 + Number(length)) return;
    this.#finish(head);
    if (!this.#isKept || /\r\nconnection: *close/i.test(head)) this.drop('');
  }

  #finish(head: string): void {
    const asked = this.#asked;
    this.#asked = undefined;
    const [, status] = /^HTTP\/1\.\d (\d+)/.exec(head) ?? [];
    const body = this.#answer.slice(head.length + 4);
    asked?.settle(status === '200' ? (body.split('\n')[0] ?? '') : undefined, `status ${status}`);
  }

  #over(reason: string): void {
    this.isOpen = false;
    const asked = this.#asked;
    this.#asked = undefined;
    asked?.settle(undefined, reason);
  }
}

async function run(host: string, port: number, perSecond: number, keptConnections: number): Promise<void> {
  const began = performance.now();
  const since = () => Math.round(performance.now() - began);
  const latencies: number[] = [];
  const failures: LoadFailure[] = [];
  const servers: Record<string, number> = {};
  /** In the order in which they were sent. */
  const underWay = new Map<Asked, Connection>();
  const kept: (Connection | undefined)[] = new Array<undefined>(keptConnections).fill(undefined);
  let sent = 0;
  let missed = 0;
  let succeededOnKept = 0;
  let onEmpty = () => {};
  /** A kept connection that has nothing to do; one that its server ended is opened anew. */
  const idleOne = (): Connection | undefined => {
    const at = kept.findIndex((one) => one === undefined || !one.isOpen || one.isIdle);
    if (at < 0) return;
    const [one] = kept.splice(at, 1);
    const open = one?.isOpen === true ? one : new Connection(host, port, true);
    // The next one is the one that rested the longest.
    kept.push(open);
    return open;
  };
  const send = () => {
    const sentMs = since();
    const at = performance.now();
    const keptOne = sent % 2 === 0 ? idleOne() : undefined;
    const isKept = keptOne !== undefined;
    const connection = keptOne ?? new Connection(host, port, false);
    const asked: Asked = {
      sentMs,
      settle: (server, reason) => {
        underWay.delete(asked);
        if (server === undefined) {
          const { isConnected, localPort } = connection;
          failures.push({ sentMs, failedMs: since(), reason, isKept, isConnected, localPort });
        } else {
          latencies.push(performance.now() - at);
          if (isKept) succeededOnKept += 1;
          servers[server] = (servers[server] ?? 0) + 1;
        }
        if (underWay.size === 0) onEmpty();
      },
    };
    underWay.set(asked, connection);
    connection.ask(asked);
  };
  let lookedAtMs = 0;
  const giveUpOld = () => {
    const isStalled = since() - lookedAtMs > stalledMs;
    lookedAtMs = since();
    if (isStalled) return;
    for (const [{ sentMs }, connection] of underWay) {
      if (sentMs > since() - timeoutMs) return;
      connection.drop('no answer in time');
    }
  };
  const timer = setInterval(() => {
    const due = Math.floor(((performance.now() - began) / 1000) * perSecond);
    const behind = due - sent - missed - Math.ceil((mostBehindMs / 1000) * perSecond);
    if (behind > 0) missed += behind;
    for (; sent + missed < due; sent += 1) send();
    giveUpOld();
  }, tickMs);
  process.stdin.resume();
  await new Promise((resolve) => process.stdin.once('end', resolve));
  clearInterval(timer);
  const sentForMs = since();
  const lastTimer = setInterval(giveUpOld, tickMs);
  await new Promise<void>((resolve) => {
    onEmpty = resolve;
    if (underWay.size === 0) resolve();
  });
  clearInterval(lastTimer);
  const { user, system } = process.cpuUsage();
  const tookMs = performance.now() - began;
  for (const one of kept) one?.drop('');
  const sorted = latencies.sort((a, b) => a - b);
  const at = (share: number) => Math.round((sorted[Math.floor((sorted.length - 1) * share)] ?? 0) * 10) / 10;
  const result: LoadResult = {
    beganAtMs: performance.timeOrigin + began,
    sent,
    missed,
    sentForMs,
    succeeded: latencies.length,
    succeededOnKept,
    failures,
    latencyMs: { p50: at(0.5), p99: at(0.99), most: at(1) },
    servers,
    processorShare: Math.round((user + system) / tookMs / 10) / 100,
  };
  process.stdout.write(`${JSON.stringify(result)}\n`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [host = '', port = '', perSecond = '', keptConnections = '0'] = process.argv.slice(2);
  await run(host, Number(port), Number(perSecond), Number(keptConnections));
}
