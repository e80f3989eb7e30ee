/** The agent on a real Docker Engine, that of a host of the lab, with managers that the test plays. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Agent } from '../../agent/agent.ts';
import { DockerEngine } from '../../agent/engine/docker.ts';
import type { WireNetwork, WireTask } from '../../agent/wire.ts';
import { realClock } from '../../cli/runtime.ts';
import { silentLog } from '../../proto/ports.ts';
import { FakeManagers } from '../agent/fake-dispatcher.ts';
import { waitFor } from '../agent/wait.ts';
import { seededRandom } from '../simulation/random.ts';
import { Lab, labMissing } from './lab.ts';

const patienceMs = 30_000;
const nodeId = `node-${process.pid}`;
const image = 'busybox:lab';
const clock = realClock;

const network = (id: string, subnet: string): WireNetwork => ({
  id: `${id}${process.pid}`.padEnd(25, '0'),
  spec: { annotations: { name: `shoal-test-${id}` } },
  ipam: { configs: [{ family: 'IPV4', subnet: `${subnet}.0/24`, gateway: `${subnet}.1` }] },
});
const front = network('front', '10.213.1');
const back = network('back', '10.213.2');

function task(id: string, over: Partial<WireTask> = {}): WireTask {
  return {
    id: `${id}-${process.pid}`,
    service_id: 'service1',
    slot: '1',
    node_id: nodeId,
    service_annotations: { name: 'web' },
    status: { state: 'ASSIGNED' },
    desired_state: 'RUNNING',
    spec: {
      container: {
        image,
        command: ['/bin/sh', '-c', 'cat /run/secrets/key /conf; exec sleep 1000'],
        stop_grace_period: {},
        secrets: [
          { secret_id: 's1', secret_name: 'key', file: { name: 'key', uid: '7', gid: '8', mode: 0o400 } },
        ],
        configs: [{ config_id: 'c1', config_name: 'conf', file: { name: '/conf' } }],
      },
    },
    networks: [
      { network: front, addresses: ['10.213.1.9/24'] },
      { network: back, addresses: ['10.213.2.9/24'], aliases: ['extra'] },
    ],
    ...over,
  };
}

describe('lab: the agent on a Docker Engine', function () {
  this.timeout(60_000);
  let lab: Lab;
  let folder: string | undefined;
  let runDir: string | undefined;
  let engine: DockerEngine;
  let managers: FakeManagers;
  let agent: Agent;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(1);
    // In memory, and seen by the host's engine too.
    runDir = mkdtempSync('/dev/shm/shoal-agent-');
    folder = mkdtempSync(join(tmpdir(), 'shoal-agent-'));
    engine = new DockerEngine({ address: lab.host(1).dockerSocket, clock, random: seededRandom(1) });
    managers = new FakeManagers(clock, ['m1:2377']);
    agent = await start();
  });

  after(async () => {
    await lab?.down();
    for (const made of [folder, runDir]) if (made !== undefined) rmSync(made, { recursive: true });
  });

  async function start(): Promise<Agent> {
    const made = new Agent({
      identity: {
        current: () => ({
          identity: { certificatePem: '', keyPem: '', rootsPem: '' },
          certificate: { nodeId },
        }),
        tlsInfo: () => undefined,
        onChange: () => () => {},
      },
      engine,
      clock,
      random: seededRandom(2),
      log: silentLog,
      hostname: 'alpha',
      managers: ['m1:2377'],
      dataDir: join(folder!, 'data'),
      runDir: runDir!,
      connect: managers.connect,
    });
    await made.start();
    return made;
  }

  async function untilState(id: string, state: string): Promise<void> {
    const ends = [state, 'REJECTED', 'FAILED'];
    await waitFor(() => ends.includes(String(managers.last(id)?.state)), patienceMs, `task ${id} ${state}`);
    assert.equal(managers.last(id)!.state, state, managers.last(id)!.err);
  }
  const idOf = (id: string) => managers.last(id)!.container!.container_id!;

  it('runs a task on two networks with a secret and a config', async () => {
    const own = task('a');
    managers.assign(
      own,
      { action: 'UPDATE', assignment: { secret: { id: 's1', spec: { data: Buffer.from('hush\n') } } } },
      { action: 'UPDATE', assignment: { config: { id: 'c1', spec: { data: Buffer.from('conf\n') } } } },
    );
    await untilState(own.id!, 'RUNNING');
    const lines: string[] = [];
    await waitForLines(lines, idOf(own.id!));
    assert.deepEqual(lines, ['hush\n', 'conf\n']);
    await agent.stop();
    for (const file of readdirSync(join(folder!, 'data/agent/tasks'))) {
      assert.doesNotMatch(readFileSync(join(folder!, 'data/agent/tasks', file), 'utf8'), /hush/);
    }
    agent = await start();
  });

  async function waitForLines(lines: string[], containerId: string): Promise<void> {
    const abort = new AbortController();
    for await (const { data } of engine.logs(
      containerId,
      { stdout: true, stderr: true, follow: true },
      abort.signal,
    )) {
      lines.push(Buffer.from(data).toString());
      if (lines.length === 2) abort.abort();
    }
  }

  it('takes it up again after a restart as it is', async () => {
    const { id } = task('a');
    const containerId = idOf(id!);
    const before = await engine.inspect(containerId);
    managers.reports.length = 0;
    await agent.stop();
    agent = await start();
    await untilState(id!, 'RUNNING');
    assert.deepEqual(await engine.inspect(containerId), before);
  });

  it('puts a container of its name that was only created in order', async () => {
    const own = task('b', { slot: '2', networks: [] });
    await engine.create({
      name: `web.2.${own.id}`,
      labels: { 'com.docker.swarm.node.id': nodeId, 'com.docker.swarm.task.id': own.id! },
      image,
      config: { Cmd: ['/bin/true'] },
    });
    managers.assign(own);
    await untilState(own.id!, 'RUNNING');
    const found = await engine.list({ 'com.docker.swarm.task.id': own.id! });
    assert.deepEqual(
      found.map(({ id, phase }) => ({ id, phase })),
      [{ id: idOf(own.id!), phase: 'running' }],
    );
  });

  it('fails what exits, is killed, or is removed by hand, in words', async () => {
    const command = ['/bin/sh', '-c', 'exit 3'];
    const exits = task('c', { slot: '3', networks: [], spec: { container: { image, command } } });
    managers.assign(exits);
    await untilState(exits.id!, 'FAILED');
    assert.equal(managers.last(exits.id!)!.err, 'task: non-zero exit (3)');
    await engine.remove(idOf(task('b').id!));
    await untilState(task('b').id!, 'FAILED');
    assert.match(managers.last(task('b').id!)!.err!, /^(task: non-zero exit \(137\)|No such container: )/);
  });

  it('fails what its health check fails, with the last output', async () => {
    const command = ['/bin/sleep', '1000'];
    const healthcheck = {
      test: ['CMD-SHELL', 'echo no good; exit 1'],
      interval: { nanos: 200_000_000 },
      timeout: { seconds: '5' },
      retries: 1,
    };
    const container = { image, command, healthcheck, stop_grace_period: {} };
    const sick = task('d', { slot: '4', networks: [], spec: { container } });
    managers.assign(sick);
    await untilState(sick.id!, 'FAILED');
    assert.equal(managers.last(sick.id!)!.err, 'task: non-zero exit (137): unhealthy container: no good');
  });

  it('leaves nothing behind', async () => {
    await agent.leave();
    assert.deepEqual(await engine.list({ 'com.docker.swarm.node.id': nodeId }), []);
    const names = (await engine.listNetworks({})).map(({ name }) => name);
    assert.deepEqual(
      names.filter((name) => name.startsWith('shoal-test-')),
      [],
    );
    assert.equal(existsSync(join(runDir!, 'files')), false);
    assert.equal(existsSync(join(folder!, 'data/agent')), false);
  });
});
