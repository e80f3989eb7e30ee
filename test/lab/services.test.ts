/** What can go wrong with a service, and what a service asks of its containers, on two hosts with real engines. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Service } from '../../proto/docker.ts';
import { create, idle, inside, serviceOf, waitForReason, waitForRunning } from './asking.ts';
import { containersOn, formCluster, tasksOf } from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

describe('lab: services that fail, and what they ask for', () => {
  let lab: Lab;
  let host: LabHost;
  let folder: string;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(2, 'shoal-faults');
    await formCluster(lab, 1);
    host = lab.host(1);
    folder = mkdtempSync(join(tmpdir(), 'shoal-faults-'));
  });

  after(async () => {
    if (folder) rmSync(folder, { recursive: true, force: true });
    await lab?.down();
  });

  const remove = (...names: string[]) => host.shoal('service', 'rm', ...names);

  async function containerOf(service: string): Promise<{ on: LabHost; id: string }> {
    const [task] = await waitForRunning(host, service, 1);
    const id = task?.Status.ContainerStatus?.ContainerID ?? '';
    for (const on of lab.hosts) if ((await containersOn(on)).includes(id)) return { on, id };
    throw new Error(`no engine has container ${id}`);
  }

  /** When a container started and ended, by its engine's clock. */
  async function runOf(id: string): Promise<{ startedMs: number; endedMs: number }> {
    const format = '{{.State.StartedAt}} {{.State.FinishedAt}}';
    for (const on of lab.hosts) {
      const found = await on.engine('inspect', '--format', format, id).catch(() => undefined);
      const [started, ended] = found?.stdout.trim().split(' ') ?? [];
      if (started && ended) return { startedMs: Date.parse(started), endedMs: Date.parse(ended) };
    }
    throw new Error(`no engine has container ${id}`);
  }

  describe('why a task failed', () => {
    it('says that the image does not exist', async () => {
      await create(host, 'noimage', '--restart-condition', 'none', 'nobody/has-this:1');
      const task = await waitForReason(host, 'noimage', /No such image: nobody\/has-this:1/);
      assert.equal(task.Status.State, 'rejected');
      const { stdout } = await host.docker('service', 'ps', '--no-trunc', 'noimage');
      assert.match(stdout, /Rejected.*No such image: nobody\/has-this:1/);
      await remove('noimage');
    });

    it('restarts what exits with 1 as often as its policy allows, with the delay between, and says so', async () => {
      await create(
        host,
        'exits',
        '--restart-condition',
        'on-failure',
        '--restart-delay',
        '1s',
        '--restart-max-attempts',
        '2',
        ...['busybox:lab', 'sh', '-c', 'exit 1'],
      );
      await waitForReason(host, 'exits', /task: non-zero exit \(1\)/);
      const tasks = await waitFor('three attempts to have failed', 40_000, async () => {
        const all = await tasksOf(host, 'exits');
        return all.length >= 3 && all.every((task) => task.Status.State === 'failed') && all;
      });
      assert.equal(tasks.length, 3, 'one start and two restarts');
      const runs = await Promise.all(
        tasks.map((task) => runOf(task.Status.ContainerStatus?.ContainerID ?? '')),
      );
      runs.sort((a, b) => a.startedMs - b.startedMs);
      for (const [index, run] of runs.slice(1).entries()) {
        const waitedMs = run.startedMs - runs[index]!.endedMs;
        assert.ok(waitedMs >= 1_000, `attempt ${index + 2} began ${waitedMs} ms after the one before ended`);
      }
      assert.match((await host.docker('service', 'ps', 'exits')).stdout, /Failed.*non-zero exit \(1\)/);
      await remove('exits');
    });

    it('says that a container ran out of memory', async () => {
      const hog = ['busybox:lab', 'tail', '/dev/zero'];
      await create(host, 'hog', '--limit-memory', '16M', '--restart-condition', 'none', ...hog);
      const task = await waitForReason(host, 'hog', /ran out of memory/);
      assert.equal(task.Status.ContainerStatus?.ExitCode, 137);
      await remove('hog');
    });

    it('says what the health check that failed printed', async () => {
      await create(
        host,
        'sick',
        '--restart-condition',
        'none',
        ...['--health-cmd', 'echo the pulse is gone; exit 1', '--health-interval', '1s'],
        ...['--health-retries', '1', '--health-timeout', '5s'],
        ...idle,
      );
      const task = await waitForReason(host, 'sick', /unhealthy container.*the pulse is gone/);
      assert.equal(task.Status.State, 'failed');
      await remove('sick');
    });

    it('says of a template that cannot be carried out where it stands, before anything runs', async () => {
      await assert.rejects(
        create(host, 'notemplate', '--hostname', '{{.Nothing.Here}}', ...idle),
        /ContainerSpec\.Hostname: expanding template \{\{\.Nothing\.Here\}\} failed/,
      );
    });

    it('says that the command does not exist', async () => {
      await create(host, 'nocommand', '--restart-condition', 'none', 'busybox:lab', '/no/such/command');
      await waitForReason(host, 'nocommand', /starting container failed.*\/no\/such\/command/);
      await remove('nocommand');
    });
  });

  describe('jobs', () => {
    const completed = (name: string, words: RegExp) =>
      waitFor(`${name} to show ${words}`, 60_000, async () => {
        const { stdout } = await host.docker('service', 'ls', '--filter', `name=${name}`);
        return words.test(stdout);
      });

    it('run to their end in either client’s view, and again when forced', async () => {
      const job = ['--mode', 'replicated-job', '--replicas', '4', '--max-concurrent', '2'];
      // Without --detach, the stock client waits for each slot to complete.
      await host.docker('service', 'create', '--name', 'batch', ...job, 'busybox:lab', 'true');
      await completed('batch', /replicated job +0\/2 \(4\/4 completed\)/);
      const first = (await tasksOf(host, 'batch')).map((task) => task.ID);
      await host.docker('service', 'update', '--detach', '--force', 'batch');
      await waitFor('the second run to complete', 60_000, async () => {
        const tasks = await tasksOf(host, 'batch');
        const again = tasks.filter((task) => !first.includes(task.ID));
        return again.length === 4 && again.every((task) => task.Status.State === 'complete');
      });
      const { stderr } = await host.shoal(
        'service',
        'create',
        '--name',
        'each',
        '--mode',
        'global-job',
        ...['busybox:lab', 'true'],
      );
      assert.match(stderr, /2 out of 2 tasks[\s\S]*job complete/);
      await completed('each', /global job +0\/0 \(2\/2 completed\)/);
      await remove('batch', 'each');
    });

    it('give a slot up as the restart policy says, and go on with the others', async () => {
      const job = ['--mode', 'replicated-job', '--replicas', '3', '--max-concurrent', '1'];
      const policy = ['--restart-max-attempts', '1', '--restart-delay', '100ms'];
      const script = '[ "$SLOT" != 1 ]';
      const env = ['--env', 'SLOT={{.Task.Slot}}'];
      await create(host, 'partly', ...job, ...policy, ...env, 'busybox:lab', 'sh', '-c', script);
      await completed('partly', /0\/1 \(2\/3 completed\)/);
      const failed = (await tasksOf(host, 'partly')).filter((task) => task.Status.State === 'failed');
      assert.equal(failed.length, 2);
      await remove('partly');
    });
  });

  describe('why a task waits', () => {
    it('names the constraint, the port, the limit per node and the resource that is short', async () => {
      await create(host, 'picky', '--constraint', 'node.labels.disk==ssd', ...idle);
      await create(host, 'big', '--reserve-memory', '900G', ...idle);
      await create(host, 'wide', '--reserve-cpu', '500', ...idle);
      await create(host, 'spread', '--replicas', '3', '--replicas-max-per-node', '1', ...idle);
      const port = ['--publish', 'mode=host,published=18080,target=80'];
      await create(host, 'ported', '--replicas', '3', ...port, ...idle);
      await waitForReason(host, 'picky', /placement constraint node\.labels\.disk ?== ?ssd not satisfied/);
      await waitForReason(host, 'big', /insufficient memory on 2 nodes/);
      await waitForReason(host, 'wide', /insufficient CPU on 2 nodes/);
      await waitForReason(host, 'spread', /max replicas per node limit exceed|replicas per node/);
      await waitForReason(host, 'ported', /host port 18080\/tcp already in use on 2 nodes/);
      for (const name of ['spread', 'ported']) {
        const running = (await tasksOf(host, name)).filter((task) => task.Status.State === 'running');
        assert.equal(new Set(running.map((task) => task.NodeID)).size, running.length, `${name}: one a node`);
      }
      const { stdout } = await host.docker('service', 'ps', '--no-trunc', 'picky');
      assert.match(stdout, /Pending.*placement constraint/);
      await host.shoal('node', 'update', '--label-add', 'disk=ssd', 'h2');
      await waitForRunning(host, 'picky', 1);
      await host.shoal('service', 'scale', '--detach', 'spread=2', 'ported=2');
      await waitForRunning(host, 'spread', 2);
      await waitForRunning(host, 'ported', 2);
      await remove('picky', 'big', 'wide', 'spread', 'ported');
    });
  });

  describe('updates with an image that does not exist', () => {
    const update = (name: string, order: string, action: string) =>
      host.shoal(
        ...['service', 'update', '--detach', '--image', 'nobody/has-this:2'],
        ...['--update-order', order, '--update-failure-action', action, '--update-monitor', '2s'],
        ...['--update-delay', '0s', '--restart-delay', '1s', name],
      );
    const updateState = (name: string, state: string) =>
      waitFor(`the update of ${name} to be ${state}`, 60_000, async () => {
        const { UpdateStatus } = await serviceOf(host, name);
        if (UpdateStatus?.State === state) return UpdateStatus;
        throw new Error(`${UpdateStatus?.State}: ${UpdateStatus?.Message}`);
      });
    const imagesRunning = async (name: string) =>
      (await tasksOf(host, name))
        .filter((task) => task.Status.State === 'running')
        .map((task) => task.Spec.ContainerSpec.Image);

    it('pauses, and the others go on with the old one', async () => {
      await create(host, 'pauser', '--replicas', '3', ...idle);
      await waitForRunning(host, 'pauser', 3);
      await update('pauser', 'start-first', 'pause');
      const status = await updateState('pauser', 'paused');
      assert.match(status.Message ?? '', /update paused/);
      assert.deepEqual(await imagesRunning('pauser'), Array(3).fill('busybox:lab'), 'start-first stops none');
      const { stdout } = await host.docker('service', 'inspect', '--pretty', 'pauser');
      assert.match(stdout, /State:\s+paused/);
      await host.shoal('service', 'rollback', '--detach', 'pauser');
      await waitForRunning(host, 'pauser', 3);
      await remove('pauser');
    });

    it('rolls back by itself', async () => {
      await create(host, 'roller', '--replicas', '3', ...idle);
      await waitForRunning(host, 'roller', 3);
      await update('roller', 'stop-first', 'rollback');
      await updateState('roller', 'rollback_completed');
      await waitForRunning(host, 'roller', 3);
      assert.deepEqual(await imagesRunning('roller'), Array(3).fill('busybox:lab'));
      const after: Service = await serviceOf(host, 'roller');
      assert.equal(after.Spec.TaskTemplate.ContainerSpec.Image, 'busybox:lab');
      await remove('roller');
    });

    it('a waiting command says why it does not converge, with exit status 1', async () => {
      await create(host, 'waiter', ...idle);
      await waitForRunning(host, 'waiter', 1);
      const command = ['service', 'update', '--image', 'nobody/has-this:3', '--update-monitor', '1s'];
      await assert.rejects(host.shoal(...command, 'waiter'), (error: Error & { code?: number }) => {
        assert.equal(error.code, 1);
        assert.match(error.message, /paused/);
        return true;
      });
      await remove('waiter');
    });
  });

  describe('what a container gets', () => {
    it('secrets in memory only, configs, environment, user, folder, host name, mounts', async () => {
      const secretText = `only in memory ${Math.floor(performance.now())}`;
      const secretPath = join(folder, 'secret');
      const configPath = join(folder, 'config');
      const bindPath = `/var/lib/${lab.name}/bind`;
      writeFileSync(secretPath, secretText);
      writeFileSync(configPath, 'a = 1\n');
      mkdirSync(bindPath, { recursive: true });
      writeFileSync(join(bindPath, 'there'), 'from outside');
      await host.shoal('secret', 'create', 'word', secretPath);
      await host.shoal('config', 'create', 'settings', configPath);
      await create(
        host,
        'full',
        ...['--secret', 'source=word,target=pass,mode=0400,uid=1000'],
        ...['--config', 'source=settings,target=/etc/settings.ini'],
        ...['--env', 'GREETING=good day', '--env', 'SLOT={{.Task.Slot}}'],
        ...['--user', '1000:1000', '--workdir', '/tmp', '--hostname', '{{.Service.Name}}-{{.Task.Slot}}'],
        ...['--mount', 'type=volume,source=keep,target=/keep'],
        ...['--mount', `type=bind,source=${bindPath},target=/bind,readonly`],
        ...['--mount', 'type=tmpfs,target=/scratch'],
        ...idle,
      );
      const { on, id } = await containerOf('full');
      const read = (...command: string[]) => inside(on, id, ...command);
      assert.equal(await read('cat', '/run/secrets/pass'), secretText);
      assert.match(await read('ls', '-ln', '/run/secrets/pass'), /^-r-------- +1 +1000 /);
      const mounts = await read('cat', '/proc/mounts');
      assert.match(mounts, /^\S+ \/run\/secrets\/pass tmpfs /m);
      assert.match(mounts, /^\S+ \/scratch tmpfs /m);
      assert.equal(await read('cat', '/etc/settings.ini'), 'a = 1\n');
      assert.match(await read('env'), /^GREETING=good day$[\s\S]*^SLOT=1$/m);
      assert.match(await read('id'), /uid=1000 gid=1000/);
      assert.equal((await read('pwd')).trim(), '/tmp');
      assert.equal((await read('hostname')).trim(), 'full-1');
      assert.equal(await read('cat', '/bind/there'), 'from outside');
      await assert.rejects(on.engine('exec', id, 'touch', '/bind/new'), /Read-only/i);
      assert.match((await on.engine('volume', 'ls', '-q')).stdout, /^keep$/m);
      const found = await on
        .exec('grep', '-rlF', '--', secretText, `/var/lib/${lab.name}/${on.name}`)
        .catch((error: Error & { code?: number; stdout?: string }) => ({ stdout: error.stdout ?? '' }));
      assert.equal(found.stdout, '', 'the secret lies on no disk');
      await assert.rejects(host.shoal('secret', 'rm', 'word'), /secret 'word' is in use by .*: full/);
      await remove('full');
      await waitFor('the secret to be free', 20_000, async () => {
        await host.shoal('secret', 'rm', 'word');
        return true;
      });
      await host.shoal('config', 'rm', 'settings');
      assert.match((await on.engine('volume', 'ls', '-q')).stdout, /^keep$/m, 'a named volume stays');
    });

    it('its limits of processes, memory and swap, its log driver, and its place among those that are killed first', async () => {
      const memory = ['--limit-memory', '64M', '--memory-swap', '32M', '--limit-pids', '50'];
      const log = ['--log-driver', 'json-file', '--log-opt', 'max-size=1m'];
      await create(host, 'tuned', ...memory, '--oom-score-adj', '100', ...log, ...idle);
      const { on, id } = await containerOf('tuned');
      const { stdout } = await on.engine('inspect', '--format', '{{json .HostConfig}}', id);
      const { Memory, MemorySwap, PidsLimit, OomScoreAdj, LogConfig } = JSON.parse(stdout);
      const mebibyte = 2 ** 20;
      assert.deepEqual([Memory, PidsLimit, OomScoreAdj], [64 * mebibyte, 50, 100]);
      // A kernel that counts no swap has the engine say so and drop it.
      assert.ok([96 * mebibyte, -1].includes(MemorySwap), `${MemorySwap}`);
      assert.deepEqual(LogConfig, { Type: 'json-file', Config: { 'max-size': '1m' } });
      assert.equal((await inside(on, id, 'cat', '/proc/self/oom_score_adj')).trim(), '100');
      await remove('tuned');
    });

    it('what a templated config says of its task', async () => {
      const path = join(folder, 'template');
      writeFileSync(path, 'I am {{.Service.Name}}.{{.Task.Slot}} with {{env "TIER"}} and {{secret "word"}}');
      const secret = join(folder, 'word');
      writeFileSync(secret, 'a word');
      await host.shoal('config', 'create', '--template-driver', 'golang', 'said', path);
      await host.docker('secret', 'create', 'word', secret);
      const given = ['--env', 'TIER=front', '--secret', 'word', '--config', 'source=said,target=/said'];
      await create(host, 'templated', ...given, ...idle);
      const { on, id } = await containerOf('templated');
      const { stdout } = await on.engine('exec', id, 'cat', '/said');
      assert.equal(stdout.trim(), 'I am templated.1 with front and a word');
      await remove('templated');
    });

    it('a health check at its start interval, on engines that know none', async () => {
      const check = ['--health-cmd', 'echo not yet; test -e /tmp/up', '--health-interval', '10m'];
      const early = ['--health-start-period', '10m', '--health-start-interval', '300ms'];
      const slow = `sleep 2; touch /tmp/up; ${idle[3]}`;
      await create(host, 'early', ...check, ...early, ...idle.slice(0, 3), slow);
      await waitForReason(host, 'early', /waiting for the health check to pass \(last output: not yet\)/);
      // The engine itself would look for the first time after ten minutes.
      await waitForRunning(host, 'early', 1);
      await remove('early');
    });

    it('a bind of a folder that is not there is refused in words, and nothing runs', async () => {
      const mount = 'type=bind,source=/no/such/folder,target=/x';
      await create(host, 'nobind', '--mount', mount, '--restart-condition', 'none', ...idle);
      const task = await waitForReason(host, 'nobind', /\/no\/such\/folder/);
      assert.equal(task.Status.State, 'rejected');
      await remove('nobind');
    });
  });

  describe('when all is removed', () => {
    it('no container and no secret is left on any engine', async () => {
      await waitFor('the containers to be gone', 40_000, async () => {
        const left = await Promise.all(lab.hosts.map((one) => one.engine('ps', '-aq')));
        return left.every(({ stdout }) => stdout.trim() === '');
      });
      for (const one of lab.hosts) {
        const { stdout } = await one.exec('sh', '-c', 'find /run/shoal -path "*/files/*" -type f');
        assert.equal(stdout, '', `files of tasks on ${one.name}`);
      }
    });
  });
});
