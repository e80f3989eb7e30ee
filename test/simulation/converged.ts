/** Whether a cluster, left alone, has come to what is asked of it; in words, what is not yet so. */
import { taskIdLabel } from '../../agent/engine/container-spec.ts';
import { isKnown } from '../../manager/ca/returning.ts';
import { makeContext } from '../../manager/orchestrator/context.ts';
import type { Store } from '../../manager/store/store.ts';
import { slotKey } from '../../manager/store/tables.ts';
import type { Service, Task } from '../../proto/docker.ts';
import { simulatedAuthority } from './certificates.ts';
import type { SimulatedCluster } from './cluster.ts';
import { isWanted, short } from './invariants.ts';
import type { Machine } from './machine.ts';
import { hopelessLabel, stuckHopes } from './specs.ts';

/** A certificate that lasts this long is not renewed while a run comes to rest. */
const longMs = 86_400_000;

/** What differs still from what is asked; empty when nothing does. */
export function differences(cluster: SimulatedCluster): string[] {
  const leader = cluster.leader();
  if (leader === undefined) return ['no manager leads'];
  const { store } = leader.manager;
  return [
    ...managersOf(cluster, store),
    ...cluster.machines.flatMap((machine) => ofNode(cluster, store, machine)),
    ...store
      .list('node')
      .flatMap((node) =>
        node.Status.State === 'ready' && !node.Status.Message
          ? []
          : [`node ${short(node.ID)} is ${node.Status.State} ${node.Status.Message ?? ''}`],
      ),
    ...store
      .list('service')
      .flatMap((service) => cluster.kinds?.differences(store, service) ?? ofService(store, service)),
    ...store.list('task').flatMap((task) => ofTask(store, task)),
    ...cluster.machines.flatMap((machine) => ofEngine(store, machine)),
  ];
}

function ofNode({ clock }: SimulatedCluster, store: Store, { name, nodeId, shown }: Machine): string[] {
  const node = store.get('node', nodeId);
  if (!node) return [`${name} is no node of the cluster`];
  if (shown === undefined) return [];
  const { certificatePem } = shown;
  const { notAfterMs } = simulatedAuthority.read(certificatePem);
  return [
    ...(notAfterMs > clock.now() + longMs ? [] : [`the certificate of ${name} is to be renewed soon`]),
    // Not only the last one: the answer to the node's last request may have been lost.
    ...(isKnown(store.cluster()!, node, certificatePem, simulatedAuthority)
      ? []
      : [`the cluster does not know the certificate that ${name} holds`]),
  ];
}

function managersOf(cluster: SimulatedCluster, store: Store): string[] {
  const { members, appliedIndex: wantedIndex } = cluster.leader()!.manager.raft.status();
  const wanted = store.find('node', 'role', 'manager').map((node) => node.ID as string);
  const voting = members.filter((member) => !member.isLearner).map((member) => member.nodeId);
  const different = [
    ...wanted
      .filter((id) => !voting.includes(id))
      .map((id) => `${short(id)} is to be a manager and does not vote`),
    ...members
      .filter(({ nodeId }) => !wanted.includes(nodeId))
      .map(({ nodeId }) => `${short(nodeId)} is a member still`),
  ];
  for (const { machine, manager } of cluster.managers()) {
    // Not the stores' own: one that came by a snapshot counts the empty entries before it.
    const { role, appliedIndex } = manager.raft.status();
    if (role === 'removed') different.push(`${machine} was removed and runs still`);
    else if (appliedIndex !== wantedIndex)
      different.push(`${machine} is at ${appliedIndex} of ${wantedIndex}`);
  }
  return different;
}

function ofService(store: Store, service: Service): string[] {
  const name = `service ${service.Spec.Name}`;
  const state = service.UpdateStatus?.State;
  if (stuckHopes.has(service.Spec.Labels[hopelessLabel] ?? '')) return [];
  if (state === 'updating' || state === 'rollback_started') return [`${name} is ${state}`];
  if (service.Spec.Labels[hopelessLabel]) return [];
  const running = store
    .find('task', 'service', service.ID)
    .filter(
      (task) =>
        task.DesiredState === 'running' && task.Status.State === 'running' && isOnReadyNode(store, task),
    );
  const slots = new Set(running.map((task) => slotKey(task)));
  const wanted = service.Spec.Mode.Global
    ? eligibleNodes(store)
    : (service.Spec.Mode.Replicated?.Replicas ?? 1);
  const { isDirty } = makeContext(store, service, 0, noNewId);
  const stale = running.filter((task) => isDirty(task));
  const isSettled = state === undefined || state.endsWith('completed');
  return [
    ...(slots.size === wanted && running.length === wanted
      ? []
      : [`${name} has ${running.length} of ${wanted} tasks`]),
    ...(isSettled && stale.length > 0 ? [`${name} has ${stale.length} tasks of another revision`] : []),
  ];
}

const noNewId = (): never => {
  throw new Error('nothing is to be made');
};

/** A paused node keeps the task it has, and gets none: either is right. */
function eligibleNodes(store: Store): number {
  return store.list('node').filter((node) => node.Spec.Availability === 'active').length;
}

function isOnReadyNode(store: Store, task: Task): boolean {
  return store.get('node', task.NodeID)?.Status.State === 'ready';
}

function ofTask(store: Store, task: Task): string[] {
  const service = store.get('service', task.ServiceID);
  if (service === undefined) return [`task ${short(task.ID)} of a removed service is there still`];
  return [];
}

function ofEngine(store: Store, machine: Machine): string[] {
  const different: string[] = [];
  const running = new Set<string>();
  for (const { taskId, isRunning } of containersOf(machine)) {
    const task = store.list('task').find(({ ID }) => ID === taskId);
    if (task === undefined)
      different.push(`${machine.name} has a container of task ${short(taskId)}, which is no more`);
    if (isRunning) {
      running.add(taskId);
      if (task && !isWanted(task))
        different.push(
          `${machine.name} runs task ${short(taskId)}, which is ${task.Status.State} and to be ${task.DesiredState}`,
        );
    }
  }
  for (const task of store.find('task', 'node', machine.nodeId)) {
    if (task.Status.State === 'running' && isWanted(task) && !running.has(task.ID)) {
      different.push(`task ${short(task.ID)} is said to run on ${machine.name} and does not`);
    }
  }
  return different;
}

function containersOf(machine: Machine): { taskId: string; isRunning: boolean }[] {
  return machine.engine.states().map(({ labels, phase }) => ({
    taskId: labels[taskIdLabel] ?? '',
    isRunning: phase === 'running',
  }));
}
