/**
 * The Dispatcher service on the cluster's port: a thin binding. It checks the caller's role, takes the node's id
 * from the certificate alone, and on a manager that does not lead says who does. It keeps no state.
 */
import type * as grpc from '@grpc/grpc-js';
import type { ShoalError } from '../../proto/errors.ts';
import { asId, type NodeId } from '../../proto/ids.ts';
import { type RpcServer, requireRole } from '../../proto/rpc.ts';
import { failStream, streamHandler, unaryHandler } from '../../proto/rpc-status.ts';
import { type Agent, type Dispatcher, notLeader } from './dispatcher.ts';
import type { Sink, StreamHandle } from './stream.ts';

/** Who answers now. */
export interface Leadership {
  /** The dispatcher while this manager leads. */
  dispatcher(): Dispatcher | undefined;
  /** The leader as this manager knows it; `address` is host:port. */
  leader(): { readonly nodeId: string; readonly address: string } | undefined;
}

/** Registers docker.swarmkit.v1.Dispatcher on the cluster's port. */
export function registerDispatcher(server: RpcServer, leadership: Leadership): void {
  server.addService('Dispatcher', {
    Session: streamHandler(async (call) => {
      const agent = agentOf(call);
      const dispatcher = leadership.dispatcher();
      if (dispatcher === undefined) {
        tellLeader(call, leadership);
        throw notLeader(leadership.leader()?.address);
      }
      bind(call, await dispatcher.session(agent, call.request, sinkOf(call)));
    }),
    Heartbeat: unaryHandler((request, call) => {
      const { nodeId } = agentOf(call);
      return required(leadership).heartbeat(nodeId, request.session_id ?? '');
    }),
    UpdateTaskStatus: unaryHandler(async (request, call) => {
      const { nodeId } = agentOf(call);
      await required(leadership).updateTaskStatus(nodeId, request.session_id ?? '', request.updates ?? []);
      return {};
    }),
    Assignments: streamHandler((call) => {
      const { nodeId } = agentOf(call);
      const sessionId = call.request.session_id ?? '';
      bind(call, required(leadership).assignments(nodeId, sessionId, sinkOf(call)));
    }),
  });
}

function required(leadership: Leadership): Dispatcher {
  const dispatcher = leadership.dispatcher();
  if (dispatcher === undefined) throw notLeader(leadership.leader()?.address);
  return dispatcher;
}

type Call = Parameters<typeof requireRole>[0] & { getPeer(): string };

function agentOf(call: Call): Agent {
  const { nodeId, role } = requireRole(call, 'worker', 'manager');
  const peer = call.getPeer();
  const host = peer.slice(0, peer.lastIndexOf(':')).replace(/^\[|\]$/g, '');
  return { nodeId: asId<NodeId>(nodeId), role, address: host };
}

/**
 * A stock engine reads no metadata of ours, and may have been told only this manager's address when it joined.
 * A session message replaces its list of managers, so it is sent one that names the leader before the error.
 */
function tellLeader(call: grpc.ServerWritableStream<unknown, object>, leadership: Leadership): void {
  const leader = leadership.leader();
  if (leader === undefined) return;
  call.write({ managers: [{ peer: { node_id: leader.nodeId, addr: leader.address }, weight: '10' }] });
}

/** A gRPC server stream as a Sink: a full buffer is waited for, so that a slow agent costs no memory. */
export function sinkOf<Message>(call: grpc.ServerWritableStream<unknown, Message>): Sink<Message> {
  let isOver = false;
  call.once('close', () => {
    isOver = true;
  });
  return {
    async send(message) {
      if (isOver || call.cancelled || call.write(message)) return;
      await drained(call);
    },
    end(error?: ShoalError) {
      if (isOver) return;
      isOver = true;
      if (error === undefined) call.end();
      else failStream(call, error);
    },
  };
}

/** Resolves when the stream's buffer is empty again, or the stream is over. */
function drained(call: grpc.ServerWritableStream<unknown, never>): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      for (const event of ['drain', 'close', 'cancelled']) call.off(event, done);
      resolve();
    };
    for (const event of ['drain', 'close', 'cancelled']) call.once(event, done);
  });
}

/** Tells the handle when the other side has ended the stream, even if it did so before there was a handle. */
function bind(call: grpc.ServerWritableStream<unknown, unknown>, handle: StreamHandle): void {
  if (call.cancelled || call.closed) handle.close();
  else {
    call.once('cancelled', () => handle.close());
    call.once('close', () => handle.close());
  }
}
