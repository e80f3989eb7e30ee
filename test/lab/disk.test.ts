/** Disks that are full and disks that lie: a group of three managers on h1 to h3, and a manager alone on h4. */
import assert from 'node:assert/strict';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { create, idle, nodeNamed, serviceOf, swarmOf, waitForRunning } from './asking.ts';
import { clientOf, containerFingerprint, containersOn, leaderHost, nodesSeenBy, tasksOf } from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

const diskFull = /no space is left on its file system; free some space/;

describe('lab: disks that are full or damaged', () => {
  let lab: Lab;
  let group: LabHost[];
  let alone: LabHost;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(4, 'shoal-faults');
    group = [lab.host(1), lab.host(2), lab.host(3)];
    alone = lab.host(4);
    for (const host of [lab.host(1), alone]) await smallDisk(host);
    await Promise.all(lab.hosts.map((host) => host.startShoald()));
    await lab.host(1).shoal('swarm', 'init', '--advertise-addr', lab.host(1).address);
    await alone.shoal('swarm', 'init', '--advertise-addr', alone.address);
    for (const host of group.slice(1)) await joinAsManager(host);
    await managersAre(lab.host(1), 3);
  });

  after(async () => {
    await lab?.down();
  });

  async function joinAsManager(host: LabHost): Promise<void> {
    const { stdout: token } = await lab.host(1).shoal('swarm', 'join-token', '-q', 'manager');
    await host.shoal('swarm', 'join', '--token', token.trim(), `${lab.host(1).address}:2377`);
  }

  /** The host's data directory on a file system of its own, of a few megabytes, that only the host sees. */
  async function smallDisk(host: LabHost): Promise<void> {
    await host.exec('mkdir', '-p', host.dataDir);
    await host.exec('mount', '-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', host.dataDir);
  }

  const fill = (host: LabHost) =>
    host.exec('sh', '-c', `dd if=/dev/zero of=${host.dataDir}/ballast bs=4k 2>/dev/null || true`);
  const makeRoom = (host: LabHost) => host.exec('rm', `${host.dataDir}/ballast`);

  const managersAre = (witness: LabHost, count: number) =>
    waitFor(`${count} managers to be reachable`, 40_000, async () => {
      const nodes = await nodesSeenBy(witness);
      return nodes.filter((node) => node.ManagerStatus?.Reachability === 'reachable').length === count;
    });

  /**
   * Makes services until the log's last byte is used up, large ones first: the log keeps room ahead of itself, which
   * ends long after the disk's. Answers the last refusal.
   */
  async function refusal(host: LabHost, name: string): Promise<string> {
    const client = clientOf(host);
    let sentence = '';
    for (const bytes of [100_000, 10_000, 1_000, 1]) {
      sentence = await refusalOf(host, async (attempt) => {
        const filler = { filler: 'x'.repeat(bytes) };
        const TaskTemplate = { ContainerSpec: { Image: 'busybox:lab' } };
        const Mode = { Replicated: { Replicas: 0 } };
        const Name = `${name}-${bytes}-${attempt}`;
        await client.post('/services/create', { Name, Labels: filler, TaskTemplate, Mode });
      });
    }
    return sentence;
  }

  async function refusalOf(host: LabHost, make: (attempt: number) => Promise<void>): Promise<string> {
    for (let attempt = 0; attempt < 200; attempt++) {
      try {
        await make(attempt);
      } catch (error) {
        return (error as Error).message;
      }
    }
    throw new Error(`${host.name} went on although its disk is full`);
  }

  describe('a manager alone whose disk is full', () => {
    it('acknowledges nothing and says so, touches no container, and goes on by itself once there is room', async () => {
      await create(alone, 'web', '--replicas', '2', ...idle);
      await waitForRunning(alone, 'web', 2);
      const before = await containerFingerprint(alone);
      const pids = alone.shoaldPids();
      await fill(alone);
      assert.match(await refusal(alone, 'more'), diskFull);
      await assert.rejects(alone.docker('service', 'create', '-d', '--name', 'lost', ...idle), diskFull);
      assert.deepEqual(await containerFingerprint(alone), before, 'containers are untouched');
      assert.deepEqual(alone.shoaldPids(), pids, 'the daemon lives');
      assert.match(readFileSync(alone.logPath, 'utf8'), diskFull);
      await makeRoom(alone);
      await waitFor('a write to go through again', 30_000, async () => {
        await create(alone, 'again', ...idle);
        return true;
      });
      await waitForRunning(alone, 'again', 1);
      await assert.rejects(serviceOf(alone, 'lost'), /not found/);
      assert.deepEqual(
        (await containerFingerprint(alone)).filter((line) => before.includes(line)),
        before,
        'and still',
      );
    });

    it('can be started on the full disk: it goes on refusing, and comes up once there is room', async () => {
      const before = await containerFingerprint(alone);
      await fill(alone);
      assert.match(await refusal(alone, 'full'), diskFull);
      await alone.killShoald('SIGKILL');
      await alone.startShoald();
      // What was torn is cut off at the start; what room that gives is used up, too.
      assert.match(await refusal(alone, 'early'), diskFull);
      assert.equal((await swarmOf(alone)).LocalNodeState, 'active');
      await makeRoom(alone);
      await waitFor('a write to go through again', 30_000, async () => {
        await create(alone, 'later', '--replicas', '0', ...idle);
        return true;
      });
      await waitForRunning(alone, 'web', 2);
      assert.deepEqual(await containerFingerprint(alone), before, 'containers are untouched');
    });
  });

  describe('a leader whose disk is full', () => {
    it('leaves the lead to others, who go on; it follows again once there is room', async () => {
      const [first, second] = [group[0]!, group[1]!];
      await create(second, 'web', '--replicas', '3', ...idle);
      await waitForRunning(second, 'web', 3);
      const before = await Promise.all(group.map(containerFingerprint));
      assert.equal(await leaderHost(lab, second), first, 'h1 leads at first');
      await fill(first);
      await refusal(first, 'x').then((sentence) => assert.match(sentence, diskFull));
      await waitFor('another leader', 30_000, async () => (await leaderHost(lab, second)) !== first);
      await waitFor('the others to write', 30_000, async () => {
        await create(second, 'others', '--replicas', '2', ...idle);
        return true;
      });
      await waitForRunning(second, 'others', 2);
      await assert.rejects(create(first, 'never', '--replicas', '0', ...idle), diskFull);
      const after = await Promise.all(group.map(containerFingerprint));
      for (const [index, lines] of before.entries()) {
        assert.deepEqual(
          lines.filter((line) => !after[index]!.includes(line)),
          [],
          `containers of h${index + 1}`,
        );
      }
      await makeRoom(first);
      await waitFor('h1 to catch up', 30_000, async () => {
        await serviceOf(first, 'others');
        return true;
      });
      await create(first, 'through', '--replicas', '0', ...idle);
      await serviceOf(second, 'through');
      await assert.rejects(serviceOf(second, 'never'), /not found/);
      await first.shoal('service', 'rm', 'others', 'through');
    });
  });

  describe('a Raft log that was damaged', () => {
    it('is refused with file, place and the way out; that way works, and the cluster goes on meanwhile', async () => {
      const [first, third] = [group[0]!, group[2]!];
      const old = await nodeNamed(first, 'h3');
      await third.killShoald('SIGKILL');
      const path = join(third.dataDir, 'raft', 'log-0000000001');
      const bytes = readFileSync(path);
      // In the midst of what was written: zeros follow it, kept for what is to come.
      bytes[Math.floor(bytes.findLastIndex((byte) => byte !== 0) / 2)]! ^= 1;
      writeFileSync(path, bytes);

      const { status, words } = await third.shoaldRefuses();
      assert.equal(status, 1);
      assert.match(words, /the Raft log is damaged/);
      assert.match(words, /log-0000000001, byte \d+/);
      assert.match(words, /remove the data directory and join this manager anew/);
      assert.deepEqual(third.shoaldPids(), [], 'no daemon is silently up');
      await create(first, 'meanwhile', '--replicas', '0', ...idle);

      rmSync(third.dataDir, { recursive: true });
      await third.startShoald();
      await joinAsManager(third);
      await waitFor('the old node to be down', 30_000, async () => {
        const node = (await nodesSeenBy(first)).find(({ ID }) => ID === old.ID);
        return node?.Status.State === 'down';
      });
      await first.shoal('node', 'demote', old.ID);
      await waitFor('the old node to be removed', 30_000, async () => {
        await first.shoal('node', 'rm', old.ID);
        return true;
      });
      await managersAre(first, 3);
      const now = await nodeNamed(first, 'h3');
      assert.notEqual(now.ID, old.ID);
      await waitForRunning(first, 'web', 3);
      await serviceOf(third, 'meanwhile');
      await waitFor('no container to be doubled', 40_000, async () => {
        const containers = (await Promise.all(group.map(containersOn))).flat();
        const wanted = (await tasksOf(first, 'web')).filter((task) => task.DesiredState === 'running');
        if (containers.length === wanted.length) return true;
        throw new Error(`${containers.length} containers for ${wanted.length} tasks`);
      });
    });
  });
});
