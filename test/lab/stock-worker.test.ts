/** Stock Docker Engines as workers of our managers: joined by `docker swarm join`, they run what Swarm's workers run. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Cluster, ClusterNode, NodeDescription, Service } from '../../proto/docker.ts';
import { clientOf, containersOn, leaderHost, nodesSeenBy, runningTasks, tasksOf } from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

/** Without it an engine asks its registry for each image and waits for the answer: here there is none. */
const offline = { DOCKER_SERVICE_PREFER_OFFLINE_IMAGE: '1' };

const onStock = '--constraint=node.labels.kind==stock';

describe('lab: stock Docker Engines as workers', () => {
  let lab: Lab;
  let manager: LabHost;
  let first: LabHost;
  let second: LabHost;
  let folder: string;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(5, 'lab-stock', offline);
    const managers = lab.hosts.slice(0, 3);
    [manager, first, second] = [lab.host(1), lab.host(4), lab.host(5)];
    folder = mkdtempSync(join(tmpdir(), 'shoal-lab-'));
    await Promise.all(managers.map((host) => host.startShoald()));
    await manager.shoal('swarm', 'init', '--advertise-addr', manager.address);
    const token = await tokenFor('manager');
    for (const host of managers.slice(1)) {
      await host.shoal('swarm', 'join', '--token', token, `${manager.address}:2377`);
    }
  });

  after(async () => {
    if (folder) rmSync(folder, { recursive: true, force: true });
    await lab?.down();
  });

  async function tokenFor(role: 'worker' | 'manager'): Promise<string> {
    return (await manager.shoal('swarm', 'join-token', '-q', role)).stdout.trim();
  }

  function create(name: string, ...words: string[]): Promise<unknown> {
    return manager.docker('service', 'create', '--detach', '--name', name, ...words);
  }

  /** The id of a service's only running container on a host. */
  async function containerOf(host: LabHost, service: string): Promise<string> {
    return waitFor(`a container of ${service} on ${host.name}`, 60_000, async () => {
      const filter = ['--filter', `label=com.docker.swarm.service.name=${service}`];
      const ids = (await host.engine('ps', '-q', ...filter)).stdout.split('\n').filter(Boolean);
      return ids.length === 1 && ids[0];
    });
  }

  async function runs(service: string, count: number): Promise<void> {
    await waitFor(`${count} tasks of ${service}`, 60_000, async () => {
      return (await runningTasks(manager, service)).length === count;
    });
  }

  /** What a command in a container prints; empty when it fails. */
  async function inside(host: LabHost, container: string, ...command: string[]): Promise<string> {
    return host.engine('exec', container, ...command).then(
      ({ stdout }) => stdout,
      () => '',
    );
  }

  it('one that comes with the manager token is told in words what it can do', async () => {
    const token = await tokenFor('manager');
    await assert.rejects(
      first.engine('swarm', 'join', '--token', token, `${manager.address}:2377`),
      /a Docker Engine can join as a worker only: it can't take part in this cluster's Raft\. Use the worker token/,
    );
    assert.equal((await nodesSeenBy(manager)).length, 3);
  });

  it('joins with the worker token, at any manager', async () => {
    const token = await tokenFor('worker');
    await first.engine('swarm', 'join', '--token', token, `${manager.address}:2377`);
    await second.engine('swarm', 'join', '--token', token, `${lab.host(2).address}:2377`);
    await waitFor('five nodes', 30_000, async () => {
      const ready = (await nodesSeenBy(manager)).filter((node) => node.Status.State === 'ready');
      return ready.length === 5;
    });
    for (const host of [first, second]) {
      await manager.docker('node', 'update', '--label-add', 'kind=stock', host.name);
    }
  });

  it('a service runs beside our agents', async () => {
    await create('beside', '--mode', 'global', '--network', 'host', 'busybox:lab', 'sleep', '1000000');
    await runs('beside', 5);
    const container = await containerOf(first, 'beside');
    const mode = ['inspect', '-f', '{{.HostConfig.NetworkMode}}', container];
    assert.equal((await first.engine(...mode)).stdout.trim(), 'host');
    await manager.docker('service', 'rm', 'beside');
  });

  it('secret, config, mounts, health check, limits and a host port reach the container', async () => {
    const file = join(folder, 'word');
    writeFileSync(file, 'nobody may know');
    await manager.docker('secret', 'create', 'word', file);
    await manager.docker('config', 'create', 'motd', file);
    await create(
      'full',
      onStock,
      '--replicas=2',
      '--replicas-max-per-node=1',
      '--secret=word',
      '--config=source=motd,target=/etc/motd',
      '--mount=type=tmpfs,target=/scratch',
      '--mount=type=volume,source=kept,target=/kept',
      '--health-cmd=test -e /kept',
      '--health-interval=1s',
      '--limit-memory=64m',
      '--publish=mode=host,target=80,published=8088',
      '--env=WHERE={{.Node.Hostname}}',
      '--stop-grace-period=1s',
      'busybox:lab',
      'sh',
      '-c',
      'echo I am on $WHERE; httpd -f -p 80 -h /run/secrets',
    );
    await runs('full', 2);
    for (const host of [first, second]) {
      const id = await containerOf(host, 'full');
      const said = await inside(
        host,
        id,
        'sh',
        '-c',
        'cat /run/secrets/word /etc/motd; mount | grep /scratch',
      );
      assert.match(said, /^nobody may knownobody may know\s*tmpfs on \/scratch/);
      const format = '{{.HostConfig.Memory}} {{.State.Health.Status}}';
      await waitFor(`health of ${id}`, 20_000, async () => {
        return (await host.engine('inspect', '-f', format, id)).stdout.trim() === '67108864 healthy';
      });
      const page = await manager.exec('curl', '-s', '-m', '5', `http://${host.address}:8088/word`);
      assert.equal(page.stdout, 'nobody may know');
    }
    const { stdout: lines } = await manager.docker('service', 'logs', '--raw', 'full');
    assert.deepEqual(lines.trim().split('\n').sort(), ['I am on h4', 'I am on h5']);
  });

  it('an update replaces its tasks, a drain moves them away', async () => {
    await create(
      'moving',
      onStock,
      '--replicas=2',
      '--stop-grace-period=1s',
      'busybox:lab',
      'sleep',
      '1000000',
    );
    await runs('moving', 2);
    await manager.docker('service', 'update', '--detach', '--env-add=NEW=1', 'moving');
    await waitFor('both tasks to be new', 60_000, async () => {
      const tasks = await runningTasks(manager, 'moving');
      const isNew = tasks.filter((task) => task.Spec.ContainerSpec.Env?.includes('NEW=1'));
      return tasks.length === 2 && isNew.length === 2;
    });
    // It may have one task a node, so that nothing could take the place of the one on h5: that one would serve on.
    await manager.docker('service', 'rm', 'full');
    await manager.docker('node', 'update', '--availability=drain', 'h5');
    await waitFor('no container on h5', 60_000, async () => (await containersOn(second)).length === 0);
    await runs('moving', 2);
    await manager.docker('node', 'update', '--availability=active', 'h5');
    await manager.docker('service', 'rm', 'moving');
  });

  describe('an overlay network among them', () => {
    let a: string;
    let b: string;

    /** Whether one container reaches another, by the name of its service and by address. */
    async function reaches(host: LabHost, from: string, service: string): Promise<boolean> {
      const looked = await inside(host, from, 'nslookup', service);
      const address = /Name:\s*\S+\s+Address: (10\.\d+\.\d+\.\d+)/.exec(looked)?.[1];
      if (address === undefined) return false;
      return / 0% packet loss/.test(await inside(host, from, 'ping', '-c', '1', '-W', '2', address));
    }

    it('carries names and packets from one to the other', async () => {
      await manager.docker('network', 'create', '--driver', 'overlay', 'app');
      const common = ['--network=app', '--endpoint-mode=dnsrr', '--stop-grace-period=1s'];
      for (const [name, host] of [
        ['a', 'h4'],
        ['b', 'h5'],
      ] as const) {
        const place = `--constraint=node.hostname==${host}`;
        await create(name, ...common, place, 'busybox:lab', 'sleep', '1000000');
      }
      [a, b] = [await containerOf(first, 'a'), await containerOf(second, 'b')];
      await waitFor('a to reach b', 90_000, () => reaches(first, a, 'b'));
      await waitFor('b to reach a', 30_000, () => reaches(second, b, 'a'));
    });

    it('keeps ours away, who would be out of reach', async () => {
      const place = '--constraint=node.hostname==h1';
      await create('far', '--network=app', place, 'busybox:lab', 'sleep', '1000000');
      const client = clientOf(manager);
      const reason = await waitFor('the reason', 30_000, async () => {
        const { ID } = await client.get<Service>('/services/far');
        const filters = JSON.stringify({ service: { [ID]: true } });
        const [task] = await client.get<{ Status: { Err?: string } }[]>('/tasks', { filters });
        return task?.Status.Err;
      });
      assert.match(
        reason,
        /network app lives on the overlay of Docker engines, which is out of reach from node h1/,
      );
      await manager.docker('service', 'rm', 'far');
    });

    it('goes on through a rotation of its keys and of everybody’s certificates', async () => {
      const issuerOf = async () =>
        (await nodesSeenBy(manager)).map((node: { Description: NodeDescription }) => {
          return node.Description.TLSInfo.CertIssuerPublicKey;
        });
      const before = await issuerOf();
      await manager.docker('swarm', 'ca', '--rotate', '--detach');
      await waitFor('every node to have a new certificate', 90_000, async () => {
        const now = await issuerOf();
        const { RootRotationInProgress } = await clientOf(manager).get<Cluster>('/swarm');
        return !RootRotationInProgress && now.every((issuer) => !before.includes(issuer));
      });
      assert.deepEqual([await containerOf(first, 'a'), await containerOf(second, 'b')], [a, b]);
      await waitFor('a to reach b', 30_000, () => reaches(first, a, 'b'));
      const place = '--constraint=node.hostname==h4';
      const common = ['--network=app', '--endpoint-mode=dnsrr', '--stop-grace-period=1s'];
      await create('late', ...common, place, 'busybox:lab', 'sleep', '1000000');
      const late = await containerOf(first, 'late');
      await waitFor('a new task to reach b', 60_000, () => reaches(first, late, 'b'));
      await waitFor('b to reach the new task', 30_000, () => reaches(second, b, 'late'));
    });

    it('no container is touched when the leader dies', async () => {
      const leader = await leaderHost(lab, manager);
      const witness = lab.hosts.slice(0, 3).find((host) => host !== leader)!;
      await leader.killShoald();
      await waitFor('another leader, and all stock engines with it', 60_000, async () => {
        const nodes: ClusterNode[] = await nodesSeenBy(witness);
        const stock = nodes.filter((node) => node.Spec.Labels.kind === 'stock');
        const isLed = nodes.some((node) => node.ManagerStatus?.Leader);
        return isLed && stock.length === 2 && stock.every((node) => node.Status.State === 'ready');
      });
      assert.deepEqual([await containerOf(first, 'a'), await containerOf(second, 'b')], [a, b]);
      await witness.docker('service', 'scale', '--detach', 'late=2');
      await waitFor('a new task under the new leader', 60_000, async () => {
        if ((await runningTasks(witness, 'late')).length === 2) return true;
        const [tasks, nodes] = [await tasksOf(witness, 'late'), await nodesSeenBy(witness)];
        const seen = [
          ...tasks.map(({ Status, DesiredState }) => `to be ${DesiredState}: ${JSON.stringify(Status)}`),
          ...nodes.map(({ Description, Status }) => `${Description.Hostname}: ${JSON.stringify(Status)}`),
        ];
        throw new Error(`not two yet: ${seen.join('; ')}`);
      });
      await waitFor('a to reach b', 30_000, () => reaches(first, a, 'b'));
    });
  });
});
