import assert from 'node:assert/strict';
import { containerLabels } from '../../agent/engine/container-spec.ts';
import { engineIdLabel, engineUnavailableLabel } from '../../proto/docker.ts';
import { delay } from '../../proto/ports.ts';
import { nodeId, startNode, type TestNode, wireTask } from './node.ts';

const only = async (node: TestNode) => {
  const containers = await node.engine.list({});
  assert.equal(containers.length, 1);
  return containers[0]!;
};

describe('agent: a task from its assignment to its end', () => {
  it('runs it, says every step, and leaves the container until the task is removed', async () => {
    const node = await startNode();
    node.managers.assign(wireTask('t1'));
    await node.untilState('t1', 'RUNNING');
    const container = await only(node);
    assert.equal(container.name, 'web.1.t1');
    assert.equal(container.labels['com.docker.swarm.node.id'], nodeId);
    const status = node.managers.last('t1')!;
    assert.equal(status.message, 'started');
    assert.deepEqual(status.container, { container_id: container.id, pid: container.pid, exit_code: 0 });
    node.engine.exit(container.id, 0);
    await node.untilState('t1', 'COMPLETE');
    assert.equal(node.managers.last('t1')!.message, 'finished');
    assert.equal((await only(node)).phase, 'exited');
    node.managers.unassign('t1');
    await node.clock.run(1_000);
    assert.deepEqual(await node.engine.list({}), []);
    assert.deepEqual([...node.journal.tasks.keys()], []);
  });

  it('asks the engine for nothing needless', async () => {
    const node = await startNode();
    for (let index = 0; index < 30; index += 1) node.managers.assign(wireTask(`t${index}`));
    await node.until(
      () => node.managers.reports.filter(({ status }) => status.state === 'RUNNING').length === 30,
    );
    const { create, start, inspect, list } = node.engine.calls;
    assert.deepEqual({ create, start, inspect, list }, { create: 30, start: 30, inspect: 30, list: 1 });
  });

  it('starts forty at a time', async () => {
    const node = await startNode({ startMs: [1_000, 1_000] });
    for (let index = 0; index < 100; index += 1) node.managers.assign(wireTask(`t${index}`));
    const beganMs = node.clock.monotonicMs();
    await node.until(
      () => node.managers.reports.filter(({ status }) => status.state === 'RUNNING').length === 100,
    );
    const tookMs = node.clock.monotonicMs() - beganMs;
    assert.ok(tookMs >= 3_000 && tookMs < 3_500, `took ${tookMs} ms`);
  });

  it('says what it waits for while a step lasts: the image, the networks, the engine', async () => {
    const node = await startNode({ pullMs: [3_000, 3_000], startMs: [3_000, 3_000] });
    const { engine } = node;
    const later =
      <Args extends unknown[], T>(durationMs: number, call: (...args: Args) => Promise<T>) =>
      async (...args: Args) => {
        await delay(node.clock, durationMs);
        return call(...args);
      };
    engine.ensureNetwork = later(5_000, engine.ensureNetwork.bind(engine));
    engine.create = later(3_000, engine.create.bind(engine));
    const network = {
      id: 'net0000000000000000000001',
      spec: { annotations: { name: 'app_default' } },
      ipam: { configs: [{ subnet: '10.0.1.0/24', gateway: '10.0.1.1' }] },
    };
    const networks = [{ network, addresses: ['10.0.1.5/24'] }];
    node.managers.assign(wireTask('t1', 'web:1', { networks }));
    await node.untilState('t1', 'RUNNING');
    const told = node.managers.reports.map(({ status }) => `${status.state}: ${status.message}`);
    const wanted = [
      'PREPARING: joining its networks; pulling image web:1',
      'PREPARING: joining its networks',
      'PREPARING: waiting for the engine to make its container',
      'STARTING: waiting for the engine to start its container',
      'RUNNING: started',
    ];
    assert.deepEqual(
      told.filter((one) => wanted.includes(one)),
      wanted,
      told.join('\n'),
    );
  });

  it('says nothing of steps that are quick', async () => {
    const node = await startNode();
    node.managers.assign(wireTask('t1'));
    await node.untilState('t1', 'RUNNING');
    await node.clock.run(2_000);
    const told = new Set(node.managers.reports.map(({ status }) => status.message));
    assert.deepEqual(
      [...told].filter((one) => /waiting|pulling|joining|writing/.test(one ?? '')),
      [],
    );
  });

  it('says why a task was rejected or failed', async () => {
    const node = await startNode();
    node.managers.assign(wireTask('t1', 'missing:1'));
    await node.untilState('t1', 'REJECTED');
    assert.equal(node.managers.last('t1')!.err, 'No such image: missing:1');
    node.managers.assign(wireTask('t2', 'fail:exit-7'));
    await node.untilState('t2', 'FAILED');
    assert.equal(node.managers.last('t2')!.err, 'task: non-zero exit (7)');
    assert.equal(node.managers.last('t2')!.container?.exit_code, 7);
    node.managers.assign(wireTask('t3', 'broken:1'));
    await node.untilState('t3', 'FAILED');
    assert.match(
      node.managers.last('t3')!.err!,
      /^starting container failed: the simulated engine cannot start/,
    );
    node.managers.assign(
      wireTask('t4', 'web:1', { spec: { container: { image: 'web:1', env: ['A={{.Nope}}'] } } }),
    );
    await node.untilState('t4', 'REJECTED');
    assert.match(node.managers.last('t4')!.err!, /there is no \.Nope/);
  });

  it('tells what generic resources there are, its own words before the engine’s', async () => {
    const discrete = (Kind: string, Value: number) => ({ DiscreteResourceSpec: { Kind, Value } });
    const named = (Kind: string, Value: string) => ({ NamedResourceSpec: { Kind, Value } });
    const node = await startNode(
      { genericResources: [discrete('ssd', 1), named('gpu', 'u9')] },
      ['m1:2377'],
      { genericResources: [named('gpu', 'u1'), named('gpu', 'u2')] },
    );
    assert.deepEqual(node.managers.descriptions[0]?.resources?.generic, [
      { named_resource_spec: { kind: 'gpu', value: 'u1' } },
      { named_resource_spec: { kind: 'gpu', value: 'u2' } },
      { discrete_resource_spec: { kind: 'ssd', value: '1' } },
    ]);
  });

  it('waits for health, and fails a task that loses it', async () => {
    const node = await startNode();
    const healthcheck = { test: ['CMD', 'true'] };
    node.managers.assign(
      wireTask('t1', 'web:1', {
        spec: {
          container: { image: 'web:1', healthcheck, labels: { 'shoal.simulated.health-after-ms': '5000' } },
        },
      }),
    );
    await node.untilState('t1', 'STARTING');
    await node.clock.run(3_000);
    assert.equal(node.managers.last('t1')!.state, 'STARTING');
    await node.untilState('t1', 'RUNNING');
    node.engine.setHealth((await only(node)).id, 'unhealthy', 'connection refused');
    await node.untilState('t1', 'FAILED');
    assert.match(node.managers.last('t1')!.err!, /unhealthy container: connection refused$/);
    assert.equal((await only(node)).phase, 'exited');
  });

  describe('a start interval, on an engine that knows none', () => {
    const second = (seconds: string) => ({ seconds, nanos: 0 });
    const startPeriod = 20;
    const begin = async (test: string[], knowsStartInterval = false) => {
      const node = await startNode({ knowsStartInterval });
      const asked = { start_interval: second('2'), start_period: second(String(startPeriod)) };
      const labels = { 'shoal.simulated.health': 'starting' };
      const container = { image: 'web:1', labels, healthcheck: { test, interval: second('60'), ...asked } };
      node.managers.assign(wireTask('t1', 'web:1', { spec: { container } }));
      await node.untilState('t1', 'STARTING');
      return node;
    };

    it('is kept by checks of our own: the first that passes makes the task run', async () => {
      const node = await begin(['CMD', 'echo', 'well']);
      await node.clock.run(1_900);
      assert.equal(node.managers.last('t1')!.state, 'STARTING');
      await node.clock.run(500);
      assert.equal(node.managers.last('t1')!.state, 'RUNNING');
      assert.equal(node.engine.execs.count, 1);
      node.engine.setHealth((await only(node)).id, 'unhealthy', 'later');
      await node.untilState('t1', 'FAILED');
    });

    it('one that fails counts for nothing, and there are none after the start period', async () => {
      const node = await begin(['CMD-SHELL', 'no such program']);
      await node.clock.run((startPeriod + 60) * 1_000);
      assert.equal(node.managers.last('t1')!.state, 'STARTING');
      const { count } = node.engine.execs;
      assert.ok(count >= startPeriod / 2 - 2 && count <= startPeriod / 2, `${count} checks`);
      node.engine.setHealth((await only(node)).id, 'healthy');
      await node.untilState('t1', 'RUNNING');
    });

    it('nothing is done where the engine knows it', async () => {
      const node = await begin(['CMD', 'echo', 'well'], true);
      await node.clock.run(10_000);
      assert.equal(node.managers.last('t1')!.state, 'STARTING');
      assert.equal(node.engine.execs.count, 0);
    });
  });

  it('says that memory ran out', async () => {
    const node = await startNode();
    node.managers.assign(wireTask('t1'));
    await node.untilState('t1', 'RUNNING');
    node.engine.runOutOfMemory((await only(node)).id);
    await node.untilState('t1', 'FAILED');
    assert.match(node.managers.last('t1')!.err!, /^task: non-zero exit \(137\): OOM/);
  });

  it('prepares a task that is to be ready and starts it when told', async () => {
    const node = await startNode();
    node.managers.assign(wireTask('t1', 'web:1', { desired_state: 'READY' }));
    await node.untilState('t1', 'READY');
    await node.clock.run(10_000);
    assert.equal((await only(node)).phase, 'created');
    node.managers.assign(wireTask('t1'));
    await node.untilState('t1', 'RUNNING');
    assert.equal(node.engine.calls.create, 1);
  });

  it('gives a task its grace, and shuts down one that is being pulled without waiting for the pull', async () => {
    const node = await startNode({ pullMs: [60_000, 60_000] });
    node.managers.assign(wireTask('t1'));
    await node.untilState('t1', 'PREPARING');
    node.managers.assign(wireTask('t1', 'web:1', { desired_state: 'SHUTDOWN' }));
    await node.untilState('t1', 'SHUTDOWN');
    assert.deepEqual(await node.engine.list({}), []);
  });

  it('kills what does not stop within its grace', async () => {
    const node = await startNode();
    const labels = { 'shoal.simulated.stop-ms': '60000' };
    const spec = { container: { image: 'web:1', labels, stop_grace_period: { seconds: '2' } } };
    node.managers.assign(wireTask('t1', 'web:1', { spec }));
    await node.untilState('t1', 'RUNNING');
    const beganMs = node.clock.monotonicMs();
    node.managers.assign(wireTask('t1', 'web:1', { spec, desired_state: 'REMOVE' }));
    await node.untilState('t1', 'SHUTDOWN');
    const tookMs = node.clock.monotonicMs() - beganMs;
    assert.ok(tookMs >= 2_000 && tookMs < 2_200, `took ${tookMs} ms`);
    assert.equal(node.managers.last('t1')!.container?.exit_code, 137);
  });

  it('reports a host port that the engine chose', async () => {
    const node = await startNode();
    node.managers.assign(
      wireTask('t1', 'web:1', { endpoint: { ports: [{ target_port: 80, publish_mode: 'HOST' }] } }),
    );
    await node.untilState('t1', 'RUNNING');
    assert.deepEqual(node.managers.last('t1')!.port_status?.ports, [
      { protocol: 'TCP', target_port: 80, published_port: 32768, publish_mode: 'HOST' },
    ]);
  });
});

describe('agent: restarts', () => {
  it('takes up running containers without touching them', async () => {
    const node = await startNode();
    for (const id of ['t1', 't2', 't3']) node.managers.assign(wireTask(id));
    await node.until(() => ['t1', 't2', 't3'].every((id) => node.managers.last(id)?.state === 'RUNNING'));
    const before = await node.engine.list({});
    const { create, start, stop, remove, pull } = node.engine.calls;
    node.managers.reports.length = 0;
    await node.restart();
    await node.until(() => ['t1', 't2', 't3'].every((id) => node.managers.last(id)?.state === 'RUNNING'));
    await node.clock.run(60_000);
    const { calls } = node.engine;
    assert.deepEqual(
      { create, start, stop, remove, pull },
      { create: calls.create, start: calls.start, stop: calls.stop, remove: calls.remove, pull: calls.pull },
    );
    assert.deepEqual(await node.engine.list({}), before);
    assert.deepEqual(new Set(node.managers.reports.map(({ status }) => status.state)), new Set(['RUNNING']));
  });

  it('reports what ended while it was away', async () => {
    const node = await startNode();
    node.managers.assign(wireTask('t1'));
    await node.untilState('t1', 'RUNNING');
    await node.agent.stop();
    node.engine.exit((await only(node)).id, 3);
    await node.restart();
    await node.untilState('t1', 'FAILED');
    assert.equal(node.managers.last('t1')!.err, 'task: non-zero exit (3)');
    assert.equal(node.engine.calls.start, 1);
  });

  it('adopts by label what the journal lost, and starts nothing twice', async () => {
    const node = await startNode();
    node.managers.assign(wireTask('t1'));
    await node.untilState('t1', 'RUNNING');
    await node.agent.stop();
    await node.journal.clear();
    node.managers.reports.length = 0;
    await node.restart();
    await node.untilState('t1', 'RUNNING');
    assert.equal(node.engine.calls.create, 1);
    assert.equal((await only(node)).phase, 'running');
  });

  it('reports what ended before it heard that the container it had found is of a task', async () => {
    const node = await startNode();
    node.managers.assign(wireTask('t1'));
    await node.untilState('t1', 'RUNNING');
    await node.agent.stop();
    await node.journal.clear();
    node.managers.manager('m1:2377').isSilent = true;
    await node.restart();
    await node.clock.run(5_000);
    node.engine.exit((await only(node)).id, 3);
    await node.clock.run(5_000);
    node.managers.manager('m1:2377').isSilent = false;
    await node.untilState('t1', 'FAILED');
    assert.equal(node.engine.calls.create, 1);
  });

  it('waits for its secrets before it goes on with a task that was being prepared', async () => {
    const node = await startNode({ pullMs: [5_000, 5_000] });
    const secrets = [{ secret_id: 's1', secret_name: 'key', file: { name: 'key' } }];
    node.managers.assign(wireTask('t1', 'web:1', { spec: { container: { image: 'web:1', secrets } } }), {
      action: 'UPDATE',
      assignment: { secret: { id: 's1', spec: { data: Buffer.from('hush') } } },
    });
    await node.untilState('t1', 'PREPARING');
    node.managers.manager('m1:2377').isSilent = true;
    await node.restart();
    await node.clock.run(20_000);
    assert.equal(node.engine.calls.create, 0);
    node.managers.manager('m1:2377').isSilent = false;
    await node.untilState('t1', 'RUNNING');
  });

  it('makes a container that was created but not known to be whole again, once', async () => {
    const node = await startNode();
    const task = wireTask('t1');
    const host = { id: nodeId, hostname: 'host-1', architecture: 'x86_64', os: 'linux' };
    await node.clock.runFor(
      node.engine.create({
        name: 'web.1.t1',
        labels: containerLabels(task, host),
        image: 'web:1',
        config: {},
      }),
      1_000,
    );
    node.managers.assign(task);
    await node.untilState('t1', 'RUNNING');
    assert.equal((await only(node)).phase, 'running');
  });

  it('removes what it has and no manager knows, and what was removed while it was away', async () => {
    const node = await startNode();
    node.managers.assign(wireTask('t1'));
    node.managers.assign(wireTask('t2'));
    await node.untilState('t2', 'RUNNING');
    await node.untilState('t1', 'RUNNING');
    await node.agent.stop();
    node.managers.unassignSilently('t1');
    node.managers.unassignSilently('t2');
    node.journal.drop('t2');
    await node.restart();
    await node.clock.run(5_000);
    assert.deepEqual(await node.engine.list({}), []);
  });

  it('goes on without managers: what happens is reported when one is back', async () => {
    const node = await startNode();
    node.managers.assign(wireTask('t1'));
    await node.untilState('t1', 'RUNNING');
    node.managers.kill('m1:2377');
    await node.clock.run(20_000);
    node.engine.exit((await only(node)).id, 1);
    await node.clock.run(20_000);
    assert.equal(node.managers.last('t1')!.state, 'RUNNING');
    node.managers.manager('m1:2377').isAlive = true;
    await node.untilState('t1', 'FAILED');
    assert.equal(node.engine.calls.stop, 0);
  });
});

describe('agent: an engine that goes away', () => {
  it('loses no task when containers survive', async () => {
    const node = await startNode();
    node.managers.assign(wireTask('t1'));
    await node.untilState('t1', 'RUNNING');
    node.engine.crash('it was stopped');
    await node.clock.run(10_000);
    const away = node.managers.last('t1')!;
    assert.equal(away.state, 'RUNNING');
    assert.match(away.err!, /^engine unavailable: it was stopped/);
    assert.equal(
      node.managers.descriptions.at(-1)?.engine?.labels?.[engineUnavailableLabel],
      'it was stopped',
    );
    node.engine.recover({ containersSurvive: true });
    await node.until(() => node.managers.last('t1')?.err === '');
    assert.equal(node.managers.last('t1')!.state, 'RUNNING');
    assert.equal(node.managers.descriptions.at(-1)?.engine?.labels?.[engineUnavailableLabel], undefined);
    assert.equal(node.engine.calls.create, 1);
  });

  it('is the reason that a task which is to start meanwhile waits', async () => {
    const node = await startNode();
    node.managers.assign(wireTask('t1', 'web:1', { desired_state: 'READY' }));
    await node.untilState('t1', 'READY');
    node.engine.crash('it was stopped');
    await node.clock.run(1_000);
    node.managers.assign(wireTask('t1'));
    await node.untilState('t1', 'STARTING');
    assert.match(node.managers.last('t1')!.err!, /^engine unavailable: it was stopped/);
    node.engine.recover({ containersSurvive: true });
    await node.untilState('t1', 'RUNNING');
    assert.equal(node.managers.last('t1')!.err, '');
  });

  it('fails the tasks whose containers the engine killed', async () => {
    const node = await startNode();
    node.managers.assign(wireTask('t1'));
    await node.untilState('t1', 'RUNNING');
    node.engine.crash();
    await node.clock.run(1_000);
    node.engine.recover({ containersSurvive: false });
    await node.untilState('t1', 'FAILED');
    assert.equal(node.managers.last('t1')!.err, 'task: non-zero exit (137)');
  });

  it('does what was asked for meanwhile when it is back', async () => {
    const node = await startNode();
    node.managers.assign(wireTask('t1'));
    await node.untilState('t1', 'RUNNING');
    node.engine.crash();
    node.managers.assign(wireTask('t2'));
    node.managers.unassign('t1');
    await node.clock.run(30_000);
    assert.notEqual(node.managers.last('t2')?.state, 'REJECTED');
    node.engine.recover({ containersSurvive: true });
    await node.untilState('t2', 'RUNNING');
    await node.clock.run(5_000);
    assert.equal((await only(node)).name, 'web.1.t2');
  });

  it('describes the node with its engine and its resources', async () => {
    const node = await startNode({ engineId: 'engine-7', nanoCpus: 4e9, memoryBytes: 1024 });
    const description = node.managers.descriptions[0]!;
    assert.equal(description.hostname, 'host-1');
    assert.equal(description.engine?.labels?.[engineIdLabel], 'engine-7');
    assert.deepEqual(description.resources, {
      nano_cpus: '4000000000',
      memory_bytes: '1024',
      generic: [],
    });
  });
});

describe('agent: leaving', () => {
  it('ends its tasks and leaves nothing behind', async () => {
    const node = await startNode();
    const network = {
      id: 'net0000000000000000000001',
      spec: { annotations: { name: 'app_default' } },
      ipam: { configs: [{ subnet: '10.0.1.0/24', gateway: '10.0.1.1' }] },
    };
    node.managers.assign(wireTask('t1', 'web:1', { networks: [{ network, addresses: ['10.0.1.5/24'] }] }));
    await node.untilState('t1', 'RUNNING');
    assert.deepEqual(
      (await node.engine.listNetworks({})).map(({ name }) => name),
      ['app_default'],
    );
    await node.clock.runFor(node.agent.leave(), 60_000);
    assert.deepEqual(await node.engine.list({}), []);
    assert.deepEqual(await node.engine.listNetworks({}), []);
    assert.equal(node.journal.tasks.size, 0);
    assert.equal(node.agent.session.kind, 'stopped');
  });
});
