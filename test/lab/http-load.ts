/**
 * A steady load of HTTP requests, each on a connection of its own, so that each is a new decision of the data plane.
 * Started as a program of its own (`node http-load.js ADDRESS PORT REQUESTS_PER_SECOND`) it runs wherever the lab puts
 * it: on the switch, on a host, or inside a container's network. It loads until its standard input ends, then prints
 * one line of JSON, a LoadResult.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { request } from 'node:http';
import { fileURLToPath } from 'node:url';

export interface LoadFailure {
  /** Since the load began, when the request was sent and when it failed. */
  readonly sentMs: number;
  readonly failedMs: number;
  readonly reason: string;
}

export interface LoadResult {
  /** When it began, on the clock of the machine. */
  readonly beganAtMs: number;
  /** Requests sent, and for how long they were. */
  readonly sent: number;
  readonly sentForMs: number;
  readonly succeeded: number;
  readonly failures: readonly LoadFailure[];
  /** Of those that succeeded. */
  readonly latencyMs: { readonly p50: number; readonly p99: number; readonly most: number };
  /** How many answers each server gave: first line of the body → count. */
  readonly servers: Readonly<Record<string, number>>;
}

const timeoutMs = 10_000;
const tickMs = 10;

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
): Load {
  const command = [
    ...enter,
    process.execPath,
    fileURLToPath(import.meta.url),
    address,
    String(port),
    String(perSecond),
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

/** One request on a new connection; resolves with its answer's first line, rejects with the reason. */
function ask(host: string, port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const asked = request({ host, port, agent: false, timeout: timeoutMs }, (answer) => {
      let body = '';
      answer.setEncoding('utf8');
      answer.on('data', (chunk: string) => {
        body += chunk;
      });
      answer.on('end', () => {
        if (answer.statusCode === 200) resolve(body.split('\n')[0] ?? '');
        else reject(new Error(`status ${answer.statusCode}`));
      });
      answer.on('error', reject);
    });
    asked.on('timeout', () => asked.destroy(new Error('no answer in time')));
    asked.on('error', reject);
    asked.end();
  });
}

async function run(host: string, port: number, perSecond: number): Promise<void> {
  const began = performance.now();
  const since = () => Math.round(performance.now() - began);
  const latencies: number[] = [];
  const failures: LoadFailure[] = [];
  const servers: Record<string, number> = {};
  const underWay = new Set<Promise<void>>();
  let sent = 0;
  const send = () => {
    const sentMs = since();
    const at = performance.now();
    const one: Promise<void> = ask(host, port)
      .then((server) => {
        latencies.push(performance.now() - at);
        servers[server] = (servers[server] ?? 0) + 1;
      })
      .catch((error: NodeJS.ErrnoException) => {
        failures.push({ sentMs, failedMs: since(), reason: error.code ?? error.message });
      })
      .finally(() => underWay.delete(one));
    underWay.add(one);
  };
  const timer = setInterval(() => {
    const due = Math.floor(((performance.now() - began) / 1000) * perSecond);
    for (; sent < due; sent += 1) send();
  }, tickMs);
  process.stdin.resume();
  await new Promise((resolve) => process.stdin.once('end', resolve));
  clearInterval(timer);
  const sentForMs = since();
  await Promise.all(underWay);
  const sorted = latencies.sort((a, b) => a - b);
  const at = (share: number) => Math.round((sorted[Math.floor((sorted.length - 1) * share)] ?? 0) * 10) / 10;
  const result: LoadResult = {
    beganAtMs: performance.timeOrigin + began,
    sent,
    sentForMs,
    succeeded: latencies.length,
    failures,
    latencyMs: { p50: at(0.5), p99: at(0.99), most: at(1) },
    servers,
  };
  process.stdout.write(`${JSON.stringify(result)}\n`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [host = '', port = '', perSecond = ''] = process.argv.slice(2);
  await run(host, Number(port), Number(perSecond));
}
