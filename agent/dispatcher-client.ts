/**
 * The agent's side of the worker protocol: an interface, so that a simulator can stand in, and its gRPC
 * implementation. One client is one connection to one manager. It retries nothing and remembers nothing.
 */
import type { ClientWritableStream, Metadata } from '@grpc/grpc-js';
import { messageOf, type ShoalError } from '../proto/errors.ts';
import type { PublishLogsMessage } from '../proto/generated/docker/swarmkit/v1/PublishLogsMessage.ts';
import type { EndpointsReport } from '../proto/generated/shoal/v1/EndpointsReport.ts';
import type { EndpointsUpdate } from '../proto/generated/shoal/v1/EndpointsUpdate.ts';
import type { ExecSummons__Output as ExecSummons } from '../proto/generated/shoal/v1/ExecSummons.ts';
import type { UsageReport } from '../proto/generated/shoal/v1/UsageReport.ts';
import type { UsageWishes__Output as UsageWishes } from '../proto/generated/shoal/v1/UsageWishes.ts';
import type { Clock } from '../proto/ports.ts';
import { createChannel, type NodeIdentity, type RpcChannel } from '../proto/rpc.ts';
import { fromGrpcError, managerHeader } from '../proto/rpc-status.ts';
import type { StatusUpdate } from './reporter.ts';
import {
  millisecondsOf,
  type WireAssignments,
  type WireDescription,
  type WireSessionMessage,
  type WireSubscription,
} from './wire.ts';

const reportTimeoutMs = 10_000;

export interface StreamHandlers<Message> {
  onMessage(message: Message): void;
  /** Called once, unless the stream was cancelled; undefined when the other side ended it without fault. */
  onEnd(error: ShoalError | undefined): void;
}

export interface Stream {
  cancel(): void;
}

export interface SessionHandlers extends StreamHandlers<WireSessionMessage> {
  /** Called before the first message, with what kind of manager answers. */
  onManagerKind(kind: ManagerKind): void;
}

/** Whether the managers are ours or Docker Engines. */
export type ManagerKind = 'shoal' | 'docker';

/** A node's watch of endpoints, on which it also says what it holds. */
export interface EndpointsStream extends Stream {
  report(report: EndpointsReport): void;
}

/** A node's reports of what its tasks use. */
export interface UsageStream extends Stream {
  report(report: UsageReport): void;
}

/** Log lines on their way to a manager. */
export interface LogUpload {
  /** Resolves when there is room for more; rejects when the other side is gone. */
  send(message: PublishLogsMessage): Promise<void>;
  /** Ends the stream; resolves when it is received. */
  close(): Promise<void>;
}

/** A connection to one manager. Errors are ShoalErrors; `details.leader` names the leader when it is another. */
export interface DispatcherClient {
  readonly address: string;
  session(description: WireDescription, handlers: SessionHandlers): Stream;
  /** Resolves with the milliseconds until the next beat. */
  heartbeat(sessionId: string, timeoutMs: number): Promise<number>;
  updateTaskStatus(sessionId: string, updates: StatusUpdate[]): Promise<void>;
  assignments(sessionId: string, handlers: StreamHandlers<WireAssignments>): Stream;
  listenSubscriptions(handlers: StreamHandlers<WireSubscription>): Stream;
  publishLogs(): LogUpload;
  /** Absent where no data plane listens. */
  watchEndpoints?(handlers: StreamHandlers<EndpointsUpdate>): EndpointsStream;
  /** What is to be measured; absent where nobody measures. */
  watchUsage?(handlers: StreamHandlers<UsageWishes>): UsageStream;
  /** Summons to run commands; absent where nobody does. */
  listenExecs?(handlers: StreamHandlers<ExecSummons>): Stream;
  close(): void;
}

/** Connects to the manager at `address` (host:port) as `identity`. */
export type ConnectDispatcher = (address: string, identity: NodeIdentity) => DispatcherClient;

/** Connects over gRPC, with TLS and the node's certificate. */
export function grpcDispatcher(clock: Clock): ConnectDispatcher {
  return (address, identity) => {
    const channel = createChannel(address, {
      identity,
      roots: identity.rootsPem,
      serverName: 'swarm-manager',
    });
    return new GrpcDispatcherClient(channel, clock);
  };
}

interface ReadableCall<Message> {
  on(event: 'data', listener: (message: Message) => void): unknown;
  on(event: 'error', listener: (error: unknown) => void): unknown;
  on(event: 'end', listener: () => void): unknown;
  cancel(): void;
}

class GrpcDispatcherClient implements DispatcherClient {
  readonly address: string;
  readonly #channel: RpcChannel;
  readonly #clock: Clock;

  constructor(channel: RpcChannel, clock: Clock) {
    this.address = channel.address;
    this.#channel = channel;
    this.#clock = clock;
  }

  session(description: WireDescription, handlers: SessionHandlers): Stream {
    const call = this.#channel.client('Dispatcher').Session({ description });
    call.on('metadata', (head: Metadata) => {
      handlers.onManagerKind(head.get(managerHeader).length > 0 ? 'shoal' : 'docker');
    });
    return follow(call, handlers);
  }

  async heartbeat(sessionId: string, timeoutMs: number): Promise<number> {
    const answer = await this.#channel.call(
      'Dispatcher',
      'Heartbeat',
      { session_id: sessionId },
      { deadline: this.#clock.now() + timeoutMs },
    );
    return millisecondsOf(answer.period) ?? 0;
  }

  async updateTaskStatus(sessionId: string, updates: StatusUpdate[]): Promise<void> {
    await this.#channel.call(
      'Dispatcher',
      'UpdateTaskStatus',
      { session_id: sessionId, updates },
      { deadline: this.#clock.now() + reportTimeoutMs },
    );
  }

  assignments(sessionId: string, handlers: StreamHandlers<WireAssignments>): Stream {
    return follow(this.#channel.client('Dispatcher').Assignments({ session_id: sessionId }), handlers);
  }

  listenSubscriptions(handlers: StreamHandlers<WireSubscription>): Stream {
    return follow(this.#channel.client('LogBroker').ListenSubscriptions({}), handlers);
  }

  publishLogs(): LogUpload {
    let failure: ShoalError | undefined;
    let finish: () => void = () => {};
    const finished = new Promise<void>((resolve) => {
      finish = resolve;
    });
    const call: ClientWritableStream<PublishLogsMessage> = this.#channel
      .client('LogBroker')
      .PublishLogs((error) => {
        if (error) failure = fromGrpcError(error);
        finish();
      });
    call.on('error', (error) => {
      failure ??= fromGrpcError(error);
    });
    return {
      async send(message) {
        if (failure !== undefined) throw failure;
        if (call.write(message)) return;
        const drained = new Promise<void>((resolve) => {
          call.once('drain', resolve);
        });
        await Promise.race([drained, finished]);
        if (failure !== undefined) throw failure;
      },
      async close() {
        call.end();
        await finished;
        if (failure !== undefined) throw failure;
      },
    };
  }

  watchEndpoints(handlers: StreamHandlers<EndpointsUpdate>): EndpointsStream {
    const call = this.#channel.client('Endpoints').Watch();
    const stream = follow(call, handlers);
    return { ...stream, report: (report) => void call.write(report) };
  }

  watchUsage(handlers: StreamHandlers<UsageWishes>): UsageStream {
    const call = this.#channel.client('Usage').Watch();
    const stream = follow(call, handlers);
    return { ...stream, report: (report) => void call.write(report) };
  }

  listenExecs(handlers: StreamHandlers<ExecSummons>): Stream {
    return follow(this.#channel.client('Exec').Listen({}), handlers);
  }

  close(): void {
    this.#channel.close();
  }
}

/** Hands a server stream on until it ends or is cancelled; what comes after that is dropped. */
function follow<Message>(call: ReadableCall<Message>, handlers: StreamHandlers<Message>): Stream {
  let isOver = false;
  const end = (error: ShoalError | undefined): void => {
    if (isOver) return;
    isOver = true;
    handlers.onEnd(error);
  };
  call.on('data', (message) => {
    if (!isOver) handlers.onMessage(message);
  });
  call.on('error', (error) => end(fromGrpcError(error)));
  call.on('end', () => end(undefined));
  return {
    cancel() {
      isOver = true;
      call.cancel();
    },
  };
}

/** One sentence for the end of a stream. */
export function reasonOfEnd(error: ShoalError | undefined): string {
  return error === undefined ? 'the manager ended the stream' : messageOf(error);
}
