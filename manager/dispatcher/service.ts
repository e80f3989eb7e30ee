/**
 * The Dispatcher service on the cluster's port: a thin binding. It checks the caller's role, takes the node's id
 * from the certificate alone, and on a manager that does not lead says who does. It keeps no state.
 */
import * as grpc from '@grpc/grpc-js';
import type { EndpointsReport } from '../../proto/generated/shoal/v1/EndpointsReport.ts';
import type { EndpointsUpdate } from '../../proto/generated/shoal/v1/EndpointsUpdate.ts';
import { asId, type NetworkId, type NodeId } from '../../proto/ids.ts';
import { type RequireCaller, type RpcServer, requireRole } from '../../proto/rpc.ts';
import { failStream, managerHeader, streamHandler, unaryHandler } from '../../proto/rpc-status.ts';
import { closeWith, sinkOf } from '../../proto/rpc-stream.ts';
import { packageVersion } from '../../proto/version.ts';
import { type Agent, type Dispatcher, notLeader } from './dispatcher.ts';

/** Who answers now. */
export interface Leadership {
  /** The dispatcher while this manager leads. */
  dispatcher(): Dispatcher | undefined;
  /** The leader as this manager knows it; `address` is host:port. */
  leader(): { readonly nodeId: string; readonly address: string } | undefined;
}

/** Registers docker.swarmkit.v1.Dispatcher on the cluster's port, for callers that `requireCaller` lets pass. */
export function registerDispatcher(
  server: RpcServer,
  leadership: Leadership,
  requireCaller: RequireCaller = requireRole,
): void {
  const agentOf = (call: Call): Agent => agentFrom(call, requireCaller);
  server.addService('Dispatcher', {
    Session: streamHandler(async (call) => {
      const agent = agentOf(call);
      call.sendMetadata(ourHead());
      const dispatcher = leadership.dispatcher();
      if (dispatcher === undefined) {
        tellLeader(call, leadership);
        throw notLeader(leadership.leader()?.address);
      }
      closeWith(call, await dispatcher.session(agent, call.request, sinkOf(call)));
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
      closeWith(call, required(leadership).assignments(nodeId, sessionId, sinkOf(call)));
    }),
  });
}

/** Registers shoal.v1.Endpoints, for the data planes of our agents. */
export function registerEndpoints(
  server: RpcServer,
  leadership: Leadership,
  requireCaller: RequireCaller = requireRole,
): void {
  server.addService('Endpoints', {
    Watch: (call: grpc.ServerDuplexStream<EndpointsReport, EndpointsUpdate>) => {
      try {
        const { nodeId } = agentFrom(call, requireCaller);
        const handle = required(leadership).watchEndpoints(nodeId, sinkOf(call));
        call.on('data', (report) => handle.report(report));
        call.on('end', () => call.end());
        closeWith(call, handle);
      } catch (error) {
        failStream(call, error);
      }
    },
  });
}

/** Registers shoal.v1.DataPlanes, by which the other managers ask the leader. */
export function registerDataPlanes(
  server: RpcServer,
  leadership: Leadership,
  requireCaller: RequireCaller = requireRole,
): void {
  server.addService('DataPlanes', {
    Programmed: unaryHandler((request, call) => {
      requireCaller(call, 'manager');
      return required(leadership).endpoints.programmed(asId<NetworkId>(request.network_id ?? ''));
    }),
    Ask: unaryHandler((request, call) => {
      requireCaller(call, 'manager');
      const { node_id, question } = request;
      return required(leadership).endpoints.ask(asId<NodeId>(node_id ?? ''), question ?? {});
    }),
  });
}

/** By this an agent of ours knows that it is not in a Docker Swarm. */
function ourHead(): grpc.Metadata {
  const head = new grpc.Metadata();
  head.set(managerHeader, packageVersion());
  return head;
}

function required(leadership: Leadership): Dispatcher {
  const dispatcher = leadership.dispatcher();
  if (dispatcher === undefined) throw notLeader(leadership.leader()?.address);
  return dispatcher;
}

type Call = Parameters<typeof requireRole>[0] & { getPeer(): string };

function agentFrom(call: Call, requireCaller: RequireCaller): Agent {
  const { nodeId, role } = requireCaller(call, 'worker', 'manager');
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
