/**
 * Docker's clients against a shoald with a real engine: the docker command, python-docker and dockerode go through the
 * life of each kind of object, each case from outside of a swarm to outside of it.
 */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import Docker from 'dockerode';
import { Lab, type LabHost, labMissing, repositoryRoot, waitFor } from '../../lab/lab.ts';
import { dockerodeCases, leaveSwarm } from './dockerode.ts';

const run = promisify(execFile);
const python = '/usr/bin/python3';
const pythonCases = join(repositoryRoot, 'test', 'conformance', 'clients', 'python_docker.py');
const hasPythonDocker = existsSync('/usr/lib/python3/dist-packages/docker/__init__.py');
const boundMs = 40_000;

const stack = `version: "3.8"
services:
  web:
    image: busybox:lab
    command: ["sh", "-c", "cat /run/secrets/password; echo; sleep 1000000"]
    stop_grace_period: 200ms
    networks: [back]
    secrets: [password]
    deploy: {replicas: 2}
networks: {back: {}}
secrets: {password: {file: ./password}}
`;

describe('conformance: Docker’s clients', function () {
  this.timeout(180_000);
  let lab: Lab;
  let host: LabHost;
  let docker: Docker;
  let folder: string;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(1, 'shoal-clients');
    host = lab.host(1);
    await host.startShoald();
    docker = new Docker({ socketPath: host.shoalSocket });
    folder = mkdtempSync(join(tmpdir(), 'shoal-clients-'));
  });
  beforeEach(() => leaveSwarm(docker));
  after(async () => {
    if (folder) rmSync(folder, { recursive: true, force: true });
    await lab?.down();
  });

  describe('python-docker', () => {
    if (!hasPythonDocker) {
      it.skip('needs the Debian package python3-docker');
      return;
    }
    // One process for all: a start of Python costs more than most cases.
    const outcomes = new Map<string, string | undefined>();
    before(async () => {
      const env = { ...process.env, DOCKER_HOST: `unix://${host.shoalSocket}` };
      const { stdout } = await run(python, ['-W', 'ignore', pythonCases], { env, timeout: 170_000 });
      for (const line of stdout.split('\n').filter(Boolean)) {
        const { case: name, failure } = JSON.parse(line) as { case: string; failure?: string };
        outcomes.set(name, failure);
      }
    });
    for (const [, name] of readFileSync(pythonCases, 'utf8').matchAll(/^def case_(\w+)/gm)) {
      it(name!.replaceAll('_', ' '), () => {
        assert.ok(outcomes.has(name!), 'it did not run');
        assert.equal(outcomes.get(name!), undefined);
      });
    }
  });

  describe('dockerode', () => {
    for (const [name, act] of Object.entries(dockerodeCases)) it(name, () => act(docker));
  });

  describe('the docker command', () => {
    const init = () => host.docker('swarm', 'init', '--advertise-addr', host.address);
    const said = async (...args: string[]): Promise<string> => (await host.docker(...args)).stdout.trim();

    it('inits, locks, shows and leaves a swarm', async () => {
      assert.match((await init()).stdout, /docker swarm join --token SWMTKN-1-\S+ 10\.77\.0\.11:2377/);
      const token = await said('swarm', 'join-token', '-q', 'worker');
      assert.notEqual(await said('swarm', 'join-token', '-q', '--rotate', 'worker'), token);
      assert.match(await said('swarm', 'update', '--autolock=true'), /SWMKEY-1-/);
      const key = await said('swarm', 'unlock-key', '-q');
      assert.notEqual(await said('swarm', 'unlock-key', '-q', '--rotate'), key);
      assert.equal(await said('node', 'ls', '--format', '{{.Hostname}} {{.ManagerStatus}}'), 'h1 Leader');
      assert.equal(
        await said('info', '--format', '{{.Swarm.LocalNodeState}} {{.Swarm.Managers}}'),
        'active 1',
      );
      await assert.rejects(host.docker('swarm', 'leave'), /Use `--force`/);
      await host.docker('swarm', 'leave', '--force');
      await assert.rejects(host.docker('node', 'ls'), /This node is not a swarm manager/);
    });

    it('takes a service from create to remove', async () => {
      await init();
      const options = [
        '--replicas',
        '2',
        '--stop-grace-period',
        '200ms',
        '--label',
        'tier=gold',
        '--env',
        'COLOR=blue',
      ];
      await host.docker('service', 'create', '--name', 'web', ...options, 'busybox:lab', 'sleep', '1000000');
      assert.equal(
        await said('service', 'ls', '--filter', 'label=tier=gold', '--format', '{{.Name}} {{.Replicas}}'),
        'web 2/2',
      );
      await host.docker('service', 'update', '--env-add', 'COLOR=red', '--update-parallelism', '0', 'web');
      const colors = () =>
        said('service', 'inspect', '--format', '{{json .Spec.TaskTemplate.ContainerSpec.Env}}', 'web');
      assert.equal(await colors(), '["COLOR=red"]');
      await host.docker('service', 'rollback', 'web');
      assert.equal(await colors(), '["COLOR=blue"]');
      await host.docker('service', 'scale', 'web=3');
      const rows = await said(
        'service',
        'ps',
        '--no-trunc',
        '--filter',
        'desired-state=running',
        '--format',
        '{{.Name}} {{.CurrentState}}',
        'web',
      );
      assert.equal(rows.match(/web\.\d Running/g)?.length, 3);
      const [container] = (await said('ps', '--filter', 'name=web.1.', '--format', '{{.ID}}')).split('\n');
      assert.equal(await said('exec', container!, 'sh', '-c', 'echo $COLOR'), 'blue');
      await host.docker('service', 'rm', 'web');
      await assert.rejects(host.docker('service', 'inspect', 'web'), /no such service: web/i);
    });

    it('deploys a stack and removes it', async () => {
      await init();
      writeFileSync(join(folder, 'password'), 'swordfish');
      const file = join(folder, 'shop.yml');
      writeFileSync(file, stack);
      await host.docker('stack', 'deploy', '-c', file, 'shop');
      await waitFor('the stack to run', boundMs, async () => {
        return (
          (await said('stack', 'services', '--format', '{{.Name}} {{.Replicas}}', 'shop')) === 'shop_web 2/2'
        );
      });
      await waitFor(
        'what the tasks said',
        boundMs,
        async () =>
          ((await said('service', 'logs', '--raw', 'shop_web')).match(/swordfish/g)?.length ?? 0) === 2,
      );
      const before = await said('service', 'inspect', '--format', '{{.Version.Index}}', 'shop_web');
      await host.docker('stack', 'deploy', '-c', file, 'shop');
      assert.equal(await said('stack', 'ls', '--format', '{{.Name}} {{.Services}}'), 'shop 1');
      assert.ok(
        Number(await said('service', 'inspect', '--format', '{{.Version.Index}}', 'shop_web')) >=
          Number(before),
      );
      await host.docker('stack', 'rm', 'shop');
      await waitFor('the network to be gone', boundMs, async () => {
        return (await said('network', 'ls', '--filter', 'name=shop_back', '-q')) === '';
      });
      assert.equal(await said('secret', 'ls', '-q'), '');
    });

    it('does with the engine what it always did', async () => {
      await init();
      assert.equal(await said('run', '--rm', 'busybox:lab', 'echo', 'hello'), 'hello');
      assert.equal(await said('volume', 'create', 'shoal-conformance'), 'shoal-conformance');
      await host.docker('volume', 'rm', 'shoal-conformance');
      assert.match(await said('image', 'ls', '--format', '{{.Repository}}:{{.Tag}}'), /busybox:lab/);
      const versions = await said('version', '--format', '{{.Server.Version}} {{.Server.APIVersion}}');
      assert.match(versions, /^\d+\.\d+\S* 1\.\d+$/);
    });
  });
});
