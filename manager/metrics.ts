/**
 * Metrics of a manager in prom-client's registry, with the names that Swarm's own have where it has one,
 * so that existing dashboards work. Gauges are read off the store when they are asked for; nothing is
 * counted twice.
 */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import { taskStates } from '../proto/task-state.ts';
import type { RaftStatus } from './raft/contract.ts';
import type { Store } from './store/store.ts';
import { kinds } from './store/tables.ts';

/** What the gauges are read from; undefined members: this node manages nothing now, has no networks between hosts. */
export interface MetricsSource {
  store(): Store | undefined;
  raft(): RaftStatus | undefined;
  networks(): NetworkSource | undefined;
}

/** How a node's networks between hosts stand. */
interface NetworkFigures {
  readonly networks: number;
  readonly services: number;
  readonly endpoints: number;
  readonly problems: number;
  readonly revision: number;
  readonly lagMs: number;
}

/** What its kernel counted. */
interface KernelFigures {
  readonly connections: Readonly<Record<(typeof destinations)[number], number>>;
  readonly drops: Readonly<Record<(typeof dropReasons)[number], number>>;
  readonly tracked: number;
  readonly trackedMax: number;
}

/** Networks between hosts, as this node's data plane tells of them. */
export interface NetworkSource {
  figures(): NetworkFigures;
  /** Asks the kernel. */
  kernelFigures(): Promise<KernelFigures>;
}

const destinations = ['virtual_address', 'published_port'] as const;
const dropReasons = ['stranger', 'unencrypted', 'isolated', 'refused'] as const;

export interface Metrics {
  readonly registry: Registry;
  /** Time from a proposal to its being applied here. */
  observeCommit(latencyMs: number): void;
  /** Time from a task's creation to its assignment to a node. */
  observeSchedulingDelay(delayMs: number): void;
  /** Time from an update's arrival at this node's data plane until its rules stood. */
  observeProgramming(tookMs: number): void;
  /** Time from a change's being applied by the leader to a node's word that its kernel holds it. */
  observeConvergence(tookMs: number): void;
}

const networkBuckets = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

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
  const programming = new Histogram({
    name: 'shoal_network_programming_seconds',
    help: 'From an update of networks arriving at this node to its rules standing in the kernel',
    buckets: networkBuckets,
    registers: [registry],
  });
  const convergence = new Histogram({
    name: 'shoal_network_convergence_seconds',
    help: 'On the leader: from a change being applied to a node confirming that its kernel holds it',
    buckets: networkBuckets,
    registers: [registry],
  });
  addRaftGauges(registry, source);
  addObjectGauges(registry, source);
  addNetworkGauges(registry, source);
  addKernelFigures(registry, source);
  return {
    registry,
    observeCommit: (latencyMs) => commit.observe(latencyMs / 1000),
    observeSchedulingDelay: (delayMs) => scheduling.observe(delayMs / 1000),
    observeProgramming: (tookMs) => programming.observe(tookMs / 1000),
    observeConvergence: (tookMs) => convergence.observe(tookMs / 1000),
  };
}

function addNetworkGauges(registry: Registry, source: MetricsSource): void {
  const gauge = (name: string, help: string, read: (figures: NetworkFigures) => number): void => {
    new Gauge({
      name,
      help,
      registers: [registry],
      collect() {
        const figures = source.networks()?.figures();
        this.set(figures ? read(figures) : 0);
      },
    });
  };
  gauge('shoal_network_networks', 'Networks between hosts that this node holds', (f) => f.networks);
  gauge('shoal_network_services', 'Services that the rules of this node know', (f) => f.services);
  gauge('shoal_network_endpoints', 'Tasks that the rules of this node lead to', (f) => f.endpoints);
  gauge('shoal_network_problems', 'What this node can not do of what the managers want', (f) => f.problems);
  gauge('shoal_network_revision', 'Revision of the last update that the kernel holds', (f) => f.revision);
  gauge(
    'shoal_network_reconcile_lag_seconds',
    'How long the oldest update waits that the kernel does not hold yet',
    (f) => f.lagMs / 1000,
  );
}

type ReadKernel = () => Promise<KernelFigures | undefined>;

/** What the kernel counted: it is asked once for all that are collected together. */
function addKernelFigures(registry: Registry, source: MetricsSource): void {
  let reading: Promise<KernelFigures | undefined> | undefined;
  const read: ReadKernel = () => {
    reading ??= Promise.resolve(source.networks()?.kernelFigures()).finally(() => {
      reading = undefined;
    });
    return reading;
  };
  addConnections(registry, read);
  addDrops(registry, read);
  const name = 'shoal_network_conntrack_entries';
  const now = async () => (await read())?.tracked ?? 0;
  const limit = async () => (await read())?.trackedMax ?? 0;
  addKernelGauge(registry, name, 'Connections that the kernel of this host tracks now', now);
  addKernelGauge(registry, `${name}_limit`, 'Connections that the kernel of this host can track', limit);
}

function addConnections(registry: Registry, read: ReadKernel): void {
  registry.registerMetric(
    new Counter({
      name: 'shoal_network_connections_total',
      help: 'Connections to virtual addresses and published ports that this node sent on, by which of them',
      labelNames: ['to'],
      registers: [],
      async collect() {
        const figures = await read();
        this.reset();
        for (const to of destinations) this.inc({ to }, figures?.connections[to] ?? 0);
      },
    }),
  );
}

function addDrops(registry: Registry, read: ReadKernel): void {
  registry.registerMetric(
    new Counter({
      name: 'shoal_network_drops_total',
      help: 'Packets that the rules of this node let go no further, by reason',
      labelNames: ['reason'],
      registers: [],
      async collect() {
        const figures = await read();
        this.reset();
        for (const reason of dropReasons) this.inc({ reason }, figures?.drops[reason] ?? 0);
      },
    }),
  );
}

function addKernelGauge(registry: Registry, name: string, help: string, read: () => Promise<number>): void {
  registry.registerMetric(
    new Gauge({
      name,
      help,
      registers: [],
      async collect() {
        this.set(await read());
      },
    }),
  );
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
