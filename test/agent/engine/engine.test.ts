import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DockerEngine } from '../../../agent/engine/docker.ts';
import type { Engine } from '../../../agent/engine/engine.ts';
import { SimulatedEngine } from '../../../agent/engine/simulated.ts';
import { VirtualClock } from '../../simulation/clock.ts';
import { seededRandom } from '../../simulation/random.ts';
import { realClock, waitFor } from '../wait.ts';
import { engineCompliance } from './compliance.ts';

const patienceMs = 20_000;
const socket = (process.env.SHOAL_TEST_ENGINE ?? '/var/run/docker.sock').replace(/^unix:\/\//, '');
const testImage = 'shoal-test-compliance:latest';

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
});

describe(`engine: Docker Engine at ${socket}`, function () {
  this.timeout(60_000);

  before(async function () {
    if (!existsSync(socket) || !(await answers())) return this.skip();
    importImage();
  });
  after(() => {
    spawnSync('docker', ['-H', `unix://${socket}`, 'rmi', testImage]);
  });

  engineCompliance(async () => {
    const engine: Engine = new DockerEngine({
      address: socket,
      clock: realClock(),
      random: seededRandom(1),
    });
    return {
      engine,
      image: testImage,
      missingImage: 'localhost:1/shoal/missing:1',
      lasting: { Cmd: ['/bin/sh', '-c', 'echo hello; exec sleep 1000'], HostConfig: { NetworkMode: 'none' } },
      failing: {
        image: testImage,
        config: { Cmd: ['/bin/sh', '-c', 'exit 3'], HostConfig: { NetworkMode: 'none' } },
      },
      broken: {
        image: testImage,
        config: { Cmd: ['/no/such/program'], HostConfig: { NetworkMode: 'none' } },
      },
      until: (promise) => promise,
      waitFor: (condition) => waitFor(condition, patienceMs),
    };
  });
});

function answers(): Promise<boolean> {
  return new Promise((resolve) => {
    const ping = request({ socketPath: socket, path: '/_ping' }, (answer) => {
      answer.resume();
      resolve(answer.statusCode === 200);
    });
    ping.on('error', () => resolve(false));
    ping.end();
  });
}

/** An image of busybox alone, so that no registry is needed. */
function importImage(): void {
  const folder = mkdtempSync(join(tmpdir(), 'shoal-image-'));
  try {
    mkdirSync(join(folder, 'bin'));
    mkdirSync(join(folder, 'etc'));
    copyFileSync('/bin/busybox', join(folder, 'bin/busybox'));
    for (const name of ['sh', 'sleep', 'echo', 'cat', 'false', 'true']) {
      symlinkSync('busybox', join(folder, 'bin', name));
    }
    const tar = spawnSync('tar', ['-C', folder, '-c', '.'], { maxBuffer: 64 * 1024 * 1024 });
    const made = spawnSync('docker', ['-H', `unix://${socket}`, 'import', '-', testImage], {
      input: tar.stdout,
    });
    assert.equal(made.status, 0, made.stderr.toString());
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
