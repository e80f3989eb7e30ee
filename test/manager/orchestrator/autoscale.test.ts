import assert from 'node:assert/strict';
import fc from 'fast-check';
import { type Decision, decide, type Measured } from '../../../manager/orchestrator/autoscale.ts';
import { autoscaleOptions } from '../../../manager/store/autoscale-options.ts';
import { updateServiceChanges } from '../../../manager/store/service-change.ts';
import type { AutoscaleState, ServiceMode } from '../../../proto/docker.ts';
import { makeSpec } from './objects.ts';
import { World } from './world.ts';

const second = 1_000;
const minute = 60_000;

const optionsOf = (labels: Record<string, string>) =>
  autoscaleOptions(
    Object.fromEntries(Object.entries(labels).map(([key, value]) => [`shoal.autoscale.${key}`, value])),
  )!;
const measured = (running: number, load: number, known = running): Measured => ({
  running,
  known,
  load,
  words: 'cpu',
  problem: '',
});

describe('autoscale: one decision', () => {
  const options = optionsOf({ max: '10', min: '2', 'down-window': '0', 'up-window': '0' });
  /** Current number, tasks that run, their load in shares of the target, how many were measured; the number that follows. */
  const rows: [string, number, Measured, number][] = [
    ['as it should be', 4, measured(4, 4), 4],
    ['a tenth above is near enough', 4, measured(4, 4.4), 4],
    ['a tenth below is near enough', 4, measured(4, 3.6), 4],
    ['twice as much', 4, measured(4, 8), 8],
    ['a little more than three', 3, measured(3, 3.5), 4],
    ['half as much', 8, measured(8, 4), 4],
    ['nothing at all: its least', 4, measured(4, 0), 2],
    ['far too much: its most', 4, measured(4, 400), 10],
    ['below its least, whatever is measured', 1, measured(1, 0), 2],
    ['above its most, whatever is measured', 11, measured(11, 400), 10],
    ['nothing measured: as it is', 5, measured(5, 0, 0), 5],
    ['none runs: as it is', 5, measured(0, 0), 5],
    ['not measured are idle when more is wanted', 4, measured(4, 3, 2), 4],
    ['not measured are idle, and it is still too much', 4, measured(4, 6, 2), 6],
    ['not measured are busy when fewer are wanted', 4, measured(4, 0.2, 2), 3],
    ['new ones do not run yet', 8, measured(4, 8), 8],
    ['new ones do not run yet, and it is less than the number that there is', 8, measured(4, 5), 8],
    ['a sum of fractions is no task more', 3, measured(3, 4.000000000001), 4],
  ];
  for (const [what, current, state, expected] of rows) {
    it(what, () => assert.equal(decide(options, current, state, undefined, 0).replicas, expected));
  }

  it('by the work that another service tells of: from and to none', () => {
    const queue = optionsOf({
      max: '10',
      min: '0',
      source: 'queue',
      metric: 'prometheus:jobs',
      target: '5',
      port: '80',
      'down-window': '0',
    });
    const count = (current: number, load: number) =>
      decide(queue, current, measured(1, load), undefined, 0).replicas;
    assert.deepEqual([count(0, 0), count(0, 0.2), count(1, 0), count(3, 7), count(3, 70)], [0, 1, 0, 7, 10]);
    assert.deepEqual([count(10, 9.5), count(10, 8.5)], [10, 9]);
  });
});

describe('autoscale: in time', () => {
  const options = optionsOf({
    max: '10',
    'up-window': '20s',
    'down-window': '1m',
    cooldown: '30s',
  });

  /** Plays loads, one each five seconds, with a fresh copy of the state each time, as another leader would read it. */
  function play(loads: readonly number[], begin = 4): { counts: number[]; last: Decision } {
    let state: AutoscaleState | undefined;
    let last: Decision | undefined;
    let current = begin;
    const counts = loads.map((load, index) => {
      last = decide(options, current, measured(current, load), state, index * 5 * second);
      state = structuredClone(last.state);
      current = last.replicas;
      return current;
    });
    return { counts, last: last! };
  }

  it('more is had when it was wanted for the whole window, and then not again before the cooldown is over', () => {
    const { counts } = play([4, 8, 8, 8, 8, 8, 10, 10, 10, 10, 10, 10, 10]);
    assert.deepEqual(counts, [4, 4, 4, 4, 4, 8, 8, 8, 8, 8, 8, 10, 10]);
  });

  it('a peak that is shorter than the window is nothing', () => {
    assert.deepEqual(new Set(play([4, 8, 8, 4, 8, 8, 4, 8, 8, 4]).counts), new Set([4]));
  });

  it('of what was wanted within the window the most counts for fewer', () => {
    const { counts } = play([4, ...Array(6).fill(3), ...Array(12).fill(1)]);
    assert.deepEqual(counts.slice(0, 13), Array(13).fill(4));
    assert.equal(counts[13], 3);
    assert.equal(counts.at(-1), 3);
    const later = play([4, ...Array(6).fill(3), ...Array(20).fill(1)]).counts;
    assert.equal(later.at(-1), 1);
  });

  it('says what it waits for, and until when', () => {
    assert.match(
      play([4, 8]).last.state.Reason,
      /wants 8, and waits for its window until 1970-01-01T00:00:25/,
    );
    assert.match(
      play([4, 8, 8, 8, 8, 8, 16, 16, 16, 16, 16]).last.state.Reason,
      /wants 10, and waits for its cooldown until 1970-01-01T00:00:55/,
    );
    assert.match(
      play([4, 8, 8, 8, 8, 8]).last.state.Reason,
      /went from 4 to 8 at 1970-01-01T00:00:25.*: cpu/,
    );
    assert.match(play([400]).last.state.Reason, /wants 10/);
  });

  it('stores nothing while nothing is new', () => {
    let state: AutoscaleState | undefined;
    for (let at = 0; at < 100; at += 1) {
      const next = decide(options, 4, measured(4, 3.9 + (at % 3) / 10), state, at * 5 * second);
      if (state !== undefined) assert.equal(next.state, state);
      state = next.state;
    }
  });

  it('stays within its bounds, respects the cooldown, remembers little, and any leader decides the same', () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0, max: 30, noNaN: true }), { maxLength: 80 }),
        fc.integer({ min: 1, max: 10 }),
        (loads, begin) => {
          let kept: AutoscaleState | undefined;
          let current = begin;
          let changedAt = Number.NEGATIVE_INFINITY;
          const advised: number[] = [];
          for (const [index, load] of loads.entries()) {
            const now = index * 5 * second;
            const one = decide(options, current, measured(current, load), kept, now);
            const other = decide(
              options,
              current,
              measured(current, load),
              kept && structuredClone(kept),
              now,
            );
            assert.deepEqual(one, other);
            assert.ok(one.replicas >= 1 && one.replicas <= 10);
            advised.push(one.state.Advice.at(-1)!.Replicas);
            if (one.replicas !== current) {
              assert.ok(now - changedAt >= 30 * second);
              changedAt = now;
              // Never further than was advised all through the window.
              const back = one.replicas > current ? 4 : 12;
              const window = advised.slice(-back);
              if (one.replicas > current) assert.ok(window.every((count) => count >= one.replicas));
              else assert.ok(window.every((count) => count <= one.replicas));
            }
            assert.ok(one.state.Advice.length <= 14);
            kept = one.state;
            current = one.replicas;
          }
        },
      ),
    );
  });
});

describe('autoscale: services', () => {
  const labels = {
    'shoal.autoscale.max': '6',
    'shoal.autoscale.target': '50%',
    'shoal.autoscale.down-window': '1m',
    'shoal.autoscale.cooldown': '10s',
  };
  const Resources = { Reservations: { NanoCPUs: 1e9, MemoryBytes: 100 * 2 ** 20 } };
  const spec = makeSpec({
    Labels: labels,
    TaskTemplate: { Resources },
    Mode: { Replicated: { Replicas: 2 } },
  });
  const replicas = (world: World, id = 'web') => world.service(id).Spec.Mode.Replicated?.Replicas;

  /** The tasks of the service share so much; time passes. */
  function use(world: World, durationMs: number, nanoCpus: number, memoryBytes = 0): World {
    for (let passed = 0; passed < durationMs; passed += 5 * second) {
      const tasks = world.running('web');
      for (const { ID } of tasks) {
        world.usage.set(ID, {
          atMs: world.now,
          nanoCpus: nanoCpus / tasks.length,
          memoryBytes: memoryBytes / tasks.length,
          metrics: {},
          problems: {},
        });
      }
      world.run().pass(5 * second);
    }
    return world.run();
  }

  it('get more tasks, and fewer when the load is over; another leader goes on', () => {
    const world = new World().createService('web', spec);
    use(world, minute, 1e9);
    assert.equal(replicas(world), 2);
    use(world, 20 * second, 1.8e9);
    assert.equal(replicas(world), 4);
    assert.equal(world.running('web').length, 4);
    use(world, 30 * second, 0.2e9);
    world.newLeader();
    assert.equal(replicas(world), 4);
    assert.match(world.service('web').Private.Autoscale?.Change ?? '', /^went from 2 to 4 at .*: cpu is 90%/);
    assert.match(
      world.service('web').Private.Autoscale?.Reason ?? '',
      /cpu is 5% a task, target 50%: wants 1/,
    );
    use(world, 40 * second, 0.2e9);
    assert.equal(replicas(world), 1);
    assert.equal(world.running('web').length, 1);
    assert.deepEqual(world.unsettled(), []);
  });

  it('are not changed again by what was measured before the change, also without a window or a cooldown', () => {
    const hasty = { ...labels, 'shoal.autoscale.down-window': '0s', 'shoal.autoscale.cooldown': '0s' };
    const Mode = { Replicated: { Replicas: 6 } };
    const world = new World().createService('web', { ...spec, Labels: hasty, Mode }).run();
    const share = 0.5e9;
    use(world, 5 * second, 3.09 * share);
    assert.equal(replicas(world), 4);
    use(world, minute, 3.09 * share);
    assert.equal(replicas(world), 4);
  });

  it('by memory, in size and in per cent', () => {
    for (const target of ['50%', '50m']) {
      const asked = { ...labels, 'shoal.autoscale.metric': 'memory', 'shoal.autoscale.target': target };
      const world = new World().createService('web', { ...spec, Labels: asked });
      use(world, 20 * second, 0, 150 * 2 ** 20);
      assert.equal(replicas(world), 3, target);
    }
  });

  it('stay as they are while nothing is measured, and say so', () => {
    const world = new World().createService('web', spec).run();
    world.pass(5 * minute);
    assert.equal(replicas(world), 2);
    assert.match(
      world.service('web').Private.Autoscale?.Reason ?? '',
      /nothing is measured: its nodes have not told yet/,
    );
    // What was measured long ago says nothing.
    for (const { ID } of world.running('web'))
      world.usage.set(ID, {
        atMs: world.now - minute,
        nanoCpus: 5e9,
        memoryBytes: 0,
        metrics: {},
        problems: {},
      });
    world.pass(5 * minute);
    assert.equal(replicas(world), 2);
  });

  it('by a metric of another service of their stack, from and to none, also jobs', () => {
    const stack = { 'com.docker.stack.namespace': 'app' };
    const asked = {
      ...stack,
      'shoal.autoscale.min': '0',
      'shoal.autoscale.max': '4',
      'shoal.autoscale.source': 'queue',
      'shoal.autoscale.metric': 'prometheus:jobs{queue="mail"}',
      'shoal.autoscale.target': '10',
      'shoal.autoscale.port': '9100',
      'shoal.autoscale.down-window': '0s',
      'shoal.autoscale.cooldown': '0s',
    };
    const modes: [ServiceMode, (world: World) => number | undefined][] = [
      [{ Replicated: { Replicas: 0 } }, (world) => replicas(world, 'work')],
      [
        { ReplicatedJob: { MaxConcurrent: 0, TotalCompletions: 100 } },
        (world) => world.service('work').Spec.Mode.ReplicatedJob?.MaxConcurrent,
      ],
    ];
    for (const [Mode, count] of modes) {
      const world = new World()
        .createService('queue', makeSpec({ Name: 'app_queue', Labels: stack }))
        .createService('work', { ...makeSpec({ Name: 'app_work', Labels: asked }), Mode })
        .run();
      const say = (jobs: number) => {
        for (const { ID } of world.running('queue')) {
          const metrics = { ':9100/metrics jobs{queue="mail"}': jobs };
          world.usage.set(ID, { atMs: world.now, nanoCpus: 0, memoryBytes: 0, metrics, problems: {} });
        }
        world.pass(5 * second).settle();
        return count(world);
      };
      assert.deepEqual([say(0), say(1), say(25), say(400), say(30), say(0)], [0, 1, 3, 4, 3, 0]);
      assert.match(world.service('work').Private.Autoscale?.Reason ?? '', /is 0 at queue, of 10 a task/);
    }
  });

  it('stay within their bounds and cooldown whatever comes: load, updates, lost nodes, new leaders; and come to rest', () => {
    type Move =
      | { kind: 'load'; share: number }
      | { kind: 'leader' }
      | { kind: 'lose' }
      | { kind: 'find' }
      | { kind: 'image'; version: number }
      | { kind: 'scale'; count: number };
    const moves: fc.Arbitrary<Move> = fc.oneof(
      fc.double({ min: 0, max: 8, noNaN: true }).map((share): Move => ({ kind: 'load', share })),
      fc.constantFrom<Move>({ kind: 'leader' }, { kind: 'lose' }, { kind: 'find' }),
      fc.integer({ min: 1, max: 3 }).map((version): Move => ({ kind: 'image', version })),
      fc.integer({ min: 0, max: 9 }).map((count): Move => ({ kind: 'scale', count })),
    );
    fc.assert(
      fc.property(fc.array(moves, { maxLength: 8 }), (all) => {
        const world = new World().createService('web', spec).run();
        let share = 2;
        for (const move of all) {
          if (move.kind === 'load') share = move.share;
          else if (move.kind === 'leader') world.newLeader();
          else if (move.kind === 'lose') world.setNode('n1', { Status: { State: 'down' } });
          else if (move.kind === 'find') world.setNode('n1', { Status: { State: 'ready' } });
          else {
            const service = world.service('web');
            const next =
              move.kind === 'scale'
                ? { ...service.Spec, Mode: { Replicated: { Replicas: move.count } } }
                : {
                    ...service.Spec,
                    TaskTemplate: {
                      ...service.Spec.TaskTemplate,
                      ContainerSpec: { Image: `web:${move.version}` },
                    },
                  };
            const id = world.newId as never;
            world.apply(updateServiceChanges(world.store, service, { spec: next }, world.now, id).changes);
          }
          let before = world.service('web').Private.Autoscale?.ChangedAt;
          for (let step = 0; step < 6; step += 1) {
            use(world, 5 * second, share * 0.5e9);
            const count = replicas(world)!;
            assert.ok(count >= 1 && count <= 6, `${count} replicas`);
            const { ChangedAt } = world.service('web').Private.Autoscale ?? {};
            const isBound = /its (least|most) is \d+$/.test(
              world.service('web').Private.Autoscale?.Reason ?? '',
            );
            if (before !== undefined && ChangedAt !== before && !isBound)
              assert.ok(ChangedAt! - before >= 10 * second);
            before = ChangedAt;
          }
        }
        use(world, 3 * minute, share * 0.5e9);
        const count = replicas(world)!;
        const wanted = Math.min(6, Math.max(1, share));
        assert.ok(Math.abs(count - wanted) <= Math.max(1, wanted * 0.1 + 0.001), `${count} for ${share}`);
        assert.equal(world.running('web').length, count);
      }),
      { numRuns: 25 },
    );
  });

  it('an update that says again how many there once were keeps how many there are; another number is meant', () => {
    const world = new World().createService('web', spec);
    use(world, 20 * second, 1.8e9);
    assert.equal(replicas(world), 4);
    const update = (count: number, image: string): number | undefined => {
      const next = { ...spec, Mode: { Replicated: { Replicas: count } } };
      next.TaskTemplate = { ...next.TaskTemplate, ContainerSpec: { Image: image } };
      const { changes } = updateServiceChanges(
        world.store,
        world.service('web'),
        { spec: next },
        world.now,
        world.newId as never,
      );
      world.apply(changes);
      return replicas(world);
    };
    assert.equal(update(2, 'web:2'), 4);
    assert.equal(update(4, 'web:3'), 4);
    assert.equal(update(2, 'web:4'), 4);
    assert.equal(update(5, 'web:5'), 5);
    assert.equal(update(2, 'web:6'), 2);
    use(world, 20 * second, 2e9);
    assert.equal(replicas(world), 4);
    const back = updateServiceChanges(
      world.store,
      world.service('web'),
      { rollback: 'previous' },
      world.now,
      world.newId as never,
    );
    world.apply(back.changes);
    assert.equal(world.service('web').Spec.TaskTemplate.ContainerSpec.Image, 'web:5');
    assert.equal(replicas(world), 4);
    const { changes } = updateServiceChanges(
      world.store,
      world.service('web'),
      { spec: { ...spec, Labels: {} } },
      world.now,
      world.newId as never,
    );
    world.apply(changes);
    assert.equal(world.service('web').Private.Autoscale, undefined);
  });
});
