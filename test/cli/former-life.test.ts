import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { nodeIdLabel } from '../../agent/engine/container-spec.ts';
import { SimulatedEngine } from '../../agent/engine/simulated.ts';
import { endFormerLife } from '../../cli/former-life.ts';
import { silentLog } from '../../proto/ports.ts';
import { VirtualClock } from '../simulation/clock.ts';
import { seededRandom } from '../simulation/random.ts';

describe('cli: the former life of a daemon', () => {
  let runDir: string;
  const clock = new VirtualClock();
  let engine: SimulatedEngine;

  beforeEach(async () => {
    runDir = join(mkdtempSync(join(tmpdir(), 'shoal-former-')), 'run');
    engine = new SimulatedEngine({ clock, random: seededRandom(3) });
    for (const [name, node] of Object.entries({ a: 'before', b: 'now', c: 'neighbour' })) {
      const request = { name, labels: { [nodeIdLabel]: node }, image: 'web:1', config: {} };
      await clock.runFor(engine.create(request), 1_000);
    }
  });

  afterEach(() => rmSync(join(runDir, '..'), { recursive: true, force: true }));

  const live = (nodeId: string) => clock.runFor(endFormerLife(engine, runDir, nodeId, silentLog), 10_000);
  const names = async () => (await engine.list({})).map(({ name }) => name).sort();

  it('is ended when it was another node’s: its containers go, and no one else’s', async () => {
    await live('before');
    assert.deepEqual(await names(), ['a', 'b', 'c'], 'a first life has none before it');
    await live('before');
    assert.deepEqual(await names(), ['a', 'b', 'c'], 'a restart is the same life');
    await live('now');
    assert.deepEqual(await names(), ['b', 'c']);
  });

  it('is remembered until the engine answers', async () => {
    await live('before');
    engine.crash();
    await live('now');
    engine.recover({ containersSurvive: true });
    await live('now');
    assert.deepEqual(await names(), ['b', 'c']);
  });
});
