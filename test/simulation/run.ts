/**
 * One run of the simulated cluster from one seed: it begins, has users and faults for a while, is put right, and has
 * to come to rest as asked. The same seed gives the same run.
 */
import type { Change } from '../../manager/store/change.ts';
import { updateServiceChanges } from '../../manager/store/service-change.ts';
import type { View } from '../../manager/store/store.ts';
import type { Service } from '../../proto/docker.ts';
import { messageOf } from '../../proto/errors.ts';
import type { Id } from '../../proto/ids.ts';
import { newId } from '../../proto/ids.ts';
import { type ClusterOptions, SimulatedCluster } from './cluster.ts';
import { differences } from './converged.ts';
import { Faults } from './faults.ts';
import type { Violation } from './invariants.ts';
import type { Kinds } from './kinds/kinds.ts';
import { cronLabel, periodMsOf, seldom } from './kinds/specs.ts';
import { linearizabilityFault } from './linearizability.ts';
import { Reasons } from './reasons.ts';
import { hopelessLabel } from './specs.ts';
import { Workload } from './workload.ts';

export interface RunReport {
  readonly seed: number;
  readonly violation: Violation | undefined;
  /** The same for every run of the same seed. */
  readonly hash: string;
  readonly lastLines: readonly string[];
  /** Virtual time, entries and requests, to see that something happened. */
  readonly virtualMs: number;
  readonly entries: number;
  readonly done: number;
  readonly unknown: number;
  /** How often each kind of fault was done. */
  readonly faults: Readonly<Record<string, number>>;
  /** At how many looks a task had a reason, and at how many it was taking a step. */
  readonly told: Readonly<Reasons['counts']>;
  /** What jobs, schedules and scaling came to, in runs about them. */
  readonly kinds: Readonly<Kinds['counts']> | undefined;
}

/** Everything that was asked has to be so within this virtual time after the faults. */
const convergenceBoundMs = 180_000;
/** And every manager answers a read within this. */
const readBoundMs = 10_000;
/** Then nothing may be proposed any more for so long. */
const restMs = 2_500;
/** Where something is scaled by what is measured now and then, for so long. */
const scaledRestMs = 16_000;
/** Schedules go on for so long after the faults. */
const scheduledMs = 14_000;
const longLifeNs = 90 * 86_400_000 * 1e6;

/** Runs one seed. Never throws for what the cluster does: that is in the report. */
export async function runSeed(options: ClusterOptions): Promise<RunReport> {
  const cluster = new SimulatedCluster(options);
  const { invariants, trace, clock } = cluster;
  const workload = new Workload(cluster);
  const faults = new Faults(cluster);
  await cluster.begin();
  if (cluster.leader() === undefined) invariants.violate('converges', 'the cluster did not form');
  if (options.plant?.weather) cluster.network.weather = options.plant.weather;
  workload.start(cluster.scope.clients);
  faults.start();
  const reasons = new Reasons(cluster);
  if (cluster.scope.hasServices) reasons.start();
  cluster.kinds?.start();
  await cluster.pass(cluster.scope.faultsMs);
  workload.stop();
  faults.healAll();
  if (cluster.kinds) {
    cluster.kinds.load.hold();
    await cluster.pass(scheduledMs);
  }
  await settle(cluster);
  if (invariants.violation === undefined) await everyManagerAnswers(cluster);
  if (invariants.violation === undefined) checkHistory(cluster, workload);
  return {
    seed: options.seed,
    violation: invariants.violation,
    hash: trace.hash,
    lastLines: [...trace.lastLines],
    virtualMs: clock.monotonicMs(),
    entries: invariants.lastIndex,
    done: workload.counts.done,
    unknown: workload.counts.unknown,
    faults: faults.done,
    told: reasons.counts,
    kinds: cluster.kinds?.counts,
  };
}

async function settle(cluster: SimulatedCluster): Promise<void> {
  const { invariants, clock } = cluster;
  let isAsking = false;
  let nextLookMs = 0;
  const isSettled = (): boolean => {
    if (clock.monotonicMs() < nextLookMs) return false;
    nextLookMs = clock.monotonicMs() + 200;
    const nodes = cluster.leader()?.manager.store.list('node') ?? [];
    // A request that was under way may still take a node out of service.
    if (
      nodes.some((node) => node.Spec.Availability !== 'active') ||
      livesShortly(cluster) ||
      runsOften(cluster)
    ) {
      if (!isAsking) {
        isAsking = true;
        putInOrder(cluster)
          .catch(() => {})
          .finally(() => {
            isAsking = false;
          });
      }
      return false;
    }
    return !isAsking && differences(cluster).length === 0;
  };
  const endMs = clock.monotonicMs() + convergenceBoundMs;
  for (;;) {
    if (!(await cluster.passUntil(isSettled, endMs - clock.monotonicMs()))) {
      const left = differences(cluster).join('; ');
      invariants.violate(
        'converges',
        `${convergenceBoundMs / 1000} s after everything was put right: ${left}`,
      );
      return;
    }
    const { lastIndex } = invariants;
    await cluster.pass(cluster.kinds ? scaledRestMs : restMs);
    if (invariants.lastIndex === lastIndex || hasHopeless(cluster)) break;
    if (clock.monotonicMs() >= endMs) {
      invariants.violate(
        'comes-to-rest',
        `entries are written without end, ${invariants.lastIndex - lastIndex} in ${restMs} ms`,
      );
      return;
    }
  }
  for (const { machine, manager } of cluster.managers()) {
    invariants.compareStore(machine, manager.store, manager.store.index);
  }
}

/** Nobody waits for ever: every manager answers a read. */
async function everyManagerAnswers(cluster: SimulatedCluster): Promise<void> {
  const silent = new Set(cluster.managers().map(({ machine }) => machine));
  for (const { machine } of cluster.managers()) {
    cluster
      .ask(cluster.machine(machine), (manager) => manager.readBarrier())
      .then(() => silent.delete(machine))
      .catch(() => {});
  }
  await cluster.passUntil(() => silent.size === 0, readBoundMs);
  if (silent.size > 0)
    cluster.invariants.violate('everyone-answers', `${[...silent].join(', ')} answers no read in the end`);
}

/** Whether certificates are renewed so often that the log never rests. */
function livesShortly(cluster: SimulatedCluster): boolean {
  const expiry = cluster.leader()?.manager.store.cluster()?.Spec.CAConfig.NodeCertExpiry;
  return expiry !== undefined && expiry < longLifeNs;
}

/** Jobs that run by a schedule every now and then. */
function oftenRun(store: View): Service[] {
  return store.list('service').filter(({ Spec }) => periodMsOf(Spec.Labels[cronLabel]) !== undefined);
}

function runsOften(cluster: SimulatedCluster): boolean {
  const store = cluster.kinds && cluster.leader()?.manager.store;
  return store !== undefined && oftenRun(store).length > 0;
}

/** Every node is to take tasks again, so that all that was asked for can be; and certificates are to last. */
async function putInOrder(cluster: SimulatedCluster): Promise<void> {
  const leader = cluster.leader();
  if (leader === undefined) return;
  await cluster.ask(cluster.machine(leader.machine), async (manager) => {
    await manager.readBarrier();
    const changes = manager.store.list('node').flatMap((node): Change[] => {
      if (node.Spec.Availability === 'active') return [];
      const Spec = { ...node.Spec, Availability: 'active' as const };
      return [{ op: 'update', kind: 'node', object: { ...node, Spec } }];
    });
    const object = manager.store.cluster();
    if (object && livesShortly(cluster)) {
      const Spec = { ...object.Spec, CAConfig: { NodeCertExpiry: longLifeNs } };
      changes.push({ op: 'merge', kind: 'cluster', id: object.ID, fields: { Spec } });
    }
    for (const service of cluster.kinds ? oftenRun(manager.store) : []) {
      const Labels = { ...service.Spec.Labels, [cronLabel]: seldom };
      const update = { spec: { ...service.Spec, Labels } };
      const makeId = <I extends Id<string>>(): I => newId<I>(cluster.random);
      changes.push(
        ...updateServiceChanges(manager.store, service, update, cluster.clock.now(), makeId).changes,
      );
    }
    if (changes.length > 0) await manager.propose(changes);
  });
}

function hasHopeless(cluster: SimulatedCluster): boolean {
  const services = cluster.leader()?.manager.store.list('service') ?? [];
  return services.some(({ Spec: { Labels } }) =>
    cluster.kinds ? Labels[hopelessLabel] !== undefined : Object.keys(Labels).length > 0,
  );
}

function checkHistory(cluster: SimulatedCluster, workload: Workload): void {
  const { invariants } = cluster;
  const store = cluster.leader()!.manager.store;
  for (const { kind, id, index } of workload.acknowledged.values()) {
    const object = store.get(kind, id as never);
    if (object === undefined ? !workload.mayBeGone.has(id) : object.Version.Index < index) {
      invariants.violate(
        'acknowledged-kept',
        `${kind} ${id}, acknowledged at index ${index}, is ${object ? `at ${object.Version.Index}` : 'gone'}`,
      );
      return;
    }
  }
  try {
    const fault = linearizabilityFault(workload.operations, workload.initial);
    if (fault !== undefined) invariants.violate('linearizable', fault);
  } catch (error) {
    invariants.violate('nothing-thrown', `the checker: ${messageOf(error)}`);
  }
}
