import assert from 'node:assert/strict';
import fc from 'fast-check';
import { NodeTable } from '../../../manager/scheduler/node-table.ts';
import { schedule } from '../../../manager/scheduler/schedule.ts';
import { abilitiesLabel } from '../../../proto/agent-abilities.ts';
import { engineIdLabel } from '../../../proto/docker.ts';
import { isolationLabel } from '../../../proto/isolation.ts';
import { now, World } from './world.ts';

function run(world: World): void {
  const pending = world.store.find('task', 'state', 'pending');
  world.apply(schedule(world.store, pending, NodeTable.build(world.store), now));
}

describe('scheduler: few tasks on many nodes', () => {
  it('takes the nodes with the least to do of those without the service, the first of equals', () => {
    const load = fc.integer({ min: 0, max: 3 });
    const nodes = fc.array(fc.record({ others: load, own: fc.boolean() }), { minLength: 16, maxLength: 40 });
    fc.assert(
      fc.property(nodes, fc.integer({ min: 1, max: 4 }), (of, count) => {
        const world = new World();
        for (const at of of.keys()) world.node(`h${String(at).padStart(2, '0')}`);
        world.service('web').service('db').service('other');
        of.forEach(({ others, own }, at) => {
          const node = `h${String(at).padStart(2, '0')}`;
          for (let each = 0; each < others; each += 1) world.running('db', node);
          if (own) world.running('web', node);
        });
        const fresh = world.waiting('web', count);
        world.waiting('other', 1);
        run(world);
        const ranked = of
          .map(({ others, own }, at) => ({ at, key: (own ? 1_000 : 0) + others }))
          .sort((a, b) => a.key - b.key || a.at - b.at);
        const isRoomy = of.filter(({ own }) => !own).length >= count;
        const expected = ranked.slice(0, count).map(({ at }) => `h${String(at).padStart(2, '0')}`);
        const actual = fresh.map(({ ID }) => world.task(ID).NodeID);
        if (isRoomy) assert.deepEqual(actual, expected);
        assert.ok(actual.every((id) => id !== undefined));
      }),
      { numRuns: 60 },
    );
  });

  it('tasks that stop on isolation go where an agent can stop them', () => {
    const older = { Description: { Engine: { Labels: { [engineIdLabel]: 'e0' } } } };
    const Labels = { [engineIdLabel]: 'e1', [abilitiesLabel]: 'stop-on-isolation' };
    const world = new World().node('stock').node('older', older);
    world.node('ours', { Description: { Engine: { Labels } } });
    world.service('web', { Labels: { [isolationLabel]: 'true' } }).waiting('web', 2);

    run(world);
    assert.deepEqual([world.task('web.1').NodeID, world.task('web.2').NodeID], ['ours', 'ours']);
    const none = new World()
      .node('stock')
      .node('older', older)
      .service('web', { Labels: { [isolationLabel]: 'true' } });
    none.waiting('web');
    run(none);
    const rule = "only Shoal's own agents stop a task when they are isolated";
    assert.equal(
      none.task('web.1').Status.Err,
      `no suitable node (${rule}, and 1 node has Docker's own agent; ${rule}, and 1 node has an agent of an older version, which can't: update shoald there)`,
    );
  });
});
