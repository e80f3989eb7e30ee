/**
 * The nodes' data planes as any manager's API asks for them: of the own dispatcher while this manager leads, else of the
 * leader's over the cluster's port. Errors: 'no-quorum' while nobody leads, and the leader's.
 */
import { ShoalError } from '../proto/errors.ts';
import type { RpcChannel } from '../proto/rpc.ts';
import type { DataPlanes } from './api/contract.ts';
import type { Manager } from './manager.ts';

/** Calls the manager at an address, within a bounded time. */
export type CallManager = <T>(
  address: string,
  call: (channel: RpcChannel, deadline: number) => Promise<T>,
) => Promise<T>;

export function dataPlanesOf(manager: Manager, callManager: CallManager): DataPlanes {
  const leaderAddress = (): string => {
    const leader = manager.leaderMember();
    if (leader !== undefined) return leader.address;
    throw new ShoalError(
      'no-quorum',
      'no manager leads the cluster right now, and only the leader knows what nodes hold; try again',
    );
  };
  return {
    programmed: async (networkId) =>
      manager.dispatcher()?.endpoints.programmed(networkId) ??
      callManager(leaderAddress(), (channel, deadline) =>
        channel.call('DataPlanes', 'Programmed', { network_id: networkId }, { deadline }),
      ),
    ask: async (nodeId, question) =>
      manager.dispatcher()?.endpoints.ask(nodeId, question) ??
      callManager(leaderAddress(), (channel, deadline) =>
        channel.call('DataPlanes', 'Ask', { node_id: nodeId, question }, { deadline }),
      ),
  };
}
