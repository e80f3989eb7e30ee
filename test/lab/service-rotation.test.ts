/** Configs and secrets that change in place: by restart, by signal, back again; credentials that restart nothing. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { idle, inside, waitForReason, waitForRunning } from './asking.ts';
import { containerFingerprint, containersOn, formCluster } from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

/** Says `told FILE` on its standard output whenever it gets SIGHUP. */
const listening = [
  'busybox:lab',
  'sh',
  '-c',
  'trap "cat /conf > /told" HUP; trap "exit 0" TERM; while :; do sleep 1000000 & wait; done',
];

describe('lab: rotation of configs and secrets', () => {
  let lab: Lab;
  let host: LabHost;
  let folder: string;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(1, 'shoal-rotation');
    await formCluster(lab, 1);
    host = lab.host(1);
    folder = mkdtempSync(join(tmpdir(), 'shoal-rotation-'));
  });

  after(async () => {
    if (folder) rmSync(folder, { recursive: true, force: true });
    await lab?.down();
  });

  const file = (text: string): string => {
    const path = join(folder, 'content');
    writeFileSync(path, text);
    return path;
  };
  const containerId = async (service: string): Promise<string> =>
    (await waitForRunning(host, service, 1))[0]?.Status.ContainerStatus?.ContainerID ?? '';

  it('by restart: a rolling update with the new version, and back', async () => {
    await host.shoal('config', 'create', 'conf', file('one'));
    const given = ['--config', 'source=conf,target=/conf', '--update-monitor', '100ms'];
    await host.shoal('service', 'create', '--name', 'web', ...given, ...idle);
    const first = await containerId('web');
    const { stdout } = await host.shoal('config', 'update', 'conf', file('two'));
    assert.match(stdout, /web: its tasks are replaced in a rolling update/);
    const second = await containerId('web');
    assert.notEqual(second, first);
    assert.equal(await inside(host, second, 'cat', '/conf'), 'two');
    await host.shoal('config', 'rollback', 'conf');
    assert.equal(await inside(host, await containerId('web'), 'cat', '/conf'), 'one');
    await host.shoal('config', 'rollback', 'conf');
    await host.docker('service', 'rollback', '--detach', 'web');
    await waitFor("the service's own rollback to have the version before", 40_000, async () => {
      return (await inside(host, await containerId('web'), 'cat', '/conf')) === 'one';
    });
    await host.shoal('service', 'rm', 'web');
    await host.shoal('config', 'rm', 'conf');
  });

  it('by signal: the file changes in the running container, which the stock CLI asked for by a label', async () => {
    await host.docker('secret', 'create', 'key', file('one'));
    const given = ['--secret', 'source=key,target=/conf', '--label', 'shoal.rotate=signal:SIGHUP'];
    await host.docker('service', 'create', '--detach', '--name', 'listens', ...given, ...listening);
    const id = await containerId('listens');
    const before = await containerFingerprint(host);
    await host.shoal('secret', 'update', 'key', file('two, and longer'));
    await waitForReason(host, 'listens', /files renewed, SIGHUP sent/);
    const told = () => inside(host, id, 'cat', '/told').catch(() => '');
    await waitFor('the program to have read the new version', 20_000, async () => {
      return (await told()) === 'two, and longer';
    });
    assert.deepEqual(await containerFingerprint(host), before, 'nothing was started again');
    await host.shoal('secret', 'rollback', 'key');
    await waitFor('the version before', 20_000, async () => (await told()) === 'one');
    assert.deepEqual(await containersOn(host), [id]);
    await assert.rejects(
      host.docker('service', 'update', '--detach', '--label-add', 'shoal.rotate=signal:SIGKILL', 'listens'),
      /shoal\.rotate must be restart, none, or signal:/,
    );
    await host.shoal('service', 'rm', 'listens');
  });

  it('by a stack whose file has another content, and back with the stack', async () => {
    const compose = join(folder, 'compose.yml');
    const write = (content: string): void =>
      writeFileSync(
        compose,
        [
          'services:',
          '  web:',
          '    image: busybox:lab',
          '    command: [sleep, "1000000"]',
          '    configs: [{source: conf, target: /conf}]',
          '    networks: [host]',
          `configs: {conf: {content: ${content}}}`,
          'networks: {host: {external: true, name: host}}',
        ].join('\n'),
      );
    write('one');
    await host.shoal('stack', 'deploy', '-c', compose, 'app');
    const first = await containerId('app_web');
    write('two');
    const { stdout } = await host.shoal('stack', 'deploy', '-c', compose, 'app');
    assert.match(stdout, /Updating config app_conf/);
    const second = await containerId('app_web');
    assert.notEqual(second, first);
    assert.equal(await inside(host, second, 'cat', '/conf'), 'two');
    await host.shoal('stack', 'rollback', '--to', '1', 'app');
    await waitFor('the version of then', 40_000, async () => {
      return (await inside(host, await containerId('app_web'), 'cat', '/conf')) === 'one';
    });
    await host.shoal('stack', 'rm', 'app');
    await waitFor('its containers to be gone', 60_000, async () => (await containersOn(host)).length === 0);
  });

  it('fresh registry credentials restart nothing', async () => {
    await host.shoal('service', 'create', '--name', 'private', ...idle);
    await containerId('private');
    const before = await containerFingerprint(host);
    const auth = Buffer.from('user:fresh').toString('base64');
    const config = JSON.stringify({ auths: { 'https://index.docker.io/v1/': { auth } } });
    writeFileSync(join(folder, 'config.json'), config);
    process.env.DOCKER_CONFIG = folder;
    try {
      await host.shoal('service', 'update', '--with-registry-auth', 'private');
      await host.docker('service', 'update', '--detach', '--with-registry-auth', 'private');
    } finally {
      delete process.env.DOCKER_CONFIG;
    }
    await waitForRunning(host, 'private', 1);
    assert.deepEqual(await containerFingerprint(host), before);
  });
});
