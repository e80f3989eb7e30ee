/**
 * The API's doors: unix sockets for whoever is in the group of the engine's users, and TCP for whoever
 * shows a certificate. A door without a lock is refused, for who may talk to the API is root everywhere. A door
 * looks at the first bytes of a connection before HTTP is spoken on it, for some connections soon cease to speak it.
 */
import { chmodSync, chownSync, existsSync, readFileSync, statSync, unlinkSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import type { Duplex } from 'node:stream';
import tls from 'node:tls';
import { messageOf, ShoalError } from '../../proto/errors.ts';
import type { Log } from '../../proto/ports.ts';
import type { Api } from './server.ts';

const socketMode = 0o660;
const socketGroups = ['docker', 'shoal'];
const defaultTlsPort = 2376;
/** Registry credentials travel in a header, and may be longer than Node's own limit of 16 KiB. */
const maxHeaderSize = 256 * 1024;
/** As long as Docker's: a client may open a connection before it has something to ask. */
const headersTimeout = 300_000;

/** PEM files' contents: the server's own chain and key, and the authority whose clients may come in. */
export interface TlsMaterial {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

export interface ListenOptions {
  readonly log: Log;
  readonly tls?: TlsMaterial;
}

/** Open doors. */
export interface ApiListener {
  /** Where they are, as given; a port 0 is told as the port that was found. */
  readonly addresses: readonly string[];
  /** Closes all doors, ends what is under way and removes the socket files. */
  close(): Promise<void>;
}

/**
 * Serves `api` on every address: `unix:///path` or `tcp://host:port`. Rejects with a ShoalError that says
 * which address can't be served and why; none is then open.
 */
export async function listen(
  api: Api,
  addresses: readonly string[],
  options: ListenOptions,
): Promise<ApiListener> {
  const open: Door[] = [];
  const close = async (): Promise<void> => {
    await Promise.all(open.splice(0).map((door) => door.close()));
  };
  try {
    for (const address of addresses) open.push(await openOne(api, address, options));
  } catch (error) {
    await close();
    throw error;
  }
  const told = open.map(({ address }) => address);
  options.log.info({ addresses: told }, 'the API listens');
  return { addresses: told, close };
}

interface Door {
  readonly address: string;
  close(): Promise<void>;
}

async function openOne(api: Api, address: string, options: ListenOptions): Promise<Door> {
  const http = serveHttp(api);
  const unixPath = /^unix:\/\/(\/.+)$/.exec(address)?.[1];
  if (unixPath !== undefined) {
    const server = net.createServer({ allowHalfOpen: true }, http.admit);
    await openUnix(server, unixPath, options.log);
    return { address, close: () => closeServer(server, http) };
  }
  const tcp = /^tcp:\/\/(\[[0-9a-fA-F:]+\]|[^:/[\]]*)(?::(\d+))?\/?$/.exec(address);
  if (!tcp) {
    throw new ShoalError(
      'invalid-argument',
      `can't listen on "${address}": an address is unix:///path/of/socket or tcp://host:port`,
    );
  }
  if (!options.tls) {
    throw new ShoalError(
      'invalid-argument',
      `can't listen on ${address} without TLS: whoever reaches it would be root on every node; give a CA, a certificate and a key, or listen on unix:// only`,
    );
  }
  const host = tcp[1]!.replace(/^\[|\]$/g, '') || '0.0.0.0';
  const server = tls.createServer(
    {
      ...options.tls,
      requestCert: true,
      rejectUnauthorized: true,
      minVersion: 'TLSv1.2',
      ALPNProtocols: ['http/1.1'],
      allowHalfOpen: true,
    },
    http.admit,
  );
  await listening(server, address, () => server.listen(Number(tcp[2] ?? defaultTlsPort), host));
  const { port } = server.address() as net.AddressInfo;
  return { address: `tcp://${tcp[1]}:${port}`, close: () => closeServer(server, http) };
}

interface HttpConnections {
  /** Serves one connection. */
  readonly admit: (connection: net.Socket) => void;
  /** Ends all of them. */
  end(): void;
}

/**
 * Speaks HTTP on connections that a door lets in. No limit on how long a request or a silence lasts: a build's
 * context may take an hour to come, and a client may keep its connection for its next question.
 */
function serveHttp(api: Api): HttpConnections {
  const open = new Set<net.Socket>();
  const server = http.createServer(
    { maxHeaderSize, requestTimeout: 0, headersTimeout, keepAliveTimeout: 0 },
    api.respond,
  );
  const speak = (connection: Duplex, read: Buffer): void => {
    connection.unshift(read);
    server.emit('connection', connection);
    connection.resume();
  };
  server.on('upgrade', (request: http.IncomingMessage, connection: Duplex, rest: Buffer) => {
    const instead = api.upgrade(request, connection, rest);
    if (instead !== undefined) speak(connection, instead);
  });
  return {
    admit(connection) {
      open.add(connection);
      connection.once('close', () => open.delete(connection));
      connection.on('error', () => connection.destroy());
      const leave = (): void => {
        connection.end();
      };
      connection.once('end', leave);
      // Clients send a request's first line in one piece.
      connection.once('data', (first: Buffer) => {
        connection.off('end', leave);
        connection.pause();
        if (!api.takesFirst(connection, first)) speak(connection, first);
      });
    },
    end() {
      for (const connection of open) connection.destroy();
    },
  };
}

async function openUnix(server: net.Server, path: string, log: Log): Promise<void> {
  await removeStaleSocket(path);
  await listening(server, `unix://${path}`, () => {
    // The file must not be open to others between its making and its mode being set.
    const before = process.umask(0o177);
    try {
      server.listen(path);
    } finally {
      process.umask(before);
    }
  });
  const group = socketGroup();
  try {
    if (group) chownSync(path, -1, group.id);
    chmodSync(path, socketMode);
  } catch (error) {
    log.warn({ path, error: messageOf(error) }, 'the group of the API socket could not be set');
  }
}

/**
 * Removes a socket file that an earlier run left behind. Throws ShoalError when one that is served, or a file
 * that is no socket, is there.
 */
export async function removeStaleSocket(path: string): Promise<void> {
  if (!existsSync(path)) return;
  if (!statSync(path).isSocket()) {
    throw new ShoalError(
      'invalid-argument',
      `can't listen on unix://${path}: a file that is no socket is there`,
    );
  }
  if (await answers(path)) {
    throw new ShoalError('conflict', `can't listen on unix://${path}: another process listens there`);
  }
  unlinkSync(path);
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = net.connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    // Anything but a refusal (such as no permission) says that somebody may be there.
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'));
  });
}

function listening(server: net.Server, address: string, start: () => void): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) => {
      reject(new ShoalError('unavailable', `can't listen on ${address}: ${error.message}`, { cause: error }));
    });
    server.once('listening', resolve);
    start();
  });
}

/** The group whose members may use the socket: docker's, else our own, when the machine has one. */
function socketGroup(): { name: string; id: number } | undefined {
  const lines = existsSync('/etc/group') ? readFileSync('/etc/group', 'utf8').split('\n') : [];
  const groups = lines
    .map((line) => line.split(':'))
    .map(([name, , id]) => ({ name: name!, id: Number(id) }));
  return socketGroups.flatMap((wanted) => groups.filter(({ name }) => name === wanted))[0];
}

/** Node removes a unix socket's file itself when its server closes. */
function closeServer(server: net.Server, http: HttpConnections): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    http.end();
  });
}
