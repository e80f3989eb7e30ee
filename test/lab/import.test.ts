/** A stock Docker Swarm with a stack on it, imported into a cluster of ours; the Swarm does not notice. */
import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Network, Service } from '../../proto/docker.ts';
import { inside, nodeNamed, serviceOf, waitForRunning } from './asking.ts';
import { clientOf, containerFingerprint, containersOn } from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

const compose = `
version: "3.8"
services:
  web:
    image: busybox:lab
    command: sh -c 'trap "exit 0" TERM; cat /conf; while :; do sleep 1000 & wait; done'
    networks: [front]
    configs: [{ source: conf, target: /conf, mode: 0440 }]
    deploy:
      replicas: 2
      labels: { of: web }
      placement: { constraints: ["node.labels.disk == ssd"] }
      update_config: { parallelism: 2, order: start-first }
      resources: { limits: { memory: 64M } }
    healthcheck: { test: ["CMD", "true"], interval: 5s }
  db:
    image: busybox:lab
    command: sh -c 'trap "exit 0" TERM; while :; do sleep 1000 & wait; done'
    networks: { front: { aliases: [store] } }
    secrets: [password]
    environment: { A: b }
    deploy: { placement: { constraints: ["node.labels.disk == ssd"] } }
networks:
  front: { driver: overlay, attachable: true, labels: { of: front } }
configs:
  conf: { file: ./conf }
secrets:
  password: { file: ./password }
`;

describe('lab: a Docker Swarm is imported', () => {
  let lab: Lab;
  let swarm: LabHost;
  let ours: LabHost;
  let from: string;
  let folder: string;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(2, 'shoal-import');
    [swarm, ours] = [lab.host(1), lab.host(2)];
    from = `unix://${swarm.dockerSocket}`;
    folder = join('/var/lib', lab.name, 'source');
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, 'conf'), 'of the swarm\n');
    writeFileSync(join(folder, 'password'), 'hush\n');
    writeFileSync(join(folder, 'stack.yml'), compose);
    await swarm.engine('swarm', 'init', '--advertise-addr', swarm.address);
    await swarm.engine('node', 'update', '--label-add', 'disk=ssd', 'h1');
    await swarm.engine('stack', 'deploy', '--resolve-image', 'never', '-c', join(folder, 'stack.yml'), 'app');
    const alone = [
      '--detach',
      '--no-resolve-image',
      '--name',
      'alone',
      '--mode',
      'global',
      '--network',
      'host',
    ];
    const sleeper = ['busybox:lab', 'sh', '-c', 'trap "exit 0" TERM; while :; do sleep 1000 & wait; done'];
    await swarm.engine('service', 'create', ...alone, '--label', 'of=nobody', ...sleeper);
    await ours.startShoald();
    // Another pool than Docker's, for a host that moves is in both for a while.
    const pool = ['--default-addr-pool', '10.128.0.0/16'];
    await ours.shoal('swarm', 'init', '--advertise-addr', ours.address, ...pool);
    await waitFor(
      'the swarm to run four tasks',
      60_000,
      async () => (await containersOn(swarm)).length === 4,
    );
  });

  after(async () => {
    await lab?.down();
  });

  it('says what it would do, and does nothing', async () => {
    const { stdout } = await ours.shoal('import', '--from', from, '--dry-run');
    for (const line of [
      '+ stack app',
      '+ network app_front',
      '+ config app_conf',
      '+ service app_web',
      '+ service alone',
      '! service app_db: it needs secret app_password, which is not here',
      '! labels of node h1: it is not here yet; import again when it has joined',
    ]) {
      assert.ok(stdout.split('\n').includes(line), `${line} in ${stdout}`);
    }
    assert.match(
      stdout,
      /! secret app_password: no Swarm gives .* \(needed by app_db\): give it with --secret/,
    );
    assert.match(stdout, /Would be done in one step: 4 objects made, 0 nodes labelled\. Nothing was changed/);
    assert.deepEqual(await clientOf(ours).get('/services'), []);
  });

  it('makes the same here, in one entry; the swarm’s containers go on', async () => {
    const before = await containerFingerprint(swarm);
    const { stdout } = await ours.shoal('import', '--from', from);
    assert.match(stdout, /Done in one step: 4 objects made/);
    assert.match((await ours.docker('stack', 'ls')).stdout, /^app +1/m);
    const [there, here] = await Promise.all([
      swarm
        .engine('service', 'inspect', 'app_web')
        .then(({ stdout: text }) => (JSON.parse(text) as Service[])[0]!),
      serviceOf(ours, 'app_web'),
    ]);
    const meaning = ({ Spec }: Service) => {
      const { Networks, ContainerSpec, Placement, Resources } = Spec.TaskTemplate;
      const configs = ContainerSpec.Configs?.map(({ ConfigID: _id, ...reference }) => reference);
      const aliases = Networks?.map((network) => network.Aliases);
      const { Image, Args, Labels, Healthcheck } = ContainerSpec;
      const container = { Image, Args, Labels, Healthcheck, configs };
      const { Labels: labels, Mode } = Spec;
      // Docker writes defaults out.
      const { Monitor: _default, ...UpdateConfig } = Spec.UpdateConfig!;
      return {
        labels,
        Mode,
        UpdateConfig,
        aliases,
        container,
        constraints: Placement?.Constraints,
        Resources,
      };
    };
    assert.deepEqual(meaning(here), meaning(there));
    const versions = new Set<number>([here.Version.Index, (await serviceOf(ours, 'alone')).Version.Index]);
    const network = (await clientOf(ours).get<Network[]>('/networks')) as unknown as {
      Name: string;
      Labels: unknown;
      Attachable: boolean;
    }[];
    const front = network.find(({ Name }) => Name === 'app_front')!;
    assert.deepEqual(front.Labels, { 'com.docker.stack.namespace': 'app', of: 'front' });
    assert.equal(front.Attachable, true);
    assert.equal(versions.size, 1, 'one entry');
    await waitForRunning(ours, 'alone', 1);
    assert.deepEqual(await containerFingerprint(swarm), before);
  });

  it('changes nothing a second time, and takes what has become possible: a secret that is given', async () => {
    assert.match((await ours.shoal('import', '--from', from)).stdout, /^Nothing to do\.$/m);
    const before = (await serviceOf(ours, 'app_web')).Version.Index;
    const given = ['--secret', `app_password=${join(folder, 'password')}`];
    await assert.rejects(ours.shoal('import', '--from', from, '--secret', 'app_password=/nowhere'), /ENOENT/);
    const { stdout } = await ours.shoal('import', '--from', from, ...given);
    assert.match(stdout, /\+ secret app_password\n\+ service app_db\n/);
    assert.match(stdout, /= service app_web: is here already and stays as it is/);
    assert.equal((await serviceOf(ours, 'app_web')).Version.Index, before);
  });

  it('a host moves: it leaves there, joins here, gets its labels, and runs what waited for them', async () => {
    const waiting = await clientOf(ours).get<{ Status: { State: string } }[]>('/tasks', {
      filters: JSON.stringify({ service: { app_web: true } }),
    });
    assert.ok(
      waiting.every(({ Status }) => Status.State === 'pending'),
      'no node has the label yet',
    );
    const token = (await ours.shoal('swarm', 'join-token', '-q', 'worker')).stdout.trim();
    await swarm.startShoald();
    await swarm.shoal('swarm', 'join', '--token', token, `${ours.address}:2377`);
    assert.equal((await containersOn(swarm)).length >= 4, true, 'what the Swarm runs there goes on beside');
    const { stdout } = await ours.shoal('import', '--from', from);
    assert.match(stdout, /^~ labels of node h1$/m);
    assert.equal((await nodeNamed(ours, 'h1')).Spec.Labels.disk, 'ssd');
    await waitForRunning(ours, 'app_web', 2);
    const [task] = await waitForRunning(ours, 'app_db', 1);
    const [container] = (
      await swarm.engine('ps', '-q', '--filter', `label=com.docker.swarm.task.id=${task!.ID}`)
    ).stdout.split('\n');
    assert.equal(await inside(swarm, container!, 'cat', '/run/secrets/password'), 'hush\n');
    await swarm.engine('swarm', 'leave', '--force');
    await waitFor('only ours to run there', 60_000, async () => {
      const [here, all] = [await containersOn(swarm), await waitForRunning(ours, 'app_web', 2)];
      return here.length >= all.length && here.length <= 4;
    });
    await waitForRunning(ours, 'alone', 2);
  });

  it('the stack goes on to be deployed from its own file, and nothing that is the same is replaced', async () => {
    const idsOf = async (name: string) =>
      (await waitForRunning(ours, name, name === 'app_web' ? 2 : 1)).map(({ ID }) => ID).sort();
    const before = [await idsOf('app_web'), await idsOf('app_db')];
    await ours.docker('stack', 'deploy', '--resolve-image', 'never', '-c', join(folder, 'stack.yml'), 'app');
    await ours.shoal('stack', 'deploy', '--detach', '-c', join(folder, 'stack.yml'), 'app');
    assert.deepEqual([await idsOf('app_web'), await idsOf('app_db')], before);
  });

  it('refuses what is no Swarm’s manager, and what it can’t speak to, in words', async () => {
    await assert.rejects(
      ours.shoal('import', '--from', from),
      /not asked as a manager of a Docker Swarm: This node is not/,
    );
    await assert.rejects(
      ours.shoal('import', '--from', 'ssh://h1'),
      /let ssh carry the socket \(ssh -nNT -L/,
    );
    await assert.rejects(ours.shoal('import', '--from', 'unix:///nowhere'), /nothing listens there/);
  });
});
