/**
 * The LogBroker service for agents and the Logs service for managers, on the cluster's port, and the way in which
 * a follower's API reads logs through the leader. A thin binding: it checks roles and keeps no state.
 */
import * as grpc from '@grpc/grpc-js';
import type { PublishLogsMessage__Output as WirePublish } from '../../proto/generated/docker/swarmkit/v1/PublishLogsMessage.ts';
import type { SubscribeLogsMessage__Output as WireLines } from '../../proto/generated/docker/swarmkit/v1/SubscribeLogsMessage.ts';
import type { SubscribeLogsRequest__Output as WireLogRequest } from '../../proto/generated/docker/swarmkit/v1/SubscribeLogsRequest.ts';
import { asId, type NodeId } from '../../proto/ids.ts';
import { type RequireCaller, type RpcChannel, type RpcServer, requireRole } from '../../proto/rpc.ts';
import { fromGrpcError, streamHandler, toGrpcStatus } from '../../proto/rpc-status.ts';
import { closeWith, type Sink, type StreamHandle, sinkOf } from '../../proto/rpc-stream.ts';
import { type LogBroker, notLeader } from './broker.ts';

/** Who answers now. */
export interface LogLeadership {
  /** The broker while this manager leads. */
  broker(): LogBroker | undefined;
  /** The leader as this manager knows it; `address` is host:port. */
  leader(): { readonly address: string } | undefined;
}

/**
 * Registers docker.swarmkit.v1.LogBroker and docker.swarmkit.v1.Logs on the cluster's port, for callers that
 * `requireCaller` lets pass.
 */
export function registerLogs(
  server: RpcServer,
  leadership: LogLeadership,
  requireCaller: RequireCaller = requireRole,
): void {
  const broker = (): LogBroker => {
    const current = leadership.broker();
    if (current === undefined) throw notLeader(leadership.leader()?.address);
    return current;
  };
  server.addService('LogBroker', {
    ListenSubscriptions: streamHandler((call) => {
      const { nodeId } = requireCaller(call, 'worker', 'manager');
      // Headers at once, so that the agent knows that it is heard before there is a first subscription.
      call.sendMetadata(new grpc.Metadata());
      closeWith(call, broker().listen(asId<NodeId>(nodeId), sinkOf(call)));
    }),
    PublishLogs: (
      call: grpc.ServerReadableStream<WirePublish, object>,
      callback: grpc.sendUnaryData<object>,
    ) => {
      takeLines(call, broker, requireCaller).then(
        () => callback(null, {}),
        (error: unknown) => callback(toGrpcStatus(error)),
      );
    },
  });
  server.addService('Logs', {
    SubscribeLogs: streamHandler((call) => {
      requireCaller(call, 'manager');
      closeWith(call, broker().subscribe(call.request, sinkOf(call)));
    }),
  });
}

/** Reads a PublishLogs stream no faster than its reader takes the lines. */
async function takeLines(
  call: grpc.ServerReadableStream<WirePublish, object>,
  broker: () => LogBroker,
  requireCaller: RequireCaller,
): Promise<void> {
  const { nodeId } = requireCaller(call, 'worker', 'manager');
  const publisher = broker().publisher(asId<NodeId>(nodeId));
  try {
    for await (const message of call) await publisher.publish(message as WirePublish);
  } finally {
    publisher.end();
  }
}

/** LogBroker.subscribe of the manager at the other end of `channel`: for a follower's API. */
export function subscribeThrough(
  channel: RpcChannel,
  request: WireLogRequest,
  sink: Sink<WireLines>,
): StreamHandle {
  const call = channel.client('Logs').SubscribeLogs(request);
  let isClosed = false;
  const read = async (): Promise<void> => {
    for await (const message of call) await sink.send(message as WireLines);
  };
  read().then(
    () => sink.end(),
    (error: unknown) => {
      if (!isClosed) sink.end(fromGrpcError(error));
    },
  );
  return {
    close() {
      isClosed = true;
      call.cancel();
    },
  };
}
