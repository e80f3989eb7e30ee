/**
 * shoal.v1.Exec on the cluster's port, and how a manager that does not lead has the leader summon an agent. A thin
 * binding: it checks roles and keeps no state.
 */
import * as grpc from '@grpc/grpc-js';
import { isShoalError } from '../../proto/errors.ts';
import type { ExecOrder } from '../../proto/generated/shoal/v1/ExecOrder.ts';
import type { ExecReport__Output as ExecReport } from '../../proto/generated/shoal/v1/ExecReport.ts';
import { asId, type NodeId } from '../../proto/ids.ts';
import { type Clock, delay } from '../../proto/ports.ts';
import {
  createChannel,
  type NodeIdentity,
  type RequireCaller,
  type RpcServer,
  requireRole,
} from '../../proto/rpc.ts';
import { failStream, streamHandler, unaryHandler } from '../../proto/rpc-status.ts';
import { closeWith, sinkOf } from '../../proto/rpc-stream.ts';
import type { ExecBoard } from './board.ts';
import { notLeading, type Summoning, type Summons } from './summons.ts';

const callTimeoutMs = 5_000;
/** A leader that was lost has a successor by then, and agents a session with it. */
const retryForMs = 8_000;
const retryEveryMs = 250;

/** Who answers now. */
export interface ExecLeadership {
  /** Undefined while this manager does not lead. */
  summons(): Summons | undefined;
  /** The leader as this manager knows it; `address` is host:port. */
  leader(): { readonly address: string } | undefined;
}

/** Registers shoal.v1.Exec for callers that `requireCaller` lets pass. */
export function registerExec(
  server: RpcServer,
  leadership: ExecLeadership,
  board: ExecBoard,
  requireCaller: RequireCaller = requireRole,
): void {
  const summons = (): Summons => {
    const current = leadership.summons();
    if (current === undefined) throw notLeading(leadership.leader()?.address);
    return current;
  };
  server.addService('Exec', {
    Listen: streamHandler((call) => {
      const { nodeId } = requireCaller(call, 'worker', 'manager');
      // Headers at once, so that the agent knows that it is heard before there is a first summons.
      call.sendMetadata(new grpc.Metadata());
      closeWith(call, summons().listen(asId<NodeId>(nodeId), sinkOf(call)));
    }),
    Summon: unaryHandler((request, call) => {
      requireCaller(call, 'manager');
      summons().summon({
        execId: request.exec_id ?? '',
        nodeId: asId<NodeId>(request.node_id ?? ''),
        address: request.address ?? '',
      });
      return {};
    }),
    Carry: (call: grpc.ServerDuplexStream<ExecReport, ExecOrder>) => {
      const serve = async (): Promise<void> => {
        const { nodeId } = requireCaller(call, 'worker', 'manager');
        await board.carry(asId<NodeId>(nodeId), call, sinkOf(call));
      };
      serve().catch((error: unknown) => failStream(call, error));
    },
  });
}

/** Summons through whoever leads, and goes on trying for a while when nobody does or the agent is on its way there. */
export async function summonThroughLeader(
  leadership: ExecLeadership,
  identity: () => NodeIdentity,
  clock: Clock,
  summoning: Summoning,
): Promise<void> {
  const end = clock.monotonicMs() + retryForMs;
  for (;;) {
    try {
      const own = leadership.summons();
      if (own) return own.summon(summoning);
      const leader = leadership.leader();
      if (!leader) throw notLeading(undefined);
      return await summonAt(leader.address, identity(), clock, summoning);
    } catch (error) {
      if (!isShoalError(error) || !error.retriable || clock.monotonicMs() > end) throw error;
    }
    await delay(clock, retryEveryMs);
  }
}

async function summonAt(
  address: string,
  identity: NodeIdentity,
  clock: Clock,
  { execId, nodeId, address: own }: Summoning,
): Promise<void> {
  const channel = createChannel(address, {
    identity,
    roots: identity.rootsPem,
    serverName: 'swarm-manager',
  });
  try {
    const request = { exec_id: execId, node_id: nodeId, address: own };
    await channel.call('Exec', 'Summon', request, { deadline: clock.now() + callTimeoutMs });
  } finally {
    channel.close();
  }
}
