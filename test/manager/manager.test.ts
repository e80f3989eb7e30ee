import assert from 'node:assert/strict';
import { keyFileState, openKeyFile } from '../../manager/raft/seal.ts';
import type { Change } from '../../manager/store/change.ts';
import { createServiceChanges } from '../../manager/store/service-change.ts';
import { Store } from '../../manager/store/store.ts';
import { isShoalError } from '../../proto/errors.ts';
import { newUnlockKey } from '../../proto/identity.ts';
import { asId, type Id, type NewId, type NodeId, newId, type SecretId } from '../../proto/ids.ts';
import { seededRandom } from '../simulation/random.ts';
import { type GroupSeat, ManagerGroup } from './manager-group.ts';
import { makeSpec } from './orchestrator/objects.ts';

const restart = { kind: 'restart' } as const;

function secret(id: string): Change {
  const meta = { Version: { Index: 0 }, CreatedAt: '', UpdatedAt: '' };
  return {
    op: 'create',
    kind: 'secret',
    object: { ...meta, ID: id as SecretId, Spec: { Name: id, Labels: {} } },
  };
}

describe('managers together', function () {
  this.timeout(60_000);
  let group: ManagerGroup;

  const setUp = async (count: number, tuning = {}): Promise<void> => {
    group = new ManagerGroup(tuning);
    await group.form(count);
  };
  const setRole = async (nodeId: string, Role: 'manager' | 'worker'): Promise<void> => {
    const node = group.leader().store.get('node', asId<NodeId>(nodeId))!;
    const fields = { Spec: { ...node.Spec, Role } };
    await group.wait(group.leader().propose([{ op: 'merge', kind: 'node', id: node.ID, fields }]));
  };
  const seatOf = (nodeId: string): GroupSeat => group.seats.find((seat) => seat.nodeId === nodeId)!;
  const members = () =>
    group
      .leader()
      .raft.status()
      .members.map(({ nodeId }) => nodeId)
      .sort();

  afterEach(() => group.stop());

  it('open the leader’s rooms on one of them only, and on the next when that is lost', async () => {
    await setUp(3);
    const leading = () => group.seats.filter(({ manager }) => manager?.leading()).map(({ nodeId }) => nodeId);
    assert.deepEqual(leading(), ['node1']);
    group.kill(seatOf('node1'));
    await group.until(() => group.hasLeader(), 'another leads');
    assert.equal(leading().length, 1);
    await group.wait(group.leader().propose([secret('after')]));
    await group.start(seatOf('node1'), restart);
    const back = seatOf('node1').manager!;
    await group.wait(back.readBarrier());
    assert.ok(back.store.get('secret', 'after' as SecretId));
    assert.equal(back.leading(), undefined);
  });

  it('give services that are made on all of them at once addresses and ports of their own', async () => {
    await setUp(3);
    const [ingress] = group.leader().store.list('network');
    assert.deepEqual(ingress?.IPAMOptions.Configs, [{ Subnet: '10.0.0.0/24', Gateway: '10.0.0.1' }]);
    const random = seededRandom(9);
    const makeId: NewId = <I extends Id<string>>() => newId<I>(random);
    const proposals = group.seats.flatMap(({ manager }) =>
      [1, 2, 3].map(() => {
        const spec = makeSpec({ Name: makeId(), EndpointSpec: { Ports: [{ TargetPort: 80 }] } });
        return manager!.propose(createServiceChanges(spec, 0, makeId).changes);
      }),
    );
    await group.wait(Promise.all(proposals));
    const endpoints = group
      .leader()
      .store.list('service')
      .map((service) => service.Endpoint);
    const vips = endpoints.flatMap(({ VirtualIPs }) => VirtualIPs?.map(({ Addr }) => Addr) ?? []);
    const ports = endpoints.flatMap(({ Ports }) => Ports?.map((port) => port.PublishedPort) ?? []);
    assert.deepEqual([vips.length, new Set(vips).size], [9, 9]);
    assert.deepEqual([ports.length, new Set(ports).size], [9, 9]);
  });

  it('close them on a leader that is cut off, which can write nothing more', async () => {
    await setUp(3);
    const old = group.leader();
    group.cut.add(seatOf('node1').address);
    await group.until(() => old.leading() === undefined && group.hasLeader(), 'it steps down');
    await assert.rejects(group.wait(old.propose([secret('lost')])), (error) =>
      isShoalError(error, 'no-quorum'),
    );
    group.cut.clear();
    await group.wait(old.readBarrier());
    assert.equal(old.store.get('secret', 'lost' as SecretId), undefined);
  });

  it('give a backup of all that was acknowledged, from whichever is asked, or none', async () => {
    await setUp(3);
    const behind = seatOf('node3');
    group.cut.add(behind.address);
    await group.wait(group.leader().propose([secret('acknowledged')]));
    await assert.rejects(group.wait(behind.manager!.stateForBackup()), isShoalError);
    group.cut.clear();
    const { facts, state } = await group.wait(behind.manager!.stateForBackup());
    const store = new Store();
    store.restore(facts.index, Buffer.concat([...state]));
    assert.ok(store.get('secret', 'acknowledged' as SecretId));
    assert.equal(facts.members.length, 3);
  });

  it('keep each node’s ManagerStatus in step with the group', async () => {
    await setUp(3);
    const status = (id: string) => group.leader().store.get('node', asId<NodeId>(id))?.ManagerStatus;
    await group.until(() => status('node3')?.Reachability === 'reachable', 'all are there');
    assert.equal(status('node1')?.Leader, true);
    assert.equal(status('node2')?.Leader, undefined);
    group.kill(seatOf('node3'));
    await group.until(() => status('node3')?.Reachability === 'unreachable', 'it is missed');
    await group.start(seatOf('node3'), restart);
    await group.until(() => status('node3')?.Reachability === 'reachable', 'it is back');
  });

  it('take out one that is demoted, the leader too, once it has handed over', async () => {
    await setUp(3);
    await setRole('node2', 'worker');
    await group.until(() => members().length === 2, 'it is out');
    await group.until(() => seatOf('node2').manager?.raft.status().role === 'removed', 'it knows');
    await group.join('node4');
    await setRole('node1', 'worker');
    await group.until(() => group.hasLeader() && group.leader().nodeId !== 'node1', 'another leads');
    await group.until(() => members().length === 2, 'the old leader is out');
    const node = group.leader().store.get('node', asId<NodeId>('node1'))!;
    await group.until(
      () => group.leader().store.get('node', node.ID)?.Private.Role === 'worker',
      'its certificate may change',
    );
    assert.deepEqual(members(), ['node3', 'node4']);
  });

  it('take out a member whose node was removed', async () => {
    await setUp(3);
    group.kill(seatOf('node3'));
    const id = asId<NodeId>('node3');
    await group.wait(group.leader().propose([{ op: 'remove', kind: 'node', id }]));
    await group.until(() => members().length === 2, 'it is out');
  });

  it('admit only who is to be a manager, and one that comes back empty under a new number', async () => {
    await setUp(2);
    const refused = (nodeId: string) =>
      assert.rejects(group.wait(group.leader().admit(nodeId, '10.0.0.9:2377')), (error) =>
        isShoalError(error, 'permission-denied'),
      );
    await refused('stranger');
    const seat = await group.join('node3');
    const before = seat.manager!.raft.status().raftId;
    await group.wait(seat.manager!.stop({ orderly: false }));
    seat.manager = undefined;
    const { raftId } = await group.wait(group.leader().admit('node3', seat.address));
    assert.notEqual(raftId, before);
    assert.deepEqual(members(), ['node1', 'node2', 'node3']);
    await setRole('node3', 'worker');
    await group.until(() => members().length === 2, 'it is out');
    await refused('node3');
  });

  it('recover from the loss of a quorum with one of them: the others are workers', async () => {
    await setUp(3);
    await group.wait(group.leader().propose([secret('kept')]));
    for (const seat of group.seats) group.kill(seat);
    const seat = seatOf('node1');
    const self = { raftId: 1, nodeId: 'node1', address: seat.address };
    const alone = await group.start(seat, { kind: 'force-new-cluster', self });
    await group.until(() => alone.leading() !== undefined, 'it leads alone');
    await group.wait(alone.forgetOtherManagers());
    const roles = alone.store.list('node').map((node) => [node.ID, node.Spec.Role]);
    assert.deepEqual(roles, [
      ['node1', 'manager'],
      ['node2', 'worker'],
      ['node3', 'worker'],
    ]);
    assert.ok(alone.store.get('secret', 'kept' as SecretId));
    await group.join('node4');
    assert.deepEqual(members(), ['node1', 'node4']);
  });

  it('do not make a cluster of one that has not got the state yet', async () => {
    await setUp(1);
    const seat = group.seat('node2');
    const { address } = seatOf('node1');
    const self = { raftId: 2, nodeId: 'node2', address: seat.address };
    const members = [{ raftId: 1, nodeId: 'node1', address }, self];
    const joiner = await group.start(seat, { kind: 'join', self, members });
    assert.throws(
      () => joiner.refuseWithoutState(),
      (error) =>
        isShoalError(error, 'failed-precondition') && /still receiving.*another manager/.test(error.message),
    );
    group.leader().refuseWithoutState();
  });

  it('bring one that is far behind up by a snapshot, and it leads as well as any', async () => {
    await setUp(3, { snapshotEntries: 20, keepEntries: 5 });
    const lagging = seatOf('node3');
    group.cut.add(lagging.address);
    const ids: NewId = <I extends Id<string>>() => newId<I>(group.random);
    for (let number = 0; number < 60; number += 1) {
      await group.wait(group.leader().propose([secret(`s${number}`)]));
    }
    const spec = makeSpec({ Mode: { Replicated: { Replicas: 4 } } });
    const { changes } = createServiceChanges(spec, group.clock.now(), ids);
    await group.wait(group.leader().propose(changes));
    await group.until(() => group.leader().store.count('task') === 4, 'tasks are made');
    let restored = 0;
    lagging.manager!.store.onCommit((commit) => {
      if (commit.kind === 'restored') restored += 1;
    });
    group.cut.clear();
    await group.until(() => lagging.manager!.store.count('task') === 4, 'it caught up');
    assert.ok(restored > 0, 'by a snapshot');
    // It is made to lead, and decides on what it was given.
    const { raftId: from, term } = group.leader().raft.status();
    const to = lagging.manager!.raft.status().raftId;
    lagging.manager!.raft.receive({ type: 'MsgTimeoutNow', from, to, term });
    await group.until(() => lagging.manager!.leading() !== undefined, 'it leads');
    const service = lagging.manager!.store.list('service')[0]!;
    const Spec = { ...service.Spec, Mode: { Replicated: { Replicas: 6 } } };
    await group.wait(
      lagging.manager!.propose([{ op: 'update', kind: 'service', object: { ...service, Spec } }]),
    );
    await group.until(() => lagging.manager!.store.count('task') === 6, 'it goes on');
    const slots = lagging.manager!.store.list('task').map((task) => task.Slot);
    assert.equal(new Set(slots).size, 6);
  });

  describe('with autolock', () => {
    const lock = async (UnlockKey: string | undefined): Promise<void> => {
      const cluster = group.leader().store.cluster()!;
      const { UnlockKey: _, ...rest } = cluster.Private;
      const Private = { ...rest, ...(UnlockKey === undefined ? {} : { UnlockKey }) };
      await group.wait(
        group.leader().propose([{ op: 'merge', kind: 'cluster', id: cluster.ID, fields: { Private } }]),
      );
      await group.clock.run(100);
    };

    it('seal their data keys, and log under one that never lay in the clear', async () => {
      await setUp(2);
      const key = newUnlockKey(group.random);
      const before = group.seats.map(({ dataKeys }) => dataKeys!.keys.get(dataKeys!.current));
      await lock(key);
      for (const [at, seat] of group.seats.entries()) {
        assert.equal(await group.wait(keyFileState(seat.disk)), 'locked');
        const { current, keys } = await group.wait(openKeyFile(seat.disk, key));
        assert.ok(!Buffer.from(keys.get(current)!).equals(before[at]!), 'the key is a new one');
        assert.equal(seat.dataKeys!.current, current, 'the running log uses it');
      }
      await group.wait(group.leader().propose([secret('sealed')]));
      const seat = seatOf('node2');
      group.kill(seat);
      const back = await group.start(seat, restart, { unlockKey: key });
      await group.wait(back.readBarrier());
      assert.ok(back.store.get('secret', 'sealed' as SecretId));
      await lock(undefined);
      assert.equal(await group.wait(keyFileState(seat.disk)), 'open');
    });

    it('one that was down while the key was rotated opens with the old one, and takes the new one', async () => {
      await setUp(3);
      const [old, next] = [newUnlockKey(group.random), newUnlockKey(group.random)];
      await lock(old);
      const seat = seatOf('node3');
      group.kill(seat);
      await lock(next);
      await assert.rejects(group.wait(openKeyFile(seat.disk, next)), (error) =>
        isShoalError(error, 'locked'),
      );
      const back = await group.start(seat, restart, { unlockKey: old });
      await group.wait(back.readBarrier());
      await group.clock.run(100);
      await group.wait(openKeyFile(seat.disk, next));
    });

    it('one that restarts never unseals its keys for what the store was long ago', async () => {
      await setUp(2);
      const key = newUnlockKey(group.random);
      await lock(key);
      for (const seat of group.seats) group.kill(seat);
      const seat = seatOf('node1');
      await group.start(seat, restart, { unlockKey: key });
      await group.clock.run(5_000);
      assert.equal(await group.wait(keyFileState(seat.disk)), 'locked');
    });
  });
});
