/** Where the daemon's node stands, and how the API is told of it. */
import { existsSync } from 'node:fs';
import type { Agent } from '../agent/agent.ts';
import type { HeldIdentity } from '../agent/identity.ts';
import type { ApiHost, Membership } from '../manager/api/contract.ts';
import type { Manager } from '../manager/manager.ts';
import { createMetrics, type Metrics } from '../manager/metrics.ts';
import type { ManagerServer } from '../manager/server.ts';
import { assertNever, isShoalError, messageOf, ShoalError } from '../proto/errors.ts';
import { lockedMessage } from '../proto/identity.ts';
import type { NodeId } from '../proto/ids.ts';

export type State =
  | { readonly kind: 'none' }
  | { readonly kind: 'pending' }
  | { readonly kind: 'locked'; readonly nodeId: NodeId }
  | { readonly kind: 'member'; readonly agent: Agent; manager: ManagerServer | undefined }
  | { readonly kind: 'error'; readonly held: HeldIdentity | undefined; readonly message: string };

/** A network of the cluster for a container of the node's engine; see Agent.attachContainer. */
export function attachContainer(
  state: State,
  ...[network, names]: Parameters<ApiHost['attachContainer']>
): ReturnType<ApiHost['attachContainer']> {
  if (state.kind === 'member') return state.agent.attachContainer(network, names);
  return Promise.reject(new ShoalError('not-found', `network ${network} not found`));
}

/** The state as the API sees it; `nodeId` answers the node's own id while it has one. */
export function membershipOf(state: State, nodeId: () => NodeId): Membership {
  switch (state.kind) {
    case 'none':
    case 'pending':
    case 'locked':
      return state;
    case 'error':
      return {
        kind: 'error',
        message: state.message,
        ...(state.held ? { nodeId: state.held.certificate.nodeId as NodeId } : {}),
      };
    case 'member':
      if (state.manager) return { kind: 'manager', cluster: state.manager.cluster() };
      return {
        kind: 'worker',
        nodeId: nodeId(),
        managers: state.agent.managers.map((manager) => ({
          NodeID: manager.nodeId,
          Addr: manager.address,
        })),
      };
    default:
      return assertNever(state);
  }
}

/** The node's metrics, read from whatever it is when they are asked for. */
export function metricsOf(state: () => State): Metrics {
  const member = () => {
    const now = state();
    return now.kind === 'member' ? now : undefined;
  };
  return createMetrics({
    store: () => member()?.manager?.manager.store,
    raft: () => member()?.manager?.manager.raft.status(),
    networks: () => member()?.agent.dataPlane,
  });
}

/** Where the node stands when it could not go on: locked, or with what is wrong in words. */
export function stateAfter(error: unknown, held: HeldIdentity | undefined): State {
  if (!isShoalError(error, 'locked')) return { kind: 'error', held, message: messageOf(error) };
  // Its key is sealed, or its log alone: it was sealed by an earlier version.
  const nodeId = (error.details.nodeId ?? held?.certificate.nodeId ?? '') as NodeId;
  return { kind: 'locked', nodeId };
}

/**
 * Throws unless the node is part of no cluster. One that could not go on is part of one: what it holds on its disk may be
 * all that is left of it. So may a log in `raftFolder` without the node's certificate.
 */
export function requireOutside(state: State, raftFolder: string): void {
  const leave = 'Use "docker swarm leave" to leave this swarm and join another one.';
  switch (state.kind) {
    case 'none':
      if (!existsSync(raftFolder)) return;
      throw new ShoalError(
        'failed-precondition',
        `${raftFolder} holds the log of a swarm that this node managed, and the node's certificate is gone. Put the whole data directory back and restart shoald, or move that folder away to begin without it`,
      );
    case 'locked':
      throw new ShoalError('locked', lockedMessage);
    case 'error':
      throw new ShoalError(
        'already-in-swarm',
        `This node is already part of a swarm, and could not go on in it: ${state.message}. Put that right and restart shoald, or, to give up what it holds of that swarm, run \`shoal swarm leave --force\` first.`,
      );
    case 'pending':
    case 'member':
      throw new ShoalError('already-in-swarm', `This node is already part of a swarm. ${leave}`);
    default:
      assertNever(state);
  }
}

/** The agent and manager of a node that can recover a cluster; throws 'locked', 'not-a-manager'. */
export function managingMember(state: State): { readonly agent: Agent; readonly manager: ManagerServer } {
  if (state.kind === 'locked') throw new ShoalError('locked', lockedMessage);
  if (state.kind === 'member' && state.manager) return { agent: state.agent, manager: state.manager };
  throw new ShoalError(
    'not-a-manager',
    '--force-new-cluster recovers a cluster from one of its managers, and this node is none',
  );
}

/** The node's manager, where it is one. */
export function managerOf(state: State): Manager | undefined {
  return state.kind === 'member' ? state.manager?.manager : undefined;
}

/** Addresses of managers, the leader first, as this node's manager and agent know them. */
export function knownManagers(state: State): readonly string[] {
  const manager = managerOf(state);
  const leader = manager?.leaderMember()?.address;
  const others = state.kind === 'member' ? state.agent.managerAddresses : [];
  const members = manager?.managerAddresses().map(({ Addr }) => Addr) ?? [];
  return [...new Set([...(leader ? [leader] : []), ...others, ...members])];
}
