/**
 * Metrics of a manager in prom-client's registry, with the names that Swarm's own have where it has one,
 * so that existing dashboards work. Gauges are read off the store when they are asked for; nothing is
 * counted twice.
 */
import { Gauge, Histogram, Registry } from 'prom-client';
import { taskStates } from '../proto/task-state.ts';
import type { RaftStatus } from './raft/contract.ts';
import type { Store } from './store/store.ts';
import { kinds } from './store/tables.ts';

/** What the gauges are read from; undefined members: this node manages nothing now. */
export interface MetricsSource {
  store(): Store | undefined;
  raft(): RaftStatus | undefined;
}

export interface Metrics {
  readonly registry: Registry;
  /** Time from a proposal to its being applied here. */
  observeCommit(latencyMs: number): void;
  /** Time from a task's creation to its assignment to a node. */
  observeSchedulingDelay(delayMs: number): void;
}

const nodeStates = ['unknown', 'down', 'ready', 'disconnected'] as const;

/** Makes the registry of one daemon. */
export function createMetrics(source: MetricsSource): Metrics {
  const registry = new Registry();
  const commit = new Histogram({
    name: 'swarm_raft_transaction_latency_seconds',
    help: 'Raft transaction latency.',
    buckets: [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers: [registry],
  });
  const scheduling = new Histogram({
    name: 'swarm_dispatcher_scheduling_delay_seconds',
    help: 'Scheduling delay is the time a task takes to go from NEW to ASSIGNED state.',
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60],
    registers: [registry],
  });
  addRaftGauges(registry, source);
  addObjectGauges(registry, source);
  return {
    registry,
    observeCommit: (latencyMs) => commit.observe(latencyMs / 1000),
    observeSchedulingDelay: (delayMs) => scheduling.observe(delayMs / 1000),
  };
}

function addRaftGauges(registry: Registry, source: MetricsSource): void {
  const gauge = (name: string, help: string, read: (status: RaftStatus) => number): void => {
    new Gauge({
      name,
      help,
      registers: [registry],
      collect() {
        const status = source.raft();
        this.set(status ? read(status) : 0);
      },
    });
  };
  gauge('swarm_manager_leader', 'Indicates if this manager node is a leader', (s) =>
    s.role === 'leader' ? 1 : 0,
  );
  gauge('swarm_node_manager', 'Whether this node is a manager or not', () => 1);
  gauge('shoal_raft_term', 'Raft term', (s) => s.term);
  gauge('shoal_raft_commit_index', 'Index of the last committed log entry', (s) => s.commitIndex);
  gauge('shoal_raft_applied_index', 'Index of the last applied log entry', (s) => s.appliedIndex);
  gauge('shoal_raft_members', 'Members of the Raft group', (s) => s.members.length);
}

function addObjectGauges(registry: Registry, source: MetricsSource): void {
  const byState = (name: string, help: string, kind: 'node' | 'task'): void => {
    new Gauge({
      name,
      help,
      labelNames: ['state'],
      registers: [registry],
      collect() {
        const store = source.store();
        const states = kind === 'task' ? taskStates : nodeStates;
        for (const state of states) this.set({ state }, store ? countInState(store, kind, state) : 0);
      },
    });
  };
  byState('swarm_manager_nodes', 'The number of nodes', 'node');
  byState('swarm_manager_tasks_total', 'The number of tasks in the cluster object store', 'task');
  new Gauge({
    name: 'shoal_store_objects',
    help: 'Objects in the store, by kind',
    labelNames: ['kind'],
    registers: [registry],
    collect() {
      for (const kind of kinds) this.set({ kind }, source.store()?.count(kind) ?? 0);
    },
  });
  const totals = { service: 'services', network: 'networks', secret: 'secrets', config: 'configs' } as const;
  for (const [kind, plural] of Object.entries(totals)) {
    new Gauge({
      name: `swarm_manager_${plural}_total`,
      help: `The number of ${plural} in the cluster object store`,
      registers: [registry],
      collect() {
        this.set(source.store()?.count(kind as keyof typeof totals) ?? 0);
      },
    });
  }
}

function countInState(store: Store, kind: 'node' | 'task', state: string): number {
  if (kind === 'task') return store.find('task', 'state', state).length;
  return store.list('node').filter((node) => node.Status.State === state).length;
}
