/** Whether a cluster's objects fit together, and what there is of them. In: a store. Out: counts and faults in words. */
import { leadsToRoots, rootDigestOf } from '../../proto/certificate.ts';
import type { Cluster } from '../../proto/docker.ts';
import { messageOf } from '../../proto/errors.ts';
import { parseJoinToken } from '../../proto/identity.ts';
import type { NodeId } from '../../proto/ids.ts';
import type { Random } from '../../proto/ports.ts';
import { isTerminal } from '../../proto/task-state.ts';
import { issueLocally } from '../ca/root.ts';
import { firstMissing, referencesOf } from '../store/references.ts';
import type { View } from '../store/store.ts';
import { type Kind, kinds } from '../store/tables.ts';

/** What a store holds, and what is wrong with it. */
export interface Examination {
  readonly counts: Readonly<Record<Kind, number>>;
  readonly managers: readonly string[];
  readonly workers: readonly string[];
  readonly services: readonly string[];
  /** Tasks that are to run. */
  readonly wantedTasks: number;
  readonly isLocking: boolean;
  /** Empty when all is well. */
  readonly faults: readonly string[];
}

/** Looks through everything. `now` in ms since the epoch. */
export async function examine(view: View, now: number, random: Random): Promise<Examination> {
  const cluster = view.cluster();
  const faults = [
    ...(cluster ? await clusterFaults(cluster, now, random) : ['it holds no cluster']),
    ...serviceFaults(view),
    ...taskFaults(view),
  ];
  const nameOf = (role: 'manager' | 'worker'): string[] =>
    view.find('node', 'role', role).map((node) => node.Description.Hostname || node.ID);
  return {
    counts: Object.fromEntries(kinds.map((kind) => [kind, view.count(kind)])) as Record<Kind, number>,
    managers: nameOf('manager'),
    workers: nameOf('worker'),
    services: view.list('service').map((service) => service.Spec.Name),
    wantedTasks: view.find('task', 'desiredState', 'running').length,
    isLocking: cluster?.Private.UnlockKey !== undefined,
    faults,
  };
}

/** The CA's key must sign what its nodes trust, and the tokens must be this root's. */
async function clusterFaults(cluster: Cluster, now: number, random: Random): Promise<string[]> {
  const faults: string[] = [];
  const root = cluster.TLSInfo.TrustRoot;
  for (const [role, token] of Object.entries(cluster.JoinTokens)) {
    try {
      if (parseJoinToken(token).rootDigest !== rootDigestOf(root)) throw new Error('it is another root’s');
    } catch (error) {
      faults.push(`the ${role} join token is not of the cluster's root certificate: ${messageOf(error)}`);
    }
  }
  try {
    const issued = await issueLocally(
      cluster,
      { nodeId: 'rehearsal' as NodeId, role: 'manager' },
      { now, random },
    );
    if (!leadsToRoots(issued.identity.certificatePem, root)) throw new Error('it is not the root’s');
  } catch (error) {
    faults.push(`the CA's key signs nothing that the nodes trust: ${messageOf(error)}`);
  }
  return faults;
}

function serviceFaults(view: View): string[] {
  return view.list('service').flatMap(({ Spec }) => {
    const missing = firstMissing(view, referencesOf(Spec));
    return missing ? [`service ${Spec.Name} uses ${missing.kind} ${missing.name}, which is not in it`] : [];
  });
}

function taskFaults(view: View): string[] {
  return view.list('task').flatMap((task) => {
    if (task.DesiredState !== 'running' || isTerminal(task.Status.State)) return [];
    if (view.get('service', task.ServiceID) && !view.get('revision', task.RevisionID)) {
      return [`task ${task.ID} is of revision ${task.RevisionID}, which is not in it`];
    }
    return task.NodeID !== undefined && !view.get('node', task.NodeID)
      ? [`task ${task.ID} runs on node ${task.NodeID}, which is not in it`]
      : [];
  });
}
