/**
 * The one place that loads .proto files and makes gRPC clients and servers with TLS.
 *
 * In: addresses, certificates in PEM, service handlers. Out: typed clients and a server whose certificates can
 * be replaced while it listens. It never decides who may call what (requireRole only states what a verified
 * certificate says), never reads keys from disk and never logs.
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import type { Http2SecureServer, ServerHttp2Session } from 'node:http2';
import { dirname, join } from 'node:path';
import type { PeerCertificate, SecureContextOptions, TLSSocket } from 'node:tls';
import { connect, createSecureContext } from 'node:tls';
import { fileURLToPath } from 'node:url';
import * as grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { ShoalError } from './errors.ts';
import type { ProtoGrpcType as DataPlanePackage } from './generated/data-plane.ts';
import type { ProtoGrpcType as ExecPackage } from './generated/exec.ts';
import type { ProtoGrpcType as ShoalPackage } from './generated/shoal.ts';
import type { ProtoGrpcType as SwarmkitPackage } from './generated/swarmkit.ts';
import type { ProtoGrpcType as UsagePackage } from './generated/usage.ts';
import { type Link, linkProtocol, SocketLink } from './link.ts';
import type { Clock } from './ports.ts';
import { fromGrpcError } from './rpc-status.ts';

const maxMessageBytes = 64 * 1024 * 1024;
/**
 * How much may be under way to one side before it has been read. HTTP/2's own 64 KiB are one message of bulk bytes: either
 * side then waits for the other's turn after each, which on a busy machine takes longer than the bytes.
 */
const windowBytes = 1024 * 1024;
const minTlsVersion = 'TLSv1.3';

type Swarmkit = SwarmkitPackage['docker']['swarmkit']['v1'];
type Shoal = ShoalPackage['shoal']['v1'] &
  DataPlanePackage['shoal']['v1'] &
  ExecPackage['shoal']['v1'] &
  UsagePackage['shoal']['v1'];

/** Every service of the cluster's port, by name: its definition and its client's constructor. */
type Services = {
  [Name in keyof (Swarmkit & Shoal) as (Swarmkit & Shoal)[Name] extends { service: grpc.ServiceDefinition }
    ? Name
    : never]: (Swarmkit & Shoal)[Name];
};
export type ServiceName = keyof Services;
export type ServiceClient<Name extends ServiceName> = Services[Name] extends new (
  ...args: never[]
) => infer Client
  ? Client
  : never;

/** A node's own certificate (with any intermediates) and key, and the roots it trusts, all in PEM. */
export interface NodeIdentity {
  readonly certificatePem: string;
  readonly keyPem: string;
  readonly rootsPem: string;
}

export type Role = 'manager' | 'worker';

/** Who a verified client certificate says its holder is (O = cluster, OU = swarm-<role>, CN = node). */
export interface PeerIdentity {
  readonly nodeId: string;
  readonly role: Role;
  readonly clusterId: string;
}

let loaded: Services | undefined;

/** The services of proto/*.proto, loaded once. */
export function loadPackage(): Services {
  if (loaded !== undefined) return loaded;
  const folder = join(packageRoot(), 'proto');
  const definition = loadSync(
    ['swarmkit.proto', 'shoal.proto', 'data-plane.proto', 'exec.proto', 'usage.proto'],
    {
      includeDirs: [folder],
      keepCase: true,
      longs: String,
      enums: String,
      oneofs: true,
      defaults: false,
    },
  );
  const root = grpc.loadPackageDefinition(definition) as unknown as SwarmkitPackage &
    ShoalPackage &
    DataPlanePackage &
    ExecPackage &
    UsagePackage;
  loaded = { ...root.docker.swarmkit.v1, ...root.shoal.v1 };
  return loaded;
}

/** The folder of package.json above this file, which is the same from the source tree and from dist/. */
function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) {
    const parent = dirname(folder);
    if (parent === folder) throw new ShoalError('internal', 'package.json is missing above proto/rpc.js');
    folder = parent;
  }
  return folder;
}

/**
 * Credentials that ask a client for its certificate without insisting on one (a node that joins has none yet),
 * and that can be given a new certificate, key and roots while the port stays open: connections that stand go
 * on, new ones see the new identity.
 */
class ReplaceableServerCredentials extends grpc.ServerCredentials {
  constructor(identity: NodeIdentity) {
    super(
      { requestCert: true, rejectUnauthorized: false, ...({ ALPNCallback: chosenProtocol } as object) },
      contextOf(identity),
    );
  }

  replace(identity: NodeIdentity): void {
    this.updateSecureContextOptions(contextOf(identity));
  }

  override _equals(other: grpc.ServerCredentials): boolean {
    return other === this;
  }
}

/** A caller that names neither is turned away by TLS itself; one that names nothing at all is not asked here. */
function chosenProtocol({ protocols }: { readonly protocols: readonly string[] }): string | undefined {
  return [linkProtocol, 'h2'].find((known) => protocols.includes(known));
}

function contextOf(identity: NodeIdentity): SecureContextOptions {
  return {
    ca: identity.rootsPem,
    cert: identity.certificatePem,
    key: identity.keyPem,
    minVersion: minTlsVersion,
  };
}

/** The cluster's gRPC port. */
export interface RpcServer {
  /** Registers a service's handlers; before or after listen. Throws when the service is there already. */
  addService<Name extends ServiceName>(name: Name, handlers: HandlersOf<Name>): void;
  /** Who is called for each link that is opened to this port; until then they are turned away. */
  acceptLinks(accept: (link: Link, call: AuthenticatedCall) => void, clock: Clock): void;
  /** Listens on `host:port` (port 0: any); returns the port. */
  listen(address: string): Promise<number>;
  /** From now on new connections see this certificate and are verified against these roots. */
  setIdentity(identity: NodeIdentity): void;
  /** Ends every connection and frees the port. */
  close(): Promise<void>;
}

type MethodsOf<Name extends ServiceName> = {
  [M in keyof Services[Name]['service'] as string extends M
    ? never
    : number extends M
      ? never
      : M]: Services[Name]['service'][M];
};
type RequestOf<Definition> = Definition extends {
  requestSerialize: (value: infer Request) => Buffer;
}
  ? Request
  : never;
type AnswerOf<Definition> = Definition extends {
  responseDeserialize: (bytes: Buffer) => infer Answer;
}
  ? Answer
  : never;

/** The handlers of a service; methods that are left out are answered UNIMPLEMENTED. */
export type HandlersOf<Name extends ServiceName> = Partial<{
  [M in keyof MethodsOf<Name>]: HandlerOf<MethodsOf<Name>[M]>;
}>;
type HandlerOf<Definition> = Definition extends {
  requestDeserialize: (bytes: Buffer) => infer Request;
  responseSerialize: (value: infer Response) => Buffer;
}
  ?
      | grpc.handleUnaryCall<Request, Response>
      | grpc.handleServerStreamingCall<Request, Response>
      | grpc.handleClientStreamingCall<Request, Response>
      | grpc.handleBidiStreamingCall<Request, Response>
  : never;

/** Makes the cluster's gRPC server with the node's `credentials`. Nothing listens yet. */
export function createRpcServer(options: { credentials: NodeIdentity }): RpcServer {
  const services = loadPackage();
  const credentials = new ReplaceableServerCredentials(options.credentials);
  const server = new grpc.Server({
    'grpc.max_receive_message_length': maxMessageBytes,
    'grpc.max_send_message_length': maxMessageBytes,
    'grpc.keepalive_time_ms': 10_000,
    'grpc.keepalive_timeout_ms': 5_000,
  });
  const links = new Set<TLSSocket>();
  let acceptLink: (socket: TLSSocket) => void = (socket) => socket.destroy();
  return {
    acceptLinks(accept, clock) {
      acceptLink = (socket) => {
        links.add(socket);
        socket.on('close', () => links.delete(socket));
        const timing = { clock, ...acceptedKeepalive };
        accept(new SocketLink(socket, 'accepting', timing), callOf(socket));
      };
    },
    addService(name, handlers) {
      server.addService(services[name].service, handlers as grpc.UntypedServiceImplementation);
    },
    listen(address) {
      return new Promise((resolve, reject) => {
        server.bindAsync(address, credentials, (error, port) => {
          if (error !== null) {
            const reason = /EADDRINUSE/.test(error.message)
              ? 'another process uses this port; end it, or choose another address with --listen-addr'
              : error.message;
            reject(new ShoalError('unavailable', `cannot listen on ${address}: ${reason}`));
            return;
          }
          const http2Servers = http2ServersOf(server);
          for (const http2Server of http2Servers) {
            splitProtocols(http2Server, (socket) => acceptLink(socket));
            widen(http2Server);
          }
          resolve(port);
        });
      });
    },
    setIdentity(identity) {
      // Made once here so that a bad certificate or key throws to the caller and not into a log.
      createSecureContext(contextOf(identity));
      credentials.replace(identity);
    },
    close() {
      for (const socket of links) socket.destroy();
      server.forceShutdown();
      return Promise.resolve();
    },
  };
}

/**
 * Links beside gRPC on one port. A stock Docker Engine offers no application protocol in its TLS handshakes once it has
 * renewed its certificate (seen with 20.10.24), and Node's HTTP/2 server turns such a connection away; Go's, which such
 * engines are made for, takes it for HTTP/2. So does this port.
 */
function splitProtocols(http2Server: Http2SecureServer, acceptLink: (socket: TLSSocket) => void): void {
  const speakHttp2 = http2Server.listeners('secureConnection');
  http2Server.removeAllListeners('secureConnection');
  http2Server.on('secureConnection', (socket: TLSSocket) => {
    if (socket.alpnProtocol === linkProtocol) {
      acceptLink(socket);
      return;
    }
    if (socket.alpnProtocol === false) socket.alpnProtocol = 'h2';
    for (const listener of speakHttp2) listener.call(http2Server, socket);
  });
}

/** Lets windowBytes be under way to this server, on a connection and on each of its streams; grpc-js leaves it at 64 KiB. */
function widen(http2Server: Http2SecureServer): void {
  http2Server.updateSettings({ initialWindowSize: windowBytes });
  http2Server.on('session', (session: ServerHttp2Session) => session.setLocalWindowSize(windowBytes));
}

/** grpc-js has no public door to its HTTP/2 servers. */
function http2ServersOf(server: grpc.Server): Http2SecureServer[] {
  const { http2Servers } = server as unknown as { http2Servers?: Map<Http2SecureServer, unknown> };
  if (!http2Servers?.size)
    throw new ShoalError('internal', 'this version of grpc-js keeps its servers elsewhere');
  return [...http2Servers.keys()];
}

/** The caller of a link, asked like that of a gRPC call. */
function callOf(socket: TLSSocket): AuthenticatedCall {
  const certificate = socket.authorized ? socket.getPeerCertificate() : undefined;
  return {
    getAuthContext: () => (certificate?.raw ? { sslPeerCertificate: certificate } : {}),
    getPath: () => linkProtocol,
  };
}

/** The part of a server call that tells who calls. */
export interface AuthenticatedCall {
  getAuthContext(): { sslPeerCertificate?: PeerCertificate };
  getPath(): string;
}

/** Who calls, from the client certificate that TLS verified; undefined when there is none. */
export function peerIdentity(call: Pick<AuthenticatedCall, 'getAuthContext'>): PeerIdentity | undefined {
  const subject = call.getAuthContext().sslPeerCertificate?.subject as
    | Readonly<Record<string, unknown>>
    | undefined;
  const { CN: nodeId, O: clusterId, OU: unit } = subject ?? {};
  if (typeof nodeId !== 'string' || typeof clusterId !== 'string') return undefined;
  if (unit === 'swarm-manager') return { nodeId, clusterId, role: 'manager' };
  if (unit === 'swarm-worker') return { nodeId, clusterId, role: 'worker' };
  return undefined;
}

/** SHA-256 (hex) of the client certificate that TLS verified; undefined when there is none. */
export function peerCertificateDigest(call: Pick<AuthenticatedCall, 'getAuthContext'>): string | undefined {
  const certificate = call.getAuthContext().sslPeerCertificate?.raw;
  return certificate && createHash('sha256').update(certificate).digest('hex');
}

/** details.reason of a refusal for want of a certificate that TLS verified: none, an expired one, or one of another root. */
export const noCertificate = 'no-certificate';

/**
 * The caller's identity when its role is one of `roles`; else throws `permission-denied`
 * (details.reason says noCertificate where TLS verified none).
 */
export function requireRole(call: AuthenticatedCall, ...roles: Role[]): PeerIdentity {
  const identity = peerIdentity(call);
  if (identity === undefined) {
    throw new ShoalError(
      'permission-denied',
      `${call.getPath()}: this method needs a client certificate of the cluster`,
      { details: { reason: noCertificate } },
    );
  }
  if (!roles.includes(identity.role)) {
    throw new ShoalError(
      'permission-denied',
      `${call.getPath()}: a ${identity.role} may not call this, it is for ${roles.join(' and ')} nodes`,
    );
  }
  return identity;
}

/** As requireRole, and whatever else is known of the caller: throws to refuse. */
export type RequireCaller = (call: AuthenticatedCall, ...roles: Role[]) => PeerIdentity;

/** When the caller's certificate began to be valid, in ms since the epoch; undefined without one. */
export function callerValidFromMs(call: Pick<AuthenticatedCall, 'getAuthContext'>): number | undefined {
  const from = Date.parse(call.getAuthContext().sslPeerCertificate?.valid_from ?? '');
  return Number.isNaN(from) ? undefined : from;
}

/** How a channel finds out that the other side is gone. */
export interface Keepalive {
  readonly timeMs: number;
  readonly timeoutMs: number;
}

/** Notices a peer that lost its power within 2 s. */
export const defaultKeepalive: Keepalive = { timeMs: 1_000, timeoutMs: 1_000 };

/** The side that opened a link asks for signs of life; the other one need only not wait for ever. */
const acceptedKeepalive: Keepalive = { timeMs: 10_000, timeoutMs: 5_000 };

export interface ChannelOptions {
  /** Shown to the server; absent while the node has no certificate yet. */
  readonly identity?: NodeIdentity | undefined;
  /** PEM of the roots that the server's certificate must lead to. */
  readonly roots: string;
  readonly serverName: 'swarm-manager' | 'swarm-ca';
  readonly keepalive?: Keepalive | undefined;
}

export interface CallOptions {
  /** Milliseconds since the epoch after which the call fails with `timeout`. */
  readonly deadline?: number | undefined;
  readonly metadata?: Readonly<Record<string, string>> | undefined;
}

/** One connection to one address, reconnecting by itself, with typed clients for every service. */
export interface RpcChannel {
  readonly address: string;
  /** The typed client, for streaming calls. */
  client<Name extends ServiceName>(name: Name): ServiceClient<Name>;
  /** A unary call as a promise; rejects with a ShoalError. */
  call<Name extends ServiceName, Method extends keyof MethodsOf<Name> & string>(
    name: Name,
    method: Method,
    request: RequestOf<MethodsOf<Name>[Method]>,
    options?: CallOptions,
  ): Promise<AnswerOf<MethodsOf<Name>[Method]>>;
  close(): void;
}

/** A channel to a manager's port at `address` (host:port), trusted by `roots` under `serverName`. */
export function createChannel(address: string, options: ChannelOptions): RpcChannel {
  const context = createSecureContext({
    ca: options.roots,
    minVersion: minTlsVersion,
    ...(options.identity && { cert: options.identity.certificatePem, key: options.identity.keyPem }),
  });
  return openChannel(
    address,
    grpc.credentials.createFromSecureContext(context),
    options.serverName,
    options.keepalive ?? defaultKeepalive,
  );
}

/** Opens a link to a manager's port at `address` (host:port), trusted as a channel's. What fails closes it. */
export function openLink(address: string, options: ChannelOptions & { readonly clock: Clock }): Link {
  const end = address.lastIndexOf(':');
  const { identity, roots, serverName, keepalive = defaultKeepalive, clock } = options;
  const socket = connect({
    host: address.slice(0, end).replace(/^\[|\]$/g, ''),
    port: Number(address.slice(end + 1)),
    servername: serverName,
    ALPNProtocols: [linkProtocol],
    minVersion: minTlsVersion,
    ca: roots,
    ...(identity && { cert: identity.certificatePem, key: identity.keyPem }),
  });
  return new SocketLink(socket, 'opening', { clock, ...keepalive });
}

/**
 * The root certificate that the manager at `address` shows to anyone, WITHOUT verifying that manager: the caller
 * must check the exact bytes against the digest in the join token. Nothing else is sent over this connection.
 */
export async function fetchUnverifiedRoot(address: string, options: CallOptions = {}): Promise<Buffer> {
  const context = createSecureContext({ minVersion: minTlsVersion });
  const credentials = grpc.credentials.createFromSecureContext(context, { rejectUnauthorized: false });
  const channel = openChannel(address, credentials, 'swarm-ca', defaultKeepalive);
  try {
    const answer = await channel.call('CA', 'GetRootCACertificate', {}, options);
    return answer.certificate ?? Buffer.alloc(0);
  } finally {
    channel.close();
  }
}

function openChannel(
  address: string,
  credentials: grpc.ChannelCredentials,
  serverName: string,
  keepalive: Keepalive,
): RpcChannel {
  const services = loadPackage();
  const channel = new grpc.Channel(address, credentials, {
    'grpc.ssl_target_name_override': serverName,
    'grpc.max_receive_message_length': maxMessageBytes,
    'grpc.max_send_message_length': maxMessageBytes,
    'grpc.keepalive_time_ms': keepalive.timeMs,
    'grpc.keepalive_timeout_ms': keepalive.timeoutMs,
    'grpc.keepalive_permit_without_calls': 1,
    'grpc.initial_reconnect_backoff_ms': 100,
    'grpc.max_reconnect_backoff_ms': 1_000,
    'grpc.use_local_subchannel_pool': 1,
    'grpc.service_config_disable_resolution': 1,
    'grpc.enable_http_proxy': 0,
    'grpc.enable_retries': 0,
    'grpc-node.flow_control_window': windowBytes,
  });
  const clients = new Map<ServiceName, grpc.Client>();
  function client<Name extends ServiceName>(name: Name): ServiceClient<Name> {
    let made = clients.get(name);
    if (made === undefined) {
      made = new services[name](address, credentials, { channelOverride: channel }) as grpc.Client;
      clients.set(name, made);
    }
    return made as ServiceClient<Name>;
  }
  return {
    address,
    client,
    call(name, method, request, options = {}) {
      const definition = services[name].service[method] as unknown as grpc.MethodDefinition<unknown, unknown>;
      const metadata = new grpc.Metadata();
      for (const [key, value] of Object.entries(options.metadata ?? {})) metadata.set(key, value);
      return new Promise((resolve, reject) => {
        (client(name) as grpc.Client).makeUnaryRequest(
          definition.path,
          definition.requestSerialize,
          definition.responseDeserialize,
          request,
          metadata,
          options.deadline === undefined ? {} : { deadline: options.deadline },
          (error?: unknown, answer?: unknown) =>
            error ? reject(fromGrpcError(error)) : resolve(answer as never),
        );
      });
    },
    close() {
      channel.close();
    },
  };
}
