/** A person's day with the client, against real daemons with simulated containers. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { TestDaemon, waitFor } from './daemon.ts';

const boundMs = 40_000;

describe('cli: a cluster of two', function () {
  this.timeout(120_000);
  let first: TestDaemon;
  let second: TestDaemon;

  before(async () => {
    [first, second] = await Promise.all([TestDaemon.start('n1'), TestDaemon.start('n2')]);
  });
  after(async () => {
    await Promise.all([first?.destroy(), second?.destroy()]);
  });

  const rowsOf = async (...args: string[]): Promise<Record<string, string>[]> => {
    const text = await first.out(...args, '--format', 'json');
    return text === '' ? [] : text.split('\n').map((line) => JSON.parse(line) as Record<string, string>);
  };
  const nodeRow = async (name: string): Promise<Record<string, string> | undefined> =>
    (await rowsOf('node', 'ls')).find((row) => row.Hostname === name);
  const runningOn = async (service: string, node: string): Promise<number> =>
    (await rowsOf('service', 'ps', service, '--filter', 'desired-state=running')).filter(
      (row) => row.Node === node && row.CurrentState?.startsWith('Running'),
    ).length;

  it('before it is one, says how to make it', async () => {
    const { status, stderr } = await first.shoal('node', 'ls');
    assert.equal(status, 1);
    assert.match(stderr, /not a swarm manager\. Use "shoal swarm init"/);
    assert.match(await first.out('info'), /Swarm: inactive/);
  });

  it('init prints how to join, and a second one is refused', async () => {
    const text = await first.out('swarm', 'init');
    assert.match(text, /^Swarm initialized: current node \(\w{25}\) is now a manager\./);
    assert.match(text, new RegExp(`shoal swarm join --token SWMTKN-1-\\w{50}-\\w{25} ${first.address}`));
    assert.match(text, /run 'shoal swarm join-token manager' and follow/);
    const again = await first.shoal('swarm', 'init');
    assert.equal(again.status, 1);
    assert.match(again.stderr, /already part of a swarm\. Use "shoal swarm leave"/);
  });

  it('a rotated token lets nobody in any more; the new one does', async () => {
    const old = await first.out('swarm', 'join-token', '-q', 'worker');
    const fresh = await first.out('swarm', 'join-token', '--rotate', '-q', 'worker');
    assert.notEqual(old, fresh);
    const refused = await second.shoal('swarm', 'join', '--token', old, first.address);
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, /token/);
    assert.doesNotMatch(refused.stderr, new RegExp(old));
    const joined = await second.out('swarm', 'join', '--token', fresh, first.address);
    assert.equal(joined, 'This node joined a swarm as a worker.');
    await waitFor('both nodes to be ready', boundMs, async () => (await nodeRow('n2'))?.Status === 'Ready');
    const onWorker = await second.shoal('service', 'ls');
    assert.equal(onWorker.status, 1);
    assert.match(onWorker.stderr, /Worker nodes can't be used/);
  });

  it('lists nodes with docker’s columns, by templates, and in words', async () => {
    const table = await first.out('node', 'ls');
    assert.match(
      table,
      /^ID +HOSTNAME +STATUS +AVAILABILITY +MANAGER STATUS +ENGINE VERSION\n\w{25} \* +n1 +Ready +Active +Leader +simulated\n\w{25} +n2 +Ready +Active +simulated$/,
    );
    assert.equal(await first.out('node', 'ls', '--format', '{{.Hostname}} {{.Self}}'), 'n1 true\nn2 false');
    assert.equal((await first.out('node', 'ls', '-q', '--filter', 'role=worker')).split('\n').length, 1);
    assert.match(
      await first.out('node', 'inspect', 'self', '--pretty'),
      /Hostname: +\tn1[\s\S]*Leader:\t\tYes/,
    );
    assert.equal(await first.out('node', 'inspect', '-f', '{{.Spec.Role}}', 'n2'), 'worker');
  });

  it('a service is made, waited for, scaled, updated, rolled back and removed', async () => {
    const made = await first.shoal(
      'service',
      'create',
      '--name',
      'web',
      '--replicas',
      '3',
      '-e',
      'A=1',
      '--update-monitor=100ms',
      '--update-parallelism=0',
      '--rollback-monitor=100ms',
      '--rollback-parallelism=0',
      'busybox',
    );
    assert.equal(made.status, 0, made.stderr);
    assert.match(made.stdout, /^\w{25}\n$/);
    assert.match(made.stderr, /overall progress: 3 out of 3 tasks\nverify: Service \w{25} converged\n$/);
    assert.match(await first.out('service', 'scale', 'web=4'), /^web scaled to 4$/);
    assert.equal((await rowsOf('service', 'ls'))[0]?.Replicas, '4/4');
    assert.equal(
      await first.out('service', 'update', '--image', 'busybox:2', '--update-monitor', '100ms', '-q', 'web'),
      'web',
    );
    const running = ['--filter', 'desired-state=running'];
    assert.deepEqual(
      new Set((await rowsOf('service', 'ps', 'web', ...running)).map((row) => row.Image)),
      new Set(['busybox:2']),
    );
    assert.equal(await first.out('service', 'rollback', '-q', 'web'), 'web');
    assert.equal(
      await first.out('service', 'inspect', '-f', '{{.Spec.TaskTemplate.ContainerSpec.Image}}', 'web'),
      'busybox',
    );
    assert.match(
      await first.out('service', 'inspect', '--pretty', 'web'),
      /Service Mode:\tReplicated\n Replicas:\t4/,
    );
    const zero = await first.shoal('service', 'scale', 'web=0');
    assert.match(zero.stderr, /0 out of 0 tasks\nverify/);
    const removed = await first.shoal('service', 'remove', 'nobody', 'web');
    assert.equal(removed.status, 1);
    assert.equal(removed.stdout, 'web\n');
    assert.match(removed.stderr, /service nobody not found/);
  });

  it('a global service has as many tasks as eligible nodes; work that is done is no reason to wait', async () => {
    const all = await first.shoal('service', 'create', '--name', 'all', '--mode', 'global', 'busybox');
    assert.match(all.stderr, /overall progress: 2 out of 2 tasks/);
    const one = await first.shoal(
      'service',
      'create',
      '--name',
      'one',
      '--mode',
      'global',
      '--constraint',
      'node.role==worker',
      'busybox',
    );
    assert.match(one.stderr, /overall progress: 1 out of 1 tasks\nverify/);
    const scaled = await first.shoal('service', 'scale', 'all=2');
    assert.equal(scaled.status, 1);
    assert.match(scaled.stderr, /all: scale can only be used with replicated or replicated-job mode/);
    const done = await first.shoal(
      'service',
      'create',
      '--name',
      'job',
      '--restart-condition',
      'none',
      'job:exit-0',
    );
    assert.equal(done.status, 0, done.stderr);
    await first.out('service', 'rm', 'all', 'one', 'job');
  });

  it('waiting says why it makes no sense any more', async () => {
    const given = await first.shoal(
      'service',
      'create',
      '--name',
      'bad',
      '--restart-condition',
      'none',
      'fail:exit-3',
    );
    assert.equal(given.status, 1);
    assert.match(given.stderr, /1 of 1 tasks ended and will not be restarted.*exit.*3/);
    await first.out(
      'service',
      'create',
      '-q',
      '--name',
      'up',
      '--update-monitor',
      '2s',
      '--rollback-monitor',
      '100ms',
      '--restart-delay',
      '100ms',
      'busybox',
    );
    const rolled = await first.shoal(
      'service',
      'update',
      '--image',
      'missing:2',
      '--update-failure-action',
      'rollback',
      'up',
    );
    assert.equal(rolled.status, 1);
    assert.match(rolled.stderr, /service rolled back: .*failure/);
    const image = await first.out(
      'service',
      'inspect',
      '-f',
      '{{.Spec.TaskTemplate.ContainerSpec.Image}}',
      'up',
    );
    assert.equal(image, 'busybox');
    const pausing = ['--update-failure-action', 'pause', '--image', 'missing:1'];
    const paused = await first.shoal('service', 'update', ...pausing, 'up');
    assert.equal(paused.status, 1);
    assert.match(paused.stderr, /service update paused: update paused due to failure/);
    await first.out('service', 'rm', 'bad', 'up');
  });

  it('tasks that can’t be placed are waited for, with the reason; Ctrl-C leaves the service running', async () => {
    const { status, stdout, stderr } = await first.shoalUntil(
      /no suitable node/,
      ...['service', 'create', '--name', 'far', '--constraint', 'node.labels.moon==yes', 'busybox'],
    );
    assert.equal(status, 0, stderr);
    const id = stdout.trim();
    assert.match(stderr, /overall progress: 0 out of 1 tasks \(no suitable node .*node\.labels\.moon==yes/);
    assert.match(stderr, /Operation continuing in background\.\nUse `shoal service ps (\w{25})` to check/);
    assert.match(stderr, new RegExp(id));
    assert.equal((await rowsOf('service', 'ps', id)).length, 1);
    await first.out('service', 'rm', 'far');
    const looping = await first.shoalUntil(
      /exit/,
      ...['service', 'create', '--name', 'loop', '--restart-delay', '10ms', 'fail:exit-7'],
    );
    assert.match(looping.stderr, /0 out of 1 tasks \(.*exit.*7/);
    await first.out('service', 'rm', 'loop');
  });

  it('a drained node’s tasks go elsewhere', async () => {
    await first.out('service', 'create', '-q', '--name', 'web', '--replicas', '2', 'busybox');
    assert.equal(await runningOn('web', 'n2'), 1);
    await first.out('node', 'update', '--availability', 'drain', '--label-add', 'disk=ssd', 'n2');
    await waitFor('the tasks to move', boundMs, async () => (await runningOn('web', 'n1')) === 2);
    assert.equal((await nodeRow('n2'))?.Availability, 'Drain');
    await first.out('node', 'update', '--availability', 'active', '--label-rm', 'disk', 'n2');
    assert.equal((await first.shoal('node', 'update', '--label-rm', 'disk', 'n2')).status, 2);
    await first.out('service', 'rm', 'web');
  });

  it('secrets, configs and networks are made, shown and removed', async () => {
    assert.match(
      (await first.shoalWith('quiet!', 'secret', 'create', '-l', 'a=b', 'word', '-')).stdout,
      /^\w{25}\n$/,
    );
    assert.match((await first.shoalWith('loud', 'config', 'create', 'conf', '-')).stdout, /^\w{25}\n$/);
    await first.out('network', 'create', '--subnet', '10.99.0.0/24', 'back');
    assert.match(
      await first.out('secret', 'ls'),
      /^ID +NAME +DRIVER +CREATED +UPDATED\n\w{25} +word +Less than a second|second/,
    );
    assert.match(await first.out('config', 'inspect', '--pretty', 'conf'), /Data:\nloud$/);
    assert.match(await first.out('network', 'ls', '--format', '{{.Name}} {{.Driver}}'), /^back overlay$/m);
    await first.out(
      'service',
      'create',
      '-q',
      '--name',
      'user',
      '--secret',
      'word',
      '--config',
      'source=conf,target=/c',
      '--network',
      'back',
      'busybox',
    );
    const used = await first.shoal('secret', 'rm', 'word');
    assert.equal(used.status, 1);
    assert.match(used.stderr, /in use by the following service: user/);
    await first.out('service', 'rm', 'user');
    assert.equal(await first.out('secret', 'rm', 'word'), 'word');
    assert.equal(await first.out('config', 'rm', 'conf'), 'conf');
    await waitFor(
      'the network to be free',
      boundMs,
      async () => (await first.shoal('network', 'rm', 'back')).status === 0,
    );
  });

  it('a stack is deployed once; the same file changes nothing', async () => {
    const path = join(first.folder, 'compose.yml');
    writeFileSync(
      path,
      'services:\n  web:\n    image: busybox\n    deploy: {replicas: 2}\n  db: {image: "busybox:2"}\n',
    );
    const deployed = await first.shoal('stack', 'deploy', '-c', path, 'app');
    assert.equal(deployed.status, 0, deployed.stderr);
    assert.match(deployed.stdout, /Creating network app_default\n[\s\S]*Creating service app_web/);
    assert.equal(await first.out('stack', 'up', '--detach=true', '-c', path, 'app'), 'Nothing to change.');
    assert.match(await first.out('stack', 'ls'), /^NAME +SERVICES\napp +2$/);
    assert.equal((await rowsOf('stack', 'services', 'app')).length, 2);
    assert.equal((await rowsOf('stack', 'ps', 'app')).length, 3);
    assert.match(await first.out('stack', 'down', '--detach=false', 'app'), /Removing service app_web/);
    assert.equal((await rowsOf('stack', 'ls')).length, 0);
    assert.equal((await first.shoal('stack', 'ps', 'app')).status, 1);
  });

  it('a worker is promoted, demoted, leaves and is forgotten', async () => {
    assert.equal(await first.out('node', 'promote', 'n2'), 'Node n2 promoted to a manager in the swarm.');
    assert.equal(await first.out('node', 'promote', 'n2'), 'Node n2 is already a manager.');
    await waitFor(
      'n2 to be a manager',
      boundMs,
      async () => (await nodeRow('n2'))?.ManagerStatus === 'Reachable',
    );
    await waitFor(
      'n2 to answer as one',
      boundMs,
      async () => (await second.shoal('node', 'ls')).status === 0,
    );
    assert.equal(await first.out('node', 'demote', 'n2'), 'Manager n2 demoted in the swarm.');
    await waitFor('n2 to be none', boundMs, async () => (await second.shoal('node', 'ls')).status === 1);
    assert.equal(await second.out('swarm', 'leave'), 'Node left the swarm.');
    await waitFor('n2 to be down', boundMs, async () => (await nodeRow('n2'))?.Status === 'Down');
    assert.equal(await first.out('node', 'rm', 'n2'), 'n2');
    assert.equal(await nodeRow('n2'), undefined);
  });

  it('a locked manager asks for its key after a restart', async () => {
    const text = await first.out('swarm', 'update', '--autolock=true');
    const key = /SWMKEY-1-\S+/.exec(text)?.[0] ?? '';
    assert.equal(await first.out('swarm', 'unlock-key', '-q'), key);
    await first.end();
    await first.run();
    const locked = await first.shoal('node', 'ls');
    assert.equal(locked.status, 1);
    assert.match(locked.stderr, /"shoal swarm unlock"/);
    const wrong = await first.shoalWith('SWMKEY-1-wrong\n', 'swarm', 'unlock');
    assert.equal(wrong.status, 1);
    assert.match(wrong.stderr, /invalid key/);
    assert.equal((await first.shoalWith('', 'swarm', 'unlock')).status, 1);
    const right = await first.shoalWith(`${key}\n`, 'swarm', 'unlock');
    assert.equal(right.status, 0, right.stderr);
    await waitFor('the manager to lead', boundMs, async () => (await first.shoal('node', 'ls')).status === 0);
    await first.out('swarm', 'update', '--autolock=false');
    assert.equal((await first.shoal('swarm', 'unlock-key')).status, 1);
  });

  it('the last manager leaves by force only', async () => {
    const refused = await first.shoal('swarm', 'leave');
    assert.equal(refused.status, 1);
    assert.match(refused.stderr, /last manager erases all current state.*--force/);
    assert.equal(await first.out('swarm', 'leave', '--force'), 'Node left the swarm.');
    assert.match(await first.out('info'), /Swarm: inactive/);
  });
});
