/** A stack, from its file to assigned tasks, through the loop that runs on the leader. */
import assert from 'node:assert/strict';
import { allocate, networkReconciler } from '../../../manager/allocator/allocate.ts';
import { ReconcileLoop } from '../../../manager/orchestrator/loop.ts';
import { reconcilers } from '../../../manager/orchestrator/orchestrator.ts';
import { schedulerReconciler } from '../../../manager/scheduler/schedule.ts';
import { planStack, removeStack } from '../../../manager/stack/plan.ts';
import type { Change } from '../../../manager/store/change.ts';
import { Store } from '../../../manager/store/store.ts';
import { engineIdLabel, type Task } from '../../../proto/docker.ts';
import { type Id, type NewId, newId } from '../../../proto/ids.ts';
import { delay, silentLog } from '../../../proto/ports.ts';
import { VirtualClock } from '../../simulation/clock.ts';
import { seededRandom } from '../../simulation/random.ts';
import { makeCluster, makeNode } from '../orchestrator/objects.ts';
import { compile, web } from './files.ts';

class Cluster {
  readonly store = new Store();
  readonly clock = new VirtualClock();
  proposals = 0;
  private readonly random = seededRandom(5);
  private readonly loop = new ReconcileLoop({
    store: this.store,
    propose: async (changes) => {
      await delay(this.clock, 1);
      this.proposals += 1;
      return this.apply(changes);
    },
    clock: this.clock,
    random: this.random,
    log: silentLog,
    reconcilers: [networkReconciler(), ...reconcilers, schedulerReconciler()],
    finish: allocate,
  });

  constructor(nodes: readonly string[], engine?: string) {
    const Labels = engine === undefined ? {} : { [engineIdLabel]: engine };
    this.apply([
      { op: 'create', kind: 'cluster', object: makeCluster() },
      ...nodes.map(
        (id): Change => ({
          op: 'create',
          kind: 'node',
          object: makeNode(id, { Description: { Engine: { Labels } } }),
        }),
      ),
    ]);
    this.loop.start();
  }

  readonly newId: NewId = <I extends Id<string>>() => newId<I>(this.random);

  apply(changes: readonly Change[]): number {
    const index = this.store.index + 1;
    assert.deepEqual(this.store.applyEntry(index, { now: this.clock.now(), changes }), { ok: true });
    return index;
  }

  deploy(content: string): void {
    const compiled = compile(content);
    const options = { prune: true, now: this.clock.now(), newId: this.newId };
    this.apply(planStack(this.store, 'app', compiled, compiled.source, options).changes);
  }

  /** Lets the loop do all that it finds to do. */
  async rest(): Promise<void> {
    for (let before = -1; before !== this.proposals; ) {
      before = this.proposals;
      await this.clock.run(1000);
    }
  }

  tasks(service: string): Task[] {
    return this.store.find('task', 'service', this.store.find('service', 'name', service)[0]?.ID ?? '');
  }

  stop(): Promise<void> {
    return this.loop.stop();
  }
}

describe('stack: from its file to its tasks', () => {
  let cluster: Cluster;
  afterEach(() => cluster.stop());

  it('every task gets a node and an address of its own', async () => {
    cluster = new Cluster(['h1', 'h2', 'h3'], 'shared');
    cluster.deploy(`${web('deploy: {replicas: 6}')}\n  agent: {image: a, deploy: {mode: global}}`);
    await cluster.rest();
    const tasks = cluster.store.list('task');
    assert.equal(tasks.length, 9);
    assert.ok(tasks.every((task) => task.Status.State === 'assigned' && task.NodeID));
    const counts = ['h1', 'h2', 'h3'].map((id) => tasks.filter((task) => task.NodeID === id).length);
    assert.deepEqual(counts, [3, 3, 3]);
    const addresses = tasks.flatMap(
      (task) => task.NetworksAttachments?.flatMap((one) => one.Addresses) ?? [],
    );
    assert.equal(new Set(addresses).size, 9);
    assert.ok(addresses.every((address) => address.startsWith('10.0.1.')));
    assert.ok(cluster.proposals <= 6, `${cluster.proposals} proposals`);
  });

  it('a failed task is followed by one with another address, and nothing else moves', async () => {
    cluster = new Cluster(['h1', 'h2'], 'shared');
    cluster.deploy(web('deploy: {replicas: 2, restart_policy: {delay: 0s}}'));
    await cluster.rest();
    const [failed, other] = cluster.tasks('app_web');
    const Status = {
      ...failed!.Status,
      State: 'failed',
      Timestamp: new Date(cluster.clock.now()).toISOString(),
    } as const;
    cluster.apply([{ op: 'merge', kind: 'task', id: failed!.ID, fields: { Status } }]);
    await cluster.rest();
    const next = cluster
      .tasks('app_web')
      .find((task) => task.Slot === failed!.Slot && task.ID !== failed!.ID);
    assert.equal(next?.Status.State, 'assigned');
    assert.deepEqual(
      [failed, other, next].map((task) => task?.NetworksAttachments?.[0]?.Addresses[0]),
      // The service itself has the first, the two nodes those between.
      ['10.0.1.3/24', '10.0.1.4/24', '10.0.1.7/24'],
    );
    assert.equal(cluster.store.get('task', other!.ID)?.Version.Index, other!.Version.Index);
  });

  it('on engines of their own the tasks of a network stay together, and move together when their node is lost', async () => {
    cluster = new Cluster(['h1', 'h2']);
    cluster.deploy(`${web('deploy: {replicas: 3}')}\n  db: {image: d}`);
    await cluster.rest();
    const live = () => cluster.store.list('task').filter((task) => task.DesiredState === 'running');
    const [home] = new Set(live().map((task) => task.NodeID));
    assert.ok(home);
    assert.ok(live().length === 4 && live().every((task) => task.NodeID === home));
    const node = cluster.store.get('node', home)!;
    cluster.apply([
      { op: 'merge', kind: 'node', id: home, fields: { Status: { ...node.Status, State: 'down' } } },
    ]);
    await cluster.rest();
    assert.equal(live().length, 4);
    assert.ok(live().every((task) => task.NodeID !== undefined && task.NodeID !== home));
  });

  it('removed, it leaves nothing that waits', async () => {
    cluster = new Cluster(['h1']);
    cluster.deploy(web('deploy: {replicas: 2, placement: {constraints: [node.role == manager]}}'));
    await cluster.rest();
    assert.match(
      cluster.tasks('app_web')[0]?.Status.Err ?? '',
      /placement constraint not satisfied on 1 node/,
    );
    cluster.apply(removeStack(cluster.store, 'app').changes);
    await cluster.rest();
    for (const kind of ['task', 'service', 'revision', 'network', 'stack'] as const) {
      assert.equal(cluster.store.count(kind), 0, kind);
    }
  });
});
