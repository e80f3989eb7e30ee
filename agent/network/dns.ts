/**
 * The DNS server of a node's networks: sockets on the node's own address of each, port 53. In: the desired state. Out:
 * answers (names.ts decides); what is foreign is asked of the asker's own servers, else the host's. Names of the cluster are never sent
 * on. The engine's resolver in each container asks here.
 */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { readFile } from 'node:fs/promises';
import { createConnection, createServer, type Server, type Socket as TcpSocket } from 'node:net';
import packet from 'dns-packet';
import { messageOf } from '../../proto/errors.ts';
import type { EndpointsUpdate } from '../../proto/generated/shoal/v1/EndpointsUpdate.ts';
import type { Clock, Log } from '../../proto/ports.ts';
import { type Desired, isIpv6, nothingDesired } from './desired.ts';
import { type Answer, type NameRecord, Names, type QuestionType } from './names.ts';

/** Where names are asked for. */
export const dnsPort = 53;
/** Short, for what stands behind a name moves with each task. */
const ttlSeconds = 5;
const upstreamTimeoutMs = 2_000;
/** A connection serves the questions of a moment. */
const tcpLifeMs = 10_000;
const plainUdpBytes = 512;
const flagAuthoritative = packet.AUTHORITATIVE_ANSWER;
const flagTruncated = packet.TRUNCATED_RESPONSE;
const flagRecursion = packet.RECURSION_AVAILABLE | packet.RECURSION_DESIRED;
const codeNotExisting = 3;
const codeServerFailure = 2;

export interface DnsOptions {
  readonly clock: Clock;
  readonly log: Log;
  /** Port to listen on; 53 when absent. */
  readonly port?: number;
  /** Addresses of the host's own DNS servers; read from /etc/resolv.conf when absent. */
  readonly upstreams?: () => Promise<readonly string[]>;
}

/** Who answers names: this process, or one of its own. */
export interface NameAnswerer {
  /**
   * Answers are from `desired` from now on, which is the state before with `update` on top; absent: any other. Resolves
   * when it is so, or when that takes too long to be waited for.
   */
  know(desired: Desired, update?: EndpointsUpdate): Promise<void>;
  /** Listens on the node's own addresses of the networks of `desired`; resolves with what could not be opened, in words. */
  listen(desired: Desired): Promise<readonly string[]>;
  /** Servers that are asked for foreign names, by `network id/address` of who asks, in place of the host's own. */
  useServers(servers: ReadonlyMap<string, readonly string[]>): void;
  /** This process ends; a process of its own goes on. */
  stop(): void;
  /** Nothing is answered any more. */
  end(): Promise<void>;
}

interface Listener {
  readonly networkId: string;
  readonly isInternal: boolean;
  readonly udp: Socket;
  readonly tcp: Server;
}

type Reply = (message: Buffer) => void;

export class DnsServer implements NameAnswerer {
  readonly #options: DnsOptions;
  readonly #listeners = new Map<string, Listener>();
  readonly #names = new Names();
  #known: Desired = nothingDesired;
  #servers: ReadonlyMap<string, readonly string[]> = new Map();

  constructor(options: DnsOptions) {
    this.#options = options;
  }

  know(desired: Desired): Promise<void> {
    this.#known = desired;
    return Promise.resolve();
  }

  useServers(servers: ReadonlyMap<string, readonly string[]>): void {
    this.#servers = servers;
  }

  /** Those that it listens on. */
  addresses(): string[] {
    return [...this.#listeners.keys()];
  }

  /**
   * Listens on the node's own addresses of the networks of `desired`; those that can't be opened yet (their bridge is
   * not there) are tried again at the next call. Resolves with what could not be opened, in words.
   */
  async listen(desired: Desired): Promise<string[]> {
    const wanted = new Map(
      desired.networks.flatMap(({ id, gateways, isInternal }) =>
        gateways.map((gateway) => [gateway.replace(/\/\d+$/, ''), { id, isInternal }] as const),
      ),
    );
    for (const [address, listener] of this.#listeners) {
      if (wanted.get(address)?.id !== listener.networkId) this.#close(address, listener);
    }
    const problems: string[] = [];
    for (const [address, { id, isInternal }] of wanted) {
      if (this.#listeners.has(address)) continue;
      try {
        this.#listeners.set(address, await this.#listen(address, id, isInternal));
      } catch (error) {
        problems.push(`names can't be answered on ${address} port ${dnsPort}: ${messageOf(error)}`);
      }
    }
    return problems;
  }

  /** Closes every socket. */
  stop(): void {
    for (const [address, listener] of this.#listeners) this.#close(address, listener);
  }

  end(): Promise<void> {
    this.stop();
    return Promise.resolve();
  }

  #close(address: string, { udp, tcp }: Listener): void {
    this.#listeners.delete(address);
    udp.close();
    tcp.close();
  }

  async #listen(address: string, networkId: string, isInternal: boolean): Promise<Listener> {
    const port = this.#options.port ?? dnsPort;
    const udp = createSocket(isIpv6(address) ? 'udp6' : 'udp4');
    const tcp = createServer({ allowHalfOpen: true });
    try {
      await new Promise<void>((resolve, reject) => {
        udp.once('error', reject);
        udp.bind(port, address, resolve);
      });
      await new Promise<void>((resolve, reject) => {
        tcp.once('error', reject);
        tcp.listen(port, address, resolve);
      });
    } catch (error) {
      udp.close();
      tcp.close();
      throw error;
    }
    const tell = (error: Error) =>
      this.#options.log.warn({ address, reason: error.message }, 'a socket of the DNS server');
    udp.on('error', tell);
    tcp.on('error', tell);
    const listener = { networkId, isInternal, udp, tcp };
    udp.on('message', (message, remote) => this.#onDatagram(listener, message, remote));
    tcp.on('connection', (socket) => this.#onConnection(listener, socket));
    return listener;
  }

  #onDatagram(listener: Listener, message: Buffer, remote: RemoteInfo): void {
    void this.#handle(listener, message, remote.address, 'udp', (answer) => {
      listener.udp.send(answer, remote.port, remote.address, () => {});
    });
  }

  #onConnection(listener: Listener, socket: TcpSocket): void {
    let pending = Buffer.alloc(0);
    const end = this.#options.clock.after(tcpLifeMs, () => socket.destroy());
    socket.on('close', () => end.cancel());
    socket.on('error', () => socket.destroy());
    socket.on('end', () => socket.end());
    socket.on('data', (chunk: Buffer) => {
      pending = Buffer.concat([pending, chunk]);
      while (pending.length >= 2 && pending.length >= 2 + pending.readUInt16BE(0)) {
        const message = pending.subarray(2, 2 + pending.readUInt16BE(0));
        pending = pending.subarray(2 + message.length);
        void this.#handle(listener, message, socket.remoteAddress ?? '', 'tcp', (answer) => {
          if (socket.writable) socket.write(Buffer.concat([lengthOf(answer), answer]));
        });
      }
    });
  }

  async #handle(
    { networkId, isInternal }: Listener,
    message: Buffer,
    source: string,
    transport: 'udp' | 'tcp',
    reply: Reply,
  ): Promise<void> {
    let query: packet.Packet;
    try {
      query = packet.decode(message);
    } catch {
      return; // Not DNS: nobody to answer.
    }
    const question = query.questions?.[0];
    if (query.type !== 'query' || question === undefined) return;
    const address = source.replace(/^::ffff:/, '');
    // Worked out when it is asked for: changes are more frequent than questions in a rollout.
    this.#names.follow(this.#known);
    const answer = this.#names.answer(
      { name: question.name, type: typeOf(question.type) },
      { networkId, address },
    );
    if (answer.kind !== 'foreign') {
      reply(encodeAnswer(query, answer, transport));
      return;
    }
    if (isInternal) {
      reply(encodeCode(query, codeNotExisting));
      return;
    }
    const wanted = this.#servers.get(`${networkId}/${address}`) ?? [];
    const servers = wanted.length > 0 ? wanted : await (this.#options.upstreams ?? hostServers)();
    reply((await this.#forward(servers, message, transport)) ?? encodeCode(query, codeServerFailure));
  }

  /** The first answer of `servers`, each given its time; undefined when none answers. */
  async #forward(
    servers: readonly string[],
    message: Buffer,
    transport: 'udp' | 'tcp',
  ): Promise<Buffer | undefined> {
    for (const server of servers) {
      if (this.#listeners.has(server)) continue;
      const answer = await this.#ask(server, message, transport);
      if (answer !== undefined) return answer;
    }
    return undefined;
  }

  #ask(server: string, message: Buffer, transport: 'udp' | 'tcp'): Promise<Buffer | undefined> {
    return new Promise((resolve) => {
      const timer = this.#options.clock.after(upstreamTimeoutMs, () => finish(undefined));
      const connection =
        transport === 'udp' ? askOverUdp(server, message, finish) : askOverTcp(server, message, finish);
      function finish(answer: Buffer | undefined): void {
        timer.cancel();
        connection.close();
        resolve(answer);
      }
    });
  }
}

function askOverUdp(
  server: string,
  message: Buffer,
  finish: (answer: Buffer | undefined) => void,
): { close(): void } {
  const socket = createSocket(isIpv6(server) ? 'udp6' : 'udp4');
  let isOpen = true;
  socket.on('error', () => finish(undefined));
  // An answer to another question is none: the socket is asked one only.
  socket.on('message', (answer) => {
    if (answer.length >= 2 && answer.readUInt16BE(0) === message.readUInt16BE(0)) finish(answer);
  });
  socket.connect(dnsPort, server, () => {
    if (isOpen) socket.send(message);
  });
  return {
    close: () => {
      if (isOpen) socket.close();
      isOpen = false;
    },
  };
}

function askOverTcp(
  server: string,
  message: Buffer,
  finish: (answer: Buffer | undefined) => void,
): { close(): void } {
  const socket = createConnection({ host: server, port: dnsPort });
  let received = Buffer.alloc(0);
  socket.on('error', () => finish(undefined));
  socket.on('close', () => finish(undefined));
  socket.on('data', (chunk: Buffer) => {
    received = Buffer.concat([received, chunk]);
    if (received.length < 2 || received.length < 2 + received.readUInt16BE(0)) return;
    finish(received.subarray(2, 2 + received.readUInt16BE(0)));
  });
  socket.write(Buffer.concat([lengthOf(message), message]));
  return { close: () => socket.destroy() };
}

function lengthOf(message: Buffer): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(message.length);
  return length;
}

async function hostServers(): Promise<readonly string[]> {
  const text = await readFile('/etc/resolv.conf', 'utf8').catch(() => '');
  return [...text.matchAll(/^nameserver\s+(\S+)/gm)].map(([, address]) => address!);
}

function typeOf(type: string): QuestionType {
  return type === 'A' || type === 'AAAA' || type === 'SRV' || type === 'PTR' ? type : 'other';
}

function encodeAnswer(query: packet.Packet, answer: Answer, transport: 'udp' | 'tcp'): Buffer {
  const name = query.questions?.[0]?.name ?? '';
  const records = answer.kind === 'records' ? answer.records : [];
  const encode = (answers: packet.Answer[], flags: number) =>
    packet.encode({
      type: 'response',
      id: query.id ?? 0,
      flags: flagAuthoritative | flagRecursion | flags,
      questions: query.questions ?? [],
      answers,
    });
  const whole = encode(
    records.map((record) => toPacket(name, record)),
    0,
  );
  const limit = transport === 'tcp' ? Number.POSITIVE_INFINITY : udpLimit(query);
  // Shortened, so that the asker comes again over TCP.
  return whole.length <= limit ? whole : encode([], flagTruncated);
}

function encodeCode(query: packet.Packet, code: number): Buffer {
  return packet.encode({
    type: 'response',
    id: query.id ?? 0,
    flags: flagRecursion | code,
    questions: query.questions ?? [],
  });
}

/** How long an answer over UDP may be: what the asker said (EDNS), else 512. */
function udpLimit(query: packet.Packet): number {
  const option = query.additionals?.find(({ type }) => type === 'OPT') as
    | { udpPayloadSize?: number }
    | undefined;
  return Math.max(plainUdpBytes, option?.udpPayloadSize ?? 0);
}

function toPacket(name: string, record: NameRecord): packet.Answer {
  const common = { name, ttl: ttlSeconds, class: 'IN' as const };
  if (record.type === 'SRV') {
    return {
      ...common,
      type: 'SRV',
      data: { target: record.target, port: record.port, priority: 0, weight: 0 },
    };
  }
  if (record.type === 'PTR') return { ...common, type: 'PTR', data: record.target };
  return { ...common, type: record.type, data: record.address };
}
