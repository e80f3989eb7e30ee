/**
 * Reasons, plans, order and histories of services, as a person sees them: our own client, and the stock docker CLI
 * where it can. Two hosts with real engines; the last part cuts the power of both.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import type { TaskWhy } from '../../manager/api/why.ts';
import { create, idle, waitForReason, waitForRunning } from './asking.ts';
import { clientOf, containerFingerprint, containersOn, formCluster, tasksOf } from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

const image = 'busybox:lab';
const forEver = ['sh', '-c', 'trap "exit 0" TERM; while :; do sleep 1000000 & wait; done'];

describe('lab: why, plan, order and history of services', () => {
  let lab: Lab;
  let host: LabHost;
  let folder: string;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(2, 'shoal-extras');
    await formCluster(lab, 1);
    host = lab.host(1);
    folder = mkdtempSync(join(tmpdir(), 'shoal-extras-'));
  });

  after(async () => {
    if (folder) rmSync(folder, { recursive: true, force: true });
    await lab?.down();
  });

  const compose = (services: Record<string, unknown>): string => {
    const path = join(folder, 'compose.yml');
    writeFileSync(path, stringify({ services }));
    return path;
  };
  const refusal = async (work: Promise<unknown>): Promise<string> =>
    work.then(
      () => assert.fail('it was not refused'),
      (error: { stderr?: string }) => error.stderr ?? String(error),
    );

  describe('why', () => {
    it('tells each wait in both clients, and the timeline in ours', async () => {
      await Promise.all([
        create(host, 'ssd', '--constraint', 'node.labels.disk==ssd', ...idle),
        create(host, 'fails', '--restart-delay', '5m', image, 'sh', '-c', 'exit 3'),
        create(
          host,
          'sick',
          ...['--health-cmd', 'echo not yet; false', '--health-interval', '300ms', '--health-retries', '100'],
          ...idle,
        ),
        create(host, 'later', '--label', 'shoal.depends-on=sick:service_healthy', ...idle),
      ]);
      const reasons: [string, RegExp][] = [
        ['ssd', /no suitable node \(.*node\.labels\.disk==ssd/],
        ['fails', /waiting for its restart delay until 20/],
        ['sick', /waiting for the health check to pass \(last output: not yet\)/],
        ['later', /waiting for dependency sick \(service_healthy\): none of its tasks runs and is healthy/],
      ];
      for (const [service, reason] of reasons) {
        await waitForReason(host, service, reason);
        const ours = await host.shoal('service', 'ps', '--no-trunc', service);
        assert.match(ours.stdout, reason);
        const theirs = await host.docker('service', 'ps', '--no-trunc', service);
        assert.match(theirs.stdout, reason);
        assert.match((await host.shoal('service', 'why', service)).stdout, reason);
      }
      const [failed] = (await tasksOf(host, 'fails')).filter((task) => task.Status.State === 'failed');
      const { stdout } = await host.shoal('task', 'why', failed!.ID);
      assert.match(stdout, /pending task scheduling[\s\S]*scheduler assigned task[\s\S]*non-zero exit \(3\)/);
    });

    it('tells that a task is being stopped, and why', async () => {
      await create(host, 'slow', '--stop-grace-period', '4s', image, 'sh', '-c', 'trap "" TERM; sleep 1000');
      const [task] = await waitForRunning(host, 'slow', 1);
      await host.shoal('service', 'scale', '--detach', 'slow=0');
      const why = await waitFor('the task to be told to stop', 10_000, async () => {
        const told = await clientOf(host).get<TaskWhy>(`/tasks/${task!.ID}/why`);
        return told.Reason !== '' && told;
      });
      assert.match(why.Reason, /stopping \(scaled down\): .* stop grace period of 4 s/);
      await host.shoal('service', 'rm', 'slow', 'ssd', 'fails', 'sick', 'later');
      await waitFor('their containers to be gone', 30_000, async () =>
        (await Promise.all(lab.hosts.map(containersOn))).every((containers) => containers.length === 0),
      );
    });
  });

  describe('plan', () => {
    it('shows what a deploy would do, and a deploy does what was shown', async () => {
      const web = { image, command: forEver, deploy: { replicas: 2 } };
      const file = compose({ web });
      const plan = (await host.shoal('stack', 'plan', '-c', file, 'app')).stdout;
      assert.match(
        plan,
        /create service app_web\n {4}starts app_web\.1 on h\d\n {4}starts app_web\.2 on h\d/,
      );
      const version = /--plan-version ([0-9a-f]+)/.exec(plan)![1]!;
      assert.equal((await host.shoal('stack', 'ls', '-q')).stdout.trim(), '', 'nothing was changed');
      const deploy = (path: string) =>
        host.shoal('stack', 'deploy', '-c', path, '--plan-version', version, 'app');
      assert.match(await refusal(deploy(compose({ web: { ...web, user: '1000' } }))), /is out of date/);
      await deploy(compose({ web }));
      const before = await Promise.all(lab.hosts.map(containerFingerprint));
      assert.match((await host.shoal('stack', 'deploy', '-c', file, 'app')).stdout, /Nothing to change/);
      const same = compose({ web: { deploy: { replicas: 2, mode: 'replicated' }, command: forEver, image } });
      assert.doesNotMatch((await host.shoal('stack', 'plan', '-c', same, 'app')).stdout, /restarts/);
      await host.shoal('stack', 'deploy', '-c', same, 'app');
      assert.deepEqual(await Promise.all(lab.hosts.map(containerFingerprint)), before);
      const dry = (await host.shoal('service', 'update', '--dry-run', '--env-add', 'A=1', 'app_web')).stdout;
      assert.match(
        dry,
        /ContainerSpec\.Env: .*A=1[\s\S]*restarts app_web\.1: h\d → h\d[\s\S]*leaves 0 tasks/,
      );
      const memory = ['--reserve-memory', '900g'];
      const big = (await host.shoal('service', 'update', '--dry-run', ...memory, 'app_web')).stdout;
      assert.match(big, /restarts app_web\.1: from h\d, and waits: no suitable node \(.*memory/);
      assert.deepEqual(await Promise.all(lab.hosts.map(containerFingerprint)), before);
      await host.shoal('stack', 'rm', '--detach=false', 'app');
    });
  });

  describe('history', () => {
    it('says who changed what with either client, and leads back', async () => {
      await host.docker('service', 'create', '--detach', '--name', 'web', '--env', 'V=1', ...idle);
      await host.docker('service', 'update', '--detach', '--env-add', 'V=2', 'web');
      await host.shoal('service', 'update', '--detach', '--env-add', 'V=3', 'web');
      const { stdout } = await host.shoal('service', 'history', 'web');
      assert.match(
        stdout,
        /3 .*local socket of node h1 .*ContainerSpec\.Env: -V=2 \+V=3\n2 .*\+V=2\n1 .*created/,
      );
      await host.shoal('service', 'rollback', '--detach', '--to', '1', 'web');
      const { stdout: env } = await host.docker('service', 'inspect', '--pretty', 'web');
      assert.match(env, /Env:\s+V=1/);
      await host.shoal('service', 'rm', 'web');
      const stackOf = (...names: string[]) =>
        compose(Object.fromEntries(names.map((name) => [name, { image, command: forEver }])));
      await host.shoal('stack', 'deploy', '--detach', '-c', stackOf('a', 'b'), 'app');
      await host.shoal('stack', 'deploy', '--detach', '--prune', '-c', stackOf('a', 'c'), 'app');
      assert.match(
        (await host.shoal('stack', 'history', 'app')).stdout,
        /2 .*created app_c; removed app_b\n1 .*created app_default, app_a, app_b/,
      );
      await host.shoal('stack', 'rollback', '--to', '1', 'app');
      const names = (await host.docker('stack', 'services', '--format', '{{.Name}}', 'app')).stdout;
      assert.deepEqual(names.trim().split('\n').sort(), ['app_a', 'app_b']);
      await host.shoal('stack', 'rm', '--detach=false', 'app');
    });
  });

  describe('order', () => {
    const healthcheck = { test: 'test -e /tmp/up', interval: '300ms', retries: 100 };
    const slowStart = ['sh', '-c', `sleep 1; touch /tmp/up; ${forEver[2]}`];
    const services = {
      web: {
        image,
        command: forEver,
        depends_on: {
          db: { condition: 'service_healthy' },
          migrate: { condition: 'service_completed_successfully' },
        },
      },
      migrate: {
        image,
        command: ['sh', '-c', 'sleep 1'],
        depends_on: { db: { condition: 'service_healthy' } },
        deploy: { mode: 'replicated-job' },
      },
      db: { image, command: slowStart, healthcheck },
    };

    /** When the newest container of the service began, and was healthy or ended, by its engine's clock, in ms. */
    async function runOf(
      service: string,
    ): Promise<{ startedMs: number; healthyMs: number; endedMs: number }> {
      const tasks = await tasksOf(host, service);
      const newest = tasks.sort((a, b) => b.CreatedAt.localeCompare(a.CreatedAt))[0];
      const id = newest?.Status.ContainerStatus?.ContainerID ?? '';
      const format = '{{json .State}}';
      for (const on of lab.hosts) {
        const found = await on.engine('inspect', '--format', format, id).catch(() => undefined);
        if (!found) continue;
        const state = JSON.parse(found.stdout) as {
          StartedAt: string;
          FinishedAt: string;
          Health?: { Log: { ExitCode: number; End: string }[] };
        };
        const passed = state.Health?.Log.find((check) => check.ExitCode === 0);
        return {
          startedMs: Date.parse(state.StartedAt),
          healthyMs: Date.parse(passed?.End ?? state.StartedAt),
          endedMs: Date.parse(state.FinishedAt),
        };
      }
      throw new Error(`no engine has container ${id} of ${service}`);
    }

    it('starts services one after the other, and waits for all of it', async () => {
      const { stdout } = await host.shoal('stack', 'deploy', '-c', compose(services), 'shop');
      assert.match(stdout, /Creating service shop_web/);
      const [db, migrate, web] = await Promise.all(['shop_db', 'shop_migrate', 'shop_web'].map(runOf));
      assert.ok(
        migrate!.startedMs > db!.startedMs + 1000,
        'the migration began when the database was healthy',
      );
      assert.ok(web!.startedMs > migrate!.endedMs, 'the web began when the migration had completed');
    });

    it('refuses a circle by name', async () => {
      const circle = { ...services, db: { ...services.db, depends_on: ['web'] } };
      const words = await refusal(host.shoal('stack', 'deploy', '-c', compose(circle), 'shop'));
      assert.match(words, /in a circle.*shop_web → shop_db → shop_web/);
    });

    it('is kept for the stock client, by a label', async () => {
      const path = join(folder, 'stock.yml');
      const web = {
        image,
        command: forEver,
        deploy: { labels: { 'shoal.depends-on': 'db:service_healthy' } },
      };
      writeFileSync(path, stringify({ version: '3.8', services: { web, db: services.db } }));
      await host.docker('stack', 'deploy', '-c', path, 'stock');
      await waitForRunning(host, 'stock_web', 1);
      const [db, web1] = await Promise.all(['stock_db', 'stock_web'].map(runOf));
      assert.ok(web1!.startedMs > db!.startedMs + 1000);
      await host.docker('stack', 'rm', 'stock');
    });

    it('is kept after all hosts lost their power', async () => {
      const before = await runOf('shop_web');
      await Promise.all(lab.hosts.map((one) => one.powerOff()));
      await Promise.all(lab.hosts.map((one) => one.powerOn()));
      await Promise.all(lab.hosts.map((one) => one.startShoald()));
      await waitFor('the web to run in a new container', 60_000, async () => {
        await waitForRunning(host, 'shop_web', 1);
        return (await runOf('shop_web')).startedMs > before.startedMs;
      });
      const [db, web] = await Promise.all(['shop_db', 'shop_web'].map(runOf));
      assert.ok(db!.startedMs > before.startedMs, 'the database was started anew');
      assert.ok(web!.startedMs > db!.startedMs + 1000, 'the web waited until the database was healthy');
    });
  });
});
