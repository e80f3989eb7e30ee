import assert from 'node:assert/strict';
import { SimulatedEngine } from '../../../agent/engine/simulated.ts';
import { VirtualClock } from '../../simulation/clock.ts';
import { seededRandom } from '../../simulation/random.ts';
import { engineCompliance } from './compliance.ts';

describe('engine: simulated', () => {
  engineCompliance(async () => {
    const clock = new VirtualClock();
    const engine = new SimulatedEngine({
      clock,
      random: seededRandom(7),
      pullMs: [10, 50],
      startMs: [5, 20],
      stopMs: [1, 5],
    });
    return {
      engine,
      image: 'web:1',
      missingImage: 'missing:1',
      lasting: {},
      failing: { image: 'fail:exit-3', config: {} },
      broken: { image: 'broken:1', config: {} },
      until: (promise) => clock.runFor(promise, 60_000),
      waitFor: (condition) => clock.runUntil(condition, 60_000),
      speak: (containerId) => engine.write(containerId, 'hello'),
    };
  });

  it('answers nothing while it is down, and has killed what ran when it comes back', async () => {
    const clock = new VirtualClock();
    const engine = new SimulatedEngine({ clock, random: seededRandom(7) });
    const kinds: string[] = [];
    engine.watch((event) => kinds.push(event.kind), new AbortController().signal);
    const { id } = await clock.runFor(
      engine.create({ name: 'one', labels: {}, image: 'web:1', config: {} }),
      1_000,
    );
    await clock.runFor(engine.start(id), 1_000);
    engine.crash();
    await assert.rejects(engine.inspect(id), /Cannot connect/);
    engine.recover({ containersSurvive: false });
    assert.equal((await engine.inspect(id)).exitCode, 137);
    assert.deepEqual(kinds, ['engine-back', 'container', 'engine-lost', 'engine-back']);
  });

  it('remembers its containers for the engine that comes after it', async () => {
    const clock = new VirtualClock();
    let memory = '';
    const remember = (text: string): void => {
      memory = text;
    };
    const engine = new SimulatedEngine({ clock, random: seededRandom(7), remember });
    const request = { name: 'one', labels: { a: 'b' }, image: 'web:1', config: {} };
    const { id } = await clock.runFor(engine.create(request), 1_000);
    await clock.runFor(engine.start(id), 1_000);
    const next = new SimulatedEngine({ clock, random: seededRandom(8), from: memory });
    assert.deepEqual(await next.list({ a: 'b' }), await engine.list({ a: 'b' }));
    assert.equal((await next.inspect(id)).phase, 'running');
  });
});
