import assert from 'node:assert/strict';
import fc from 'fast-check';
import { changesOfMoves, movesOf, rebalancer } from '../../../manager/scheduler/rebalance.ts';
import type { ServiceId, TaskId } from '../../../proto/ids.ts';
import { noIds, now, type SpecOver, World } from './world.ts';

const replicas = (Replicas: number, over: SpecOver = {}): SpecOver => ({
  ...over,
  Mode: { Replicated: { Replicas } },
});

function moves(world: World, service = 'web', most?: number): string[] {
  const found = movesOf(world.store, world.store.get('service', service as ServiceId)!, now, most);
  return found.map(({ from, to }) => `${from}>${to}`);
}

describe('rebalancing', () => {
  it('moves to a node that has joined until the spread is even, and no further', () => {
    const world = new World().node('h1').node('h2').service('web', replicas(6));
    for (let each = 0; each < 3; each += 1) world.running('web', 'h1').running('web', 'h2');
    assert.deepEqual(moves(world), []);
    world.node('h3');
    assert.deepEqual(moves(world).sort(), ['h1>h3', 'h2>h3']);
    assert.equal(moves(world, 'web', 1).length, 1);
  });

  it('counts all tasks where the service’s own say nothing', () => {
    const world = new World().node('h1').service('web', replicas(1)).service('db', replicas(2));
    world.running('web', 'h1').running('db', 'h1').running('db', 'h1').node('h2');
    assert.deepEqual(moves(world), ['h1>h2']);
    assert.deepEqual(moves(world, 'db'), ['h1>h2']);
  });

  it('evens preferences out before nodes', () => {
    const world = new World()
      .node('a1', { Spec: { Labels: { zone: 'a' } } })
      .node('a2', { Spec: { Labels: { zone: 'a' } } });
    const Preferences = [{ Spread: { SpreadDescriptor: 'node.labels.zone' } }];
    world.service('web', replicas(4, { TaskTemplate: { Placement: { Preferences } } }));
    for (let each = 0; each < 2; each += 1) world.running('web', 'a1').running('web', 'a2');
    world.node('b1', { Spec: { Labels: { zone: 'b' } } });
    assert.equal(moves(world).filter((move) => move.endsWith('>b1')).length, 2);
  });

  it('leaves nodes alone that can take none', () => {
    const world = new World().node('h1').service('web', replicas(4));
    for (let each = 0; each < 4; each += 1) world.running('web', 'h1');
    world.node('h2', { Spec: { Availability: 'pause' } }).node('h3', { Status: { State: 'down' } });
    assert.deepEqual(moves(world), []);
  });

  it('by itself for services that ask for it, within the budget, one step after the other', () => {
    const world = new World().node('h1').service('web', replicas(6, { Labels: { 'shoal.rebalance': '2' } }));
    world.service('db', replicas(6));
    for (let each = 0; each < 6; each += 1) world.running('web', 'h1').running('db', 'h1');
    world.node('h2');
    const reconciler = rebalancer();
    assert.deepEqual(reconciler.allKeys(world.store), ['web']);
    const first = reconciler.reconcile(world.store, 'web', now, noIds).changes;
    assert.equal(first.length, 2);
    world.apply(first);
    assert.deepEqual(reconciler.reconcile(world.store, 'web', now, noIds).changes, []);
  });

  it('decides from the table that followed the events as from one that is made anew', () => {
    const label = { Labels: { 'shoal.rebalance': '2' } };
    const world = new World().node('h1').node('h2').service('web', replicas(8, label));
    const following = rebalancer();
    world.store.onCommit((commit) => {
      assert.equal(commit.kind, 'changed');
      if (commit.kind === 'changed') for (const event of commit.events) following.keysFor(event, world.store);
    });
    const decided = () => {
      const { changes } = following.reconcile(world.store, 'web', now, noIds);
      assert.deepEqual(changes, rebalancer().reconcile(world.store, 'web', now, noIds).changes);
      return changes.length;
    };
    for (let each = 0; each < 8; each += 1) world.running('web', each % 2 === 0 ? 'h1' : 'h2');
    assert.equal(decided(), 0);
    world.node('h3');
    assert.equal(decided(), 2);
    assert.equal(decided(), 2, 'asking left the table as it was');
    world.node('h4').service('db', replicas(1)).running('db', 'h3');
    assert.equal(decided(), 2);
  });

  it('comes to rest, wherever tasks are', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 6 }), { minLength: 2, maxLength: 6 }), (counts) => {
        const total = counts.reduce((sum, count) => sum + count, 0);
        const world = new World().service('web', replicas(total));
        counts.forEach((count, at) => {
          world.node(`h${at}`);
          for (let each = 0; each < count; each += 1) world.running('web', `h${at}`);
        });
        const found = movesOf(world.store, world.store.get('service', 'web' as ServiceId)!, now);
        const after = [...counts];
        for (const { from, to } of found) {
          after[Number(from.slice(1))]! -= 1;
          after[Number(to.slice(1))]! += 1;
        }
        assert.ok(total === 0 || Math.max(...after) - Math.min(...after) <= 1, after.join(' '));
        world.apply(changesOfMoves(found));
        for (const { task, reason } of found) {
          assert.deepEqual(world.store.get('task', task.ID as TaskId)?.Private.Move, { Reason: reason });
        }
      }),
      { numRuns: 60 },
    );
  });
});
