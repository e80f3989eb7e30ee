/**
 * What is left when managers are lost for good: a group made new from any one survivor, and a backup, taken while
 * clients write, restored on fresh hosts with other addresses. Workers and their containers stay.
 */
import assert from 'node:assert/strict';
import { rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Config } from '../../proto/docker.ts';
import { create, idle, nodeNamed, waitForRunning } from './asking.ts';
import { clientOf, containerFingerprint, formCluster, isReady, nodesSeenBy } from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

const patienceMs = 40_000;

type Moment = 'before' | 'meanwhile' | 'after';

/** What clients wrote around a backup, and were told of it: configs made, and some of them removed again. */
class WriteHistory {
  acknowledged = 0;
  #isOver = false;
  #moment: Moment = 'before';
  #startedAt = 0;
  #endedAt = 0;
  readonly #made = new Map<string, Moment>();
  readonly #begunAfter = new Set<string>();
  readonly #removedBefore = new Set<string>();
  readonly #touchedSince = new Set<string>();

  /** Until stop(). Every fourth config is removed again. */
  async write(host: LabHost): Promise<void> {
    const client = clientOf(host);
    for (let number = 1; !this.#isOver; number += 1) {
      const name = `load-${host.name}-${number}`;
      if (this.#moment === 'after') this.#begunAfter.add(name);
      await client.post('/configs/create', { Name: name, Data: 'bG9hZA==', Labels: {} });
      this.#made.set(name, this.#moment);
      this.acknowledged += 1;
      if (number % 4 !== 0) continue;
      this.#touchedSince.add(name);
      await client.delete(`/configs/${name}`);
      if (this.#moment === 'before') this.#removedBefore.add(name);
      this.acknowledged += 1;
    }
  }

  /** The backup is asked for. */
  begin(): void {
    this.#moment = 'meanwhile';
    this.#startedAt = this.acknowledged;
  }

  /** It is there. */
  end(): void {
    this.#moment = 'after';
    this.#endedAt = this.acknowledged;
  }

  stop(): void {
    this.#isOver = true;
  }

  get acknowledgedMeanwhile(): number {
    return this.#endedAt - this.#startedAt;
  }

  /**
   * `restored` has what was acknowledged before the backup was asked for, nothing that was begun after it was there,
   * and of those that the lost cluster still had (`versions`: their indexes) exactly those up to `index`.
   */
  check(restored: ReadonlyMap<string, number>, versions: ReadonlyMap<string, number>, index: number): void {
    const names = [...restored.keys()].filter((name) => name.startsWith('load-'));
    const lost = [...this.#made].filter(
      ([name, moment]) => moment === 'before' && !this.#touchedSince.has(name) && !restored.has(name),
    );
    assert.deepEqual(lost, [], 'acknowledged before the backup');
    assert.deepEqual(
      names.filter((name) => this.#removedBefore.has(name) || this.#begunAfter.has(name)),
      [],
      'removed before the backup, or made after it',
    );
    const upTo = [...versions].filter(([name, at]) => name.startsWith('load-') && at <= index);
    const kept = names.filter((name) => versions.has(name));
    assert.deepEqual(kept.sort(), upTo.map(([name]) => name).sort(), `up to index ${index}`);
  }
}

describe('lab: managers are lost for good', () => {
  let lab: Lab;
  let managers: LabHost[];
  let workers: LabHost[];
  /** Of these the backup's cluster is made anew. */
  let fresh: LabHost[];
  let file: string;
  let key: string;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(8, 'shoal-recovery');
    managers = lab.hosts.slice(0, 3);
    workers = lab.hosts.slice(3, 5);
    fresh = lab.hosts.slice(5);
    file = join('/var/lib', lab.name, 'cluster.backup');
    await formCluster({ hosts: lab.hosts.slice(0, 5) } as Lab, 3);
    // A worker that a busy machine keeps from finding its new leader in time would be taken for lost.
    await managers[0]!.shoal('swarm', 'update', '--dispatcher-heartbeat', '5s');
    for (const { name } of managers)
      await managers[0]!.shoal('node', 'update', '--availability', 'drain', name);
    await create(managers[0]!, 'web', '--replicas', '4', '--network', 'host', ...idle);
    await waitForRunning(managers[0]!, 'web', 4);
  });

  after(async () => {
    await lab?.down();
  });

  const tokenOf = async (role: 'worker' | 'manager', witness: LabHost) =>
    (await witness.shoal('swarm', 'join-token', '-q', role)).stdout.trim();

  /** What would differ if a container of a worker had been touched. */
  const containers = async () => (await Promise.all(workers.map(containerFingerprint))).flat();

  const workersReady = (witness: LabHost) =>
    waitFor('the workers to be ready', patienceMs, async () => {
      const nodes = await nodesSeenBy(witness);
      const ready = nodes.filter(isReady).map((node) => node.Description.Hostname);
      return workers.every(({ name }) => ready.includes(name));
    });

  /** Kills managers and forgets what was on their disks. */
  async function lose(hosts: readonly LabHost[]): Promise<void> {
    await Promise.all(hosts.map((host) => host.killShoald('SIGKILL')));
    for (const { dataDir } of hosts) rmSync(dataDir, { recursive: true, force: true });
  }

  async function threeManagers(witness: LabHost): Promise<void> {
    await waitFor('three managers and all nodes ready', patienceMs, async () => {
      const nodes = await nodesSeenBy(witness);
      const reachable = nodes.filter((node) => node.ManagerStatus?.Reachability === 'reachable');
      return reachable.length === 3 && nodes.length === 5 && nodes.every(isReady);
    });
  }

  /** All at once: one waits for the other's turn, not for its end. */
  async function joinAsManagers(hosts: readonly LabHost[], witness: LabHost): Promise<void> {
    const flags = ['--token', await tokenOf('manager', witness), '--availability', 'drain'];
    await Promise.all(
      hosts.map(async (host) => {
        await host.startShoald();
        await host.shoal('swarm', 'join', ...flags, `${witness.address}:2377`);
      }),
    );
  }

  async function rejoin(hosts: readonly LabHost[], witness: LabHost): Promise<void> {
    await Promise.all(
      hosts.map(({ name }) =>
        waitFor(`${name} to be removed`, patienceMs, async () => {
          await witness.shoal('node', 'rm', '--force', (await nodeNamed(witness, name)).ID);
          return true;
        }),
      ),
    );
    await joinAsManagers(hosts, witness);
    await threeManagers(witness);
  }

  describe('a new group from one survivor', () => {
    for (const number of [1, 2, 3]) {
      it(`which is h${number}: the workers, their containers and the tokens stay`, async () => {
        const survivor = lab.host(number);
        const others = managers.filter((host) => host !== survivor);
        const before = await containers();
        const token = await tokenOf('worker', survivor);
        await lose(others);
        await survivor.shoal('swarm', 'init', '--force-new-cluster');
        await workersReady(survivor);
        await waitForRunning(survivor, 'web', 4);
        assert.deepEqual(await containers(), before);
        assert.equal(await tokenOf('worker', survivor), token);
        await rejoin(others, survivor);
        assert.deepEqual(await containers(), before);
      });
    }
  });

  describe('a backup', () => {
    const history = new WriteHistory();
    /** Of the last entry in the backup. */
    let index: number;
    /** Indexes of the configs as the lost cluster had them. */
    let versions: ReadonlyMap<string, number>;

    const configsOf = async (host: LabHost) => {
      const configs = await clientOf(host).get<Config[]>('/configs');
      return new Map(configs.map(({ Spec, Version }) => [Spec.Name, Version.Index]));
    };

    it('is taken on a follower while clients write through every manager', async () => {
      const follower = await waitFor('a follower', patienceMs, async () => {
        const nodes = await nodesSeenBy(managers[0]!);
        const name = nodes.find((node) => node.ManagerStatus && !node.ManagerStatus.Leader)?.Description
          .Hostname;
        return managers.find((host) => host.name === name);
      });
      await managers[0]!.shoalReading('hush-hush', 'secret', 'create', 'hush', '-');
      const load = managers.map((host) => history.write(host));
      await waitFor('writes', patienceMs, () => history.acknowledged >= 60);
      history.begin();
      const { stdout } = await follower.shoal('backup', 'create', file);
      history.end();
      const told = history.acknowledged;
      await waitFor('writes to go on', patienceMs, () => history.acknowledged >= told + 20);
      history.stop();
      await Promise.all(load);
      assert.ok(history.acknowledgedMeanwhile > 0, 'nobody waited for the backup');
      versions = await configsOf(managers[0]!);
      index = Number(/\(index (\d+)\)/.exec(stdout)?.[1]);
      key = /SHOALBACKUP-1-\S+/.exec(stdout)?.[0] ?? '';
      assert.notEqual(key, '', 'without autolock a key is made and printed');
      assert.equal(statSync(file).mode & 0o777, 0o600);
      await assert.rejects(follower.shoal('backup', 'create', file), /is there already/);
    });

    it('is rehearsed by a host that runs no daemon, and refused with another key', async () => {
      const { stdout } = await fresh[0]!.shoalReading(key, 'backup', 'verify', file);
      assert.match(stdout, /Managers: +3 \(h\d, h\d, h\d\)/);
      assert.match(stdout, /Workers: +2 \(h[45], h[45]\)/);
      assert.match(stdout, /Services: +1 \(web\), 4 tasks wanted/);
      assert.match(stdout, /It can be restored/);
      assert.match((await fresh[0]!.shoal('backup', 'inspect', file)).stdout, /^Cluster: +\w{25}$/m);
      await assert.rejects(
        fresh[0]!.shoalReading('nonsense', 'backup', 'verify', file),
        /does not open the backup/,
      );
    });

    it('is restored at another address: the same cluster with all that was acknowledged; workers come, tasks run on', async () => {
      const [first] = fresh as [LabHost];
      const cluster = await clientOf(managers[0]!).get<{ ID: string; JoinTokens: unknown }>('/swarm');
      const before = await containers();
      await lose(managers);
      await first.startShoald();
      const keyFile = `${file}.key`;
      writeFileSync(keyFile, key, { mode: 0o600 });
      const at = ['--advertise-addr', first.address, '--availability', 'drain'];
      const { stdout } = await first.shoal('backup', 'restore', file, '--key-file', keyFile, ...at);
      const restored = await clientOf(first).get<{ ID: string; JoinTokens: unknown }>('/swarm');
      assert.deepEqual([restored.ID, restored.JoinTokens], [cluster.ID, cluster.JoinTokens]);
      history.check(await configsOf(first), versions, index);
      for (const { name } of managers) {
        const lost = await nodeNamed(first, name);
        assert.deepEqual([lost.Status.State, lost.Spec.Role], ['down', 'worker']);
      }
      for (const { name } of workers)
        assert.equal((await nodeNamed(first, name)).Status.State, 'disconnected');
      await assert.rejects(
        first.shoal('backup', 'restore', file, '--key-file', keyFile),
        /already part of a swarm/,
      );

      // The command that restore printed, as it is.
      const told = /shoal (swarm join --token \S+ \S+)/.exec(stdout)![1]!.split(' ');
      await Promise.all(workers.map((worker) => worker.shoal(...told)));
      await workersReady(first);
      await waitForRunning(first, 'web', 4);
      assert.deepEqual(await containers(), before);
      await assert.rejects(workers[0]!.shoal(...told), /already part of a swarm/, 'it has found them');
    });

    it('goes on: fresh managers join to three with the old token, the restored one is lost, and nothing stops', async () => {
      const [first, second, third] = fresh as [LabHost, LabHost, LabHost];
      const before = await containers();
      await joinAsManagers([second, third], first);
      await Promise.all(managers.map(({ name }) => first.shoal('node', 'rm', name)));
      await threeManagers(second);
      await lose([first]);
      await waitFor('another to lead, and the workers with it', patienceMs, async () => {
        const nodes = await nodesSeenBy(second);
        const leader = nodes.find((node) => node.ManagerStatus?.Leader)?.Description.Hostname;
        return leader === second.name || leader === third.name;
      });
      await workersReady(second);
      history.check(await configsOf(third), versions, index);
      await create(second, 'reads', '--mode', 'global', '--secret', 'hush', '--network', 'host', ...idle);
      await second.shoal('service', 'scale', '--detach', 'web=6');
      await Promise.all([waitForRunning(second, 'web', 6), waitForRunning(second, 'reads', 2)]);
      // Those of old are among those of now.
      const now = await containers();
      assert.deepEqual(
        before.filter((line) => !now.includes(line)),
        [],
      );
    });
  });
});
