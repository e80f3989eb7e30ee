/**
 * Lines exchanged over TCP and UDP between programs that the lab starts inside a container's network or anywhere else.
 * Started as a program of its own (`node exchange.js serve|ask|records|hold …`); the functions start it and read its answers.
 * A server answers each line, or datagram, with its name and the address that it sees the asker at.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { promises as dns } from 'node:dns';
import { connect, createServer, isIP, isIPv6 } from 'node:net';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { type Lab, type LabHost, waitFor } from './lab.ts';

/** What is to be asked: a name by the container's own resolver, or an address. */
export interface Asked {
  readonly to: string;
  /** Of a name: which of its addresses. */
  readonly family?: 4 | 6;
  readonly protocol?: 'tcp' | 'udp';
  readonly port?: number;
  /** Each address is asked until so many servers have answered, no more than forty times; 1 when absent, 0: not at all. */
  readonly servers?: number;
}

export interface Answered {
  /** What the name was told to be, sorted. */
  readonly addresses: readonly string[];
  /** By address: names of the servers that answered, sorted. */
  readonly servers: Readonly<Record<string, readonly string[]>>;
  /** Addresses that servers saw the asker at, sorted. */
  readonly seenAs: readonly string[];
  /** Why not, in few words. */
  readonly errors: readonly string[];
}

export const exchangePort = 7000;
const patienceMs = 4_000;
const mostTimes = 40;
const program = fileURLToPath(import.meta.url);
/** The resolver of the engine, inside a container. */
const resolverAddress = '127.0.0.11';

/** The words before a command that enter the network of a service's container on `host`, of that slot's if one is named. */
export async function enterTask(host: LabHost, service: string, slot?: number): Promise<string[]> {
  const name = slot === undefined ? [] : ['--filter', `name=^/?${service}\\.${slot}\\.`];
  const filter = ['--filter', `label=com.docker.swarm.service.name=${service}`, ...name];
  const container = await waitFor(`a container of ${service} on ${host.name}`, 30_000, async () => {
    return (await host.engine('ps', '-q', ...filter)).stdout.split('\n')[0];
  });
  return enterContainer(host, container);
}

/** As enterTask, for a container by id or name. */
export async function enterContainer(host: LabHost, container: string): Promise<string[]> {
  const { stdout: pid } = await host.engine('inspect', '--format', '{{.State.Pid}}', container);
  return ['exec', host.name, 'nsenter', '-t', pid.trim(), '-n'];
}

function start(lab: Lab, enter: readonly string[], ...words: string[]): ChildProcess {
  return spawn(lab.scriptPath, [...enter, process.execPath, program, ...words], {
    env: lab.environment,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
}

async function firstLine(child: ChildProcess, what: string): Promise<string> {
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const { value, done } = await lines.next();
  if (done) throw new Error(`${what} ended without a word`);
  return value as string;
}

/** Starts a server that calls itself `name`; it listens when this resolves, and ends with the lab or its host. */
export async function serve(
  lab: Lab,
  enter: readonly string[],
  name: string,
  port = exchangePort,
): Promise<ChildProcess> {
  const child = start(lab, enter, 'serve', name, String(port));
  await firstLine(child, `the server ${name}`);
  child.stdout?.resume();
  return child;
}

/**
 * Asks for all of it from one place: at once, but for what is asked until several servers have answered. Servers take
 * turns, and of askers in step with each other each might always meet the same ones.
 */
export async function ask(lab: Lab, enter: readonly string[], asked: readonly Asked[]): Promise<Answered[]> {
  const child = start(lab, enter, 'ask');
  child.stdin?.end(JSON.stringify(asked));
  return JSON.parse(await firstLine(child, 'the asker')) as Answered[];
}

/** Records by the container's own resolver: of a name, or names of an address (PTR). */
export async function records(
  lab: Lab,
  enter: readonly string[],
  type: 'SRV' | 'PTR',
  name: string,
): Promise<unknown[]> {
  const child = start(lab, enter, 'records', type, name);
  return JSON.parse(await firstLine(child, `the question for ${type} ${name}`)) as unknown[];
}

/** A connection that stays open. */
export interface Held {
  /** The server's name; rejects when the connection is cut or nothing comes back in time. */
  say(): Promise<string>;
  end(): void;
}

export async function hold(
  lab: Lab,
  enter: readonly string[],
  address: string,
  port = exchangePort,
): Promise<Held> {
  const child = start(lab, enter, 'hold', address, String(port));
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const say = async () => {
    child.stdin?.write('\n');
    const { value, done } = await lines.next();
    if (done || value === 'cut') throw new Error(`the connection to ${address} is cut`);
    return (value as string).split(' ')[0]!;
  };
  await say();
  return { say, end: () => child.stdin?.end() };
}

// ---------------------------------------------------------------- as a program

function serveLines(name: string, port: number): void {
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy());
    createInterface({ input: socket })
      .on('line', () => socket.write(`${name} ${socket.remoteAddress}\n`))
      .on('error', () => {});
  });
  const datagrams = [createSocket('udp4'), createSocket({ type: 'udp6', ipv6Only: true })];
  for (const socket of datagrams) {
    socket.on('message', (_, { address, port: to }) => socket.send(`${name} ${address}\n`, to, address));
  }
  let open = 0;
  const onOpen = () => {
    open += 1;
    if (open === 3) process.stdout.write('listening\n');
  };
  server.listen({ port, host: '::' }, onOpen);
  for (const socket of datagrams) socket.bind(port, onOpen);
}

function overTcp(address: string, port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: address, port });
    socket.setTimeout(patienceMs, () => socket.destroy(new Error('silence')));
    socket.once('connect', () => socket.write('hello\n'));
    socket.once('error', reject);
    createInterface({ input: socket })
      .on('error', reject)
      .once('line', (line) => {
        socket.destroy();
        resolve(line);
      })
      .once('close', () => reject(new Error('closed')));
  });
}

/** A lost datagram is sent again, as whoever uses UDP does. */
function overUdp(address: string, port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
    const send = () => socket.send('hello\n', port, address);
    const again = setInterval(send, patienceMs / 4);
    const finish = (end: () => void) => {
      clearInterval(again);
      clearTimeout(late);
      socket.close();
      end();
    };
    const late = setTimeout(() => finish(() => reject(new Error('silence'))), patienceMs);
    socket.once('error', (error) => finish(() => reject(error)));
    socket.once('message', (data) => finish(() => resolve(data.toString().trim())));
    send();
  });
}

function containersResolver(): dns.Resolver {
  const resolver = new dns.Resolver({ timeout: patienceMs, tries: 2 });
  resolver.setServers([resolverAddress]);
  return resolver;
}

async function addressesOf({ to, family = 4 }: Asked): Promise<string[]> {
  if (isIP(to) !== 0) return [to];
  const resolver = containersResolver();
  const found = await (family === 4 ? resolver.resolve4(to) : resolver.resolve6(to));
  return found.sort();
}

function plain(address: string): string {
  return address.replace(/^::ffff:/, '');
}

async function answerTo(asked: Asked): Promise<Answered> {
  const { protocol = 'tcp', port = exchangePort, servers: wanted = 1 } = asked;
  const errors = new Set<string>();
  const fail = (error: NodeJS.ErrnoException) => void errors.add(error.code ?? error.message);
  const addresses = await addressesOf(asked).catch((error) => {
    fail(error);
    return [];
  });
  const servers: Record<string, string[]> = {};
  const seenAs = new Set<string>();
  const each = addresses.map(async (address) => {
    const names = new Set<string>();
    for (let times = 0; times < mostTimes && names.size < wanted; times += 1) {
      try {
        const line = await (protocol === 'tcp' ? overTcp : overUdp)(address, port);
        const [name = '', seen = ''] = line.split(' ');
        names.add(name);
        seenAs.add(plain(seen));
      } catch (error) {
        fail(error as Error);
        break;
      }
    }
    servers[address] = [...names].sort();
  });
  await Promise.all(each);
  return { addresses, servers, seenAs: [...seenAs].sort(), errors: [...errors] };
}

async function answersTo(asked: readonly Asked[]): Promise<Answered[]> {
  const answers = await Promise.all(asked.map((one) => ((one.servers ?? 1) > 1 ? undefined : answerTo(one))));
  const all: Answered[] = [];
  for (const [at, one] of asked.entries()) all.push(answers[at] ?? (await answerTo(one)));
  return all;
}

async function readAll(): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

async function holdLines(address: string, port: number): Promise<void> {
  const socket = connect({ host: address, port });
  let patience: NodeJS.Timeout | undefined;
  const cut = () => {
    clearTimeout(patience);
    process.stdout.write('cut\n');
    process.exitCode = 1;
    process.stdin.destroy();
    socket.destroy();
  };
  socket.on('error', cut);
  createInterface({ input: socket })
    .on('error', cut)
    .on('line', (line) => {
      clearTimeout(patience);
      process.stdout.write(`${line}\n`);
    });
  for await (const _ of createInterface({ input: process.stdin })) {
    patience = setTimeout(cut, patienceMs * 4);
    socket.write('hello\n');
  }
  socket.destroy();
}

if (process.argv[1] === program) {
  const [mode, first = '', second = ''] = process.argv.slice(2);
  if (mode === 'serve') serveLines(first, Number(second));
  if (mode === 'hold') await holdLines(first, Number(second));
  if (mode === 'records') {
    const resolver = containersResolver();
    const found = first === 'SRV' ? await resolver.resolveSrv(second) : await resolver.reverse(second);
    process.stdout.write(`${JSON.stringify(found)}\n`);
  }
  if (mode === 'ask') {
    const asked = JSON.parse(await readAll()) as Asked[];
    process.stdout.write(`${JSON.stringify(await answersTo(asked))}\n`);
  }
}
