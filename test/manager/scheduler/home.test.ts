import assert from 'node:assert/strict';
import { NodeTable } from '../../../manager/scheduler/node-table.ts';
import { schedule } from '../../../manager/scheduler/schedule.ts';
import type { NodeId } from '../../../proto/ids.ts';
import { now, World } from './world.ts';

function run(world: World): void {
  const pending = world.store.find('task', 'state', 'pending');
  world.apply(schedule(world.store, pending, NodeTable.build(world.store), now));
}

describe('scheduler: slots that are bound to their volumes', () => {
  it('takes a slot that is bound to its volumes back to their node, or says why it waits', () => {
    const world = new World().node('h1').node('h2').node('h3').service('db').service('web');
    const Home = 'h2' as NodeId;
    world.running('web', 'h2').running('web', 'h2');
    world.waiting('db', 1, { Private: { Home } }).concat(world.waiting('db', 1));
    run(world);
    assert.equal(world.task('db.1').NodeID, 'h2', 'although the others have less to do');
    assert.notEqual(world.task('db.2').NodeID, 'h2');
    const node = world.store.get('node', Home)!;
    const Spec = { ...node.Spec, Availability: 'drain' as const };
    world.apply([{ op: 'merge', kind: 'node', id: Home, fields: { Spec } }]);
    world.waiting('db', 1, { Private: { Home } });
    run(world);
    assert.match(
      world.task('db.3').Status.Err ?? '',
      /1 of 3 nodes is drained; the volumes of slot 3 are on node h2, not on 2 nodes \(shoal\.volume\.sticky\)/,
    );
    world.apply([{ op: 'remove', kind: 'node', id: Home }]);
    run(world);
    assert.ok(world.task('db.3').NodeID, 'a node that is gone for good binds nobody');
  });
});
