/** Devices, privileges, shared memory and the host's namespaces: refused until allowed, then had, by either client. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { idle, inside, waitForReason, waitForRunning } from './asking.ts';
import { formCluster } from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

describe('lab: devices and privileges', () => {
  let lab: Lab;
  let host: LabHost;
  let folder: string;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(1, 'shoal-privileges');
    const pieces = ['gpu=GPU-1', 'gpu=GPU-2', 'ssd=3'].map((piece) => ['--node-generic-resource', piece]);
    await formCluster(lab, 1, { flags: pieces.flat() });
    host = lab.host(1);
    folder = mkdtempSync(join(tmpdir(), 'shoal-privileges-'));
  });

  after(async () => {
    if (folder) rmSync(folder, { recursive: true, force: true });
    await lab?.down();
  });

  const containerId = async (service: string): Promise<string> =>
    (await waitForRunning(host, service, 1))[0]?.Status.ContainerStatus?.ContainerID ?? '';
  const hostConfig = async (service: string, format: string): Promise<string> =>
    (await host.engine('inspect', '--format', format, await containerId(service))).stdout.trim();
  const withDocker = (...flags: string[]) => host.docker('service', 'create', '--detach', ...flags, ...idle);

  it('are refused with words until the cluster allows them', async () => {
    await assert.rejects(
      withDocker('--name', 'root', '--label', 'shoal.privileged=true'),
      /does not let services have privileged.*shoal swarm update --allow-privileges privileged/,
    );
    await assert.rejects(
      host.shoal('swarm', 'update', '--allow-privileges', 'root'),
      /must be all, none, or some of/,
    );
    await host.shoal('service', 'create', '--name', 'roomy', '--shm-size', '80m', ...idle);
    assert.match(await inside(host, await containerId('roomy'), 'df', '-m', '/dev/shm'), / 80 /);
  });

  it('are had once it does, and a stock client keeps the setting', async () => {
    await host.shoal('swarm', 'update', '--allow-privileges', 'privileged,devices');
    await host.docker('swarm', 'update', '--task-history-limit', '3');
    await withDocker('--name', 'root', '--label', 'shoal.privileged=true');
    // A machine that has not all capabilities itself can't start it: that the engine was asked is what counts.
    await waitFor('the engine to be asked for a privileged container', 40_000, async () => {
      const label = ['--filter', 'label=com.docker.swarm.service.name=root'];
      const { stdout: ids } = await host.engine('ps', '-aq', ...label);
      const [id] = ids.split('\n').filter(Boolean);
      if (id === undefined) return false;
      const { stdout } = await host.engine('inspect', '--format', '{{.HostConfig.Privileged}}', id);
      return stdout.trim() === 'true';
    });
    await host.shoal('service', 'rm', 'root');
    await host.shoal('service', 'create', '--name', 'dev', '--device', '/dev/null:/dev/nothing:r', ...idle);
    assert.match(await inside(host, await containerId('dev'), 'ls', '-l', '/dev/nothing'), /^c/);
    await assert.rejects(
      withDocker('--label', 'shoal.pid=host'),
      /--allow-privileges privileged,devices,pid/,
    );
  });

  const given = async (service: string): Promise<string[]> => {
    const label = ['--filter', `label=com.docker.swarm.service.name=${service}`];
    const { stdout: ids } = await host.engine('ps', '-q', ...label);
    const told = ids.split('\n').filter(Boolean);
    const env = await Promise.all(told.map((id) => inside(host, id, 'env')));
    return env.map((text) => (text.match(/^DOCKER_RESOURCE_\w+=.*$/gm) ?? []).sort().join(' ')).sort();
  };

  it('pieces that have names are given out by name, others by number, and who finds none left waits', async () => {
    const pieces = ['--generic-resource', 'gpu=1', '--generic-resource', 'ssd=1'];
    await withDocker('--name', 'train', '--replicas', '2', ...pieces);
    await waitForRunning(host, 'train', 2);
    assert.deepEqual(await given('train'), [
      'DOCKER_RESOURCE_GPU=GPU-1 DOCKER_RESOURCE_SSD=1',
      'DOCKER_RESOURCE_GPU=GPU-2 DOCKER_RESOURCE_SSD=1',
    ]);
    await withDocker('--name', 'late', '--generic-resource', 'gpu=1');
    await waitForReason(host, 'late', /insufficient resource gpu on 1 node: 1 asked, at most 0 free/);
    await host.docker('service', 'scale', '--detach', 'train=1');
    await waitForRunning(host, 'late', 1);
    await host.shoal('service', 'rm', 'train', 'late');
  });

  it('graphics processors are reserved, and the engine is asked for the very ones that a task was given', async () => {
    await assert.rejects(
      withDocker('--label', 'shoal.gpu=gpu'),
      /shoal\.gpu names the generic resource gpu, which the service does not reserve/,
    );
    const two = ['--generic-resource', 'gpu=2', '--label', 'shoal.gpu=gpu', '--restart-condition', 'none'];
    await withDocker('--name', 'render', ...two);
    // There are none in this machine, which the engine says; what it was asked for is what counts.
    const task = await waitForReason(host, 'render', /could not select device driver .*gpu/);
    const id = task.Status.ContainerStatus?.ContainerID ?? '';
    const { stdout } = await host.engine('inspect', '--format', '{{json .HostConfig.DeviceRequests}}', id);
    const [request] = JSON.parse(stdout) as { DeviceIDs: string[]; Capabilities: string[][] }[];
    assert.deepEqual([request?.DeviceIDs, request?.Capabilities], [['GPU-1', 'GPU-2'], [['gpu']]]);
    await host.shoal('service', 'rm', 'render');
  });

  it('stacks have them by the keys that compose has for them', async () => {
    const file = join(folder, 'compose.yml');
    writeFileSync(
      file,
      [
        'services:',
        '  app:',
        '    image: busybox:lab',
        '    command: ["sh", "-c", "trap \'exit 0\' TERM; while :; do sleep 1000000 & wait; done"]',
        '    shm_size: 32m',
        '    pid: host',
        '    ipc: host',
        '    security_opt: ["seccomp:unconfined"]',
      ].join('\n'),
    );
    await assert.rejects(
      host.shoal('stack', 'deploy', '--detach', '-c', file, 'st'),
      /does not let services have security-opt, ipc, pid/,
    );
    await host.shoal('swarm', 'update', '--allow-privileges', 'all');
    await host.shoal('stack', 'deploy', '--detach', '-c', file, 'st');
    const format =
      '{{.HostConfig.PidMode}} {{.HostConfig.IpcMode}} {{.HostConfig.SecurityOpt}} {{.HostConfig.ShmSize}}';
    assert.match(await hostConfig('st_app', format), /^host host \[.*seccomp=unconfined.*\] 33554432$/);
  });
});
