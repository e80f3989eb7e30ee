/**
 * What a cluster goes on with when it is restored on a fresh host: its state, its identity and its tokens as they
 * were, one new manager, and nobody else in the group. In: an opened backup. Out: the first entry of the new group
 * and the new manager's identity; nothing is stored. The old managers are down and workers from then on, should
 * they ever come back; workers are waited for before their tasks are run elsewhere.
 */
import type { ClusterNode, NodeAvailability } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import { type NodeId, newId } from '../../proto/ids.ts';
import type { Random } from '../../proto/ports.ts';
import { newNode } from '../ca/bootstrap.ts';
import { issueLocally, type LocalIssue } from '../ca/root.ts';
import type { Change } from '../store/change.ts';
import { Store } from '../store/store.ts';
import type { Backup, BackupFacts } from './backup.ts';

/**
 * The restored cluster's versions begin so much later than the backup's, for the old one may have gone on: who
 * saw a version then is to be refused as out of date and not to overwrite something else.
 */
const indexGap = 1_000_000;

export interface RestoreOptions {
  /** In ms since the epoch. */
  readonly now: number;
  readonly random: Random;
  readonly availability: NodeAvailability;
  /** How long workers have to come before they count as down. */
  readonly awaitNodesMs: number;
}

/** The state that a group begins with, and its place after the group that it was taken from. */
export interface RestoredState {
  readonly state: Uint8Array;
  /** Of the last entry in `state`. */
  readonly stateIndex: number;
  /** Of the first entry of the new group. */
  readonly index: number;
  readonly term: number;
  /** Members of the group that it was. */
  readonly formerMembers: BackupFacts['members'];
}

export interface RestorePlan {
  readonly nodeId: NodeId;
  readonly identity: LocalIssue['identity'];
  readonly restored: RestoredState;
  /** The first entry of the new group. */
  readonly changes: readonly Change[];
  /** The cluster's, while autolock is on: it seals the new manager's disk as well. */
  readonly unlockKey: string | undefined;
}

/** Throws 'corrupted' when the backup's state can't be read or holds no cluster. */
export async function planRestore(backup: Backup, options: RestoreOptions): Promise<RestorePlan> {
  const { now, random, availability, awaitNodesMs } = options;
  const { facts, state, head } = backup;
  const store = new Store();
  store.restore(facts.index, state);
  const cluster = store.cluster();
  if (!cluster) throw new ShoalError('corrupted', 'the backup holds no cluster: take another one');
  const nodeId = newId<NodeId>(random);
  const { identity, requestPem } = await issueLocally(cluster, { nodeId, role: 'manager' }, { now, random });
  const node = newNode({
    nodeId,
    role: 'manager',
    availability,
    tlsInfo: cluster.TLSInfo,
    requestPem,
    certificatePem: identity.certificatePem,
  });
  const Private = { ...cluster.Private, AwaitNodesUntilMs: now + awaitNodesMs };
  return {
    nodeId,
    identity,
    restored: {
      state,
      stateIndex: facts.index,
      index: facts.index + indexGap,
      term: facts.term + 1,
      formerMembers: facts.members,
    },
    changes: [
      { op: 'merge', kind: 'cluster', id: cluster.ID, fields: { Private } },
      { op: 'create', kind: 'node', object: node },
      ...store.list('node').map((former) => changeOfNode(former, head.createdAt)),
    ],
    unlockKey: cluster.Private.UnlockKey,
  };
}

function changeOfNode(node: ClusterNode, createdAt: string): Change {
  const { Spec, Status } = node;
  const since = `the cluster was restored from a backup of ${createdAt}`;
  const status = (State: 'down' | 'disconnected', Message: string) => ({ State, Message, Addr: Status.Addr });
  if (Spec.Role === 'manager' || node.ManagerStatus) {
    const fields = {
      Spec: { ...Spec, Role: 'worker' as const },
      Status: status('down', `${since}; this node was one of its managers`),
    };
    return { op: 'merge', kind: 'node', id: node.ID, fields };
  }
  const fields =
    Status.State === 'down'
      ? { Status }
      : { Status: status('disconnected', `${since}; this node has not come back yet`) };
  return { op: 'merge', kind: 'node', id: node.ID, fields };
}
