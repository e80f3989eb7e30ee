/**
 * Waiting tasks as the scheduler takes them: those of one revision together, for they are alike in all that it asks,
 * and the groups that must share a data plane one after the other.
 */
import type { ServiceSpec, Task } from '../../proto/docker.ts';
import type { NetworkId, RevisionId } from '../../proto/ids.ts';
import { type Attachment, clusterAttachments, hasAddresses } from '../store/attachment.ts';
import type { View } from '../store/store.ts';
import { asksGeneric, checksOf } from './filters.ts';
import { type Demand, isWanted, type NodeTable } from './node-table.ts';

/** Tasks of one revision: alike in all that the scheduler asks. */
export interface Group {
  readonly revisionId: RevisionId;
  readonly spec: ServiceSpec;
  readonly demand: Demand;
  readonly asksGeneric: boolean;
  readonly attachments: readonly Attachment[];
  readonly tasks: Task[];
}

/** Whether the scheduler has something to decide about the task. */
function isWaiting(task: Task): boolean {
  return task.Status.State === 'pending' && isWanted(task);
}

/** The task as it is now, if it still waits for what its group asks for. */
export function stillWaiting(view: View, task: Task, group: Group): Task | undefined {
  const now = view.get('task', task.ID);
  if (now === task) return task;
  const isAlike = now?.RevisionID === group.revisionId && now.NodeID === task.NodeID;
  return now && isAlike && isWaiting(now) && hasAddresses(now, group.attachments) ? now : undefined;
}

/** The tasks that can be decided on, by revision: wanted, waiting, and with the addresses they need. */
export function groupByRevision(view: View, pending: readonly Task[], nodes: NodeTable): Group[] {
  const kinds = new Map<RevisionId, Group | undefined>();
  const groups = new Map<string, Group>();
  for (const task of pending) {
    const { RevisionID } = task;
    if (!isWaiting(task)) continue;
    if (!kinds.has(RevisionID)) kinds.set(RevisionID, emptyGroup(view, RevisionID, nodes));
    const kind = kinds.get(RevisionID);
    if (!kind || !hasAddresses(task, kind.attachments)) continue;
    // One that is bound to a node is alike only to those that are bound to the same.
    const key = task.Private.Home ? `${RevisionID} ${task.Private.Home} ${task.Slot}` : RevisionID;
    const group = groups.get(key);
    if (group) group.tasks.push(task);
    else groups.set(key, { ...kind, tasks: [task] });
  }
  return [...groups.values()];
}

function emptyGroup(view: View, revisionId: RevisionId, nodes: NodeTable): Group | undefined {
  const spec = view.get('revision', revisionId)?.Spec;
  if (!spec) return undefined;
  return {
    revisionId,
    spec,
    demand: nodes.demandOf(revisionId, spec),
    asksGeneric: asksGeneric(spec),
    attachments: clusterAttachments(view, spec),
    tasks: [],
  };
}

/**
 * Groups that share a network share a data plane, so those with the least choice of nodes go first.
 */
export function byNeed(view: View, nodes: NodeTable, groups: readonly Group[]): readonly Group[] {
  const isBound = (group: Group) => group.attachments.length > 0;
  if (groups.filter(isBound).length < 2) return groups;
  const choices = new Map(groups.map((group) => [group, isBound(group) ? choiceOf(view, nodes, group) : 0]));
  return [...groups].sort((a, b) => choices.get(a)! - choices.get(b)!);
}

/** Groups whose networks, each a link, make them share a data plane. One without networks stands alone. */
export interface Joined {
  readonly groups: Group[];
  readonly networks: NetworkId[];
}

export function joinedByNetworks(groups: readonly Group[]): Set<Joined> {
  const all = new Set<Joined>();
  const holders = new Map<NetworkId, Joined>();
  for (const group of groups) {
    const networks = group.attachments.map(({ network }) => network.ID);
    if (networks.length === 0) {
      all.add({ groups: [group], networks });
      continue;
    }
    const linked = new Set(networks.map((id) => holders.get(id)).filter((one) => one !== undefined));
    const parts = [...linked, { groups: [group], networks }];
    const joined: Joined = {
      groups: parts.flatMap((part) => part.groups),
      networks: [...new Set(parts.flatMap((part) => part.networks))],
    };
    for (const part of linked) all.delete(part);
    all.add(joined);
    for (const id of joined.networks) holders.set(id, joined);
  }
  return all;
}

function choiceOf(view: View, table: NodeTable, group: Group): number {
  const placement = group.spec.TaskTemplate.Placement;
  const isPicky = placement?.Constraints?.length || placement?.Platforms?.length;
  if (!isPicky && !group.spec.TaskTemplate.Resources?.Reservations) return table.nodes.size;
  try {
    const checks = checksOf({ view, table, task: group.tasks[0]!, spec: group.spec });
    const entries = [...table.nodes.values()];
    return entries.filter((entry) => checks.every((check) => check.passes(entry))).length;
  } catch {
    return 0;
  }
}
