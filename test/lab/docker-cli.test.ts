/** The stock docker command against shoald, on one host with its own engine. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { formCluster } from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

describe('lab: the stock docker command', () => {
  let lab: Lab;
  let host: LabHost;
  let folder: string;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(1, 'shoal-cli-docker');
    await formCluster(lab, 1);
    host = lab.host(1);
    folder = mkdtempSync(join(tmpdir(), 'shoal-lab-'));
  });

  after(async () => {
    if (folder) rmSync(folder, { recursive: true, force: true });
    await lab?.down();
  });

  it('lists nodes', async () => {
    const { stdout } = await host.docker('node', 'ls');
    assert.match(stdout, /h1\s+Ready\s+Active\s+Leader/);
  });

  it('creates, scales, lists, logs and removes a service', async () => {
    const command = ['sh', '-c', 'echo hello from shoal; sleep 1000000'];
    await host.docker(
      'service',
      'create',
      '--name',
      'web',
      '--replicas',
      '3',
      '--stop-grace-period',
      '1s',
      '--network',
      'host',
      'busybox:lab',
      ...command,
    );
    assert.match((await host.docker('service', 'ls')).stdout, /web\s+replicated\s+3\/3\s+busybox:lab/);
    await host.docker('service', 'scale', 'web=5');
    const { stdout: tasks } = await host.docker('service', 'ps', 'web');
    assert.equal(tasks.match(/Running\s+Running/g)?.length, 5);
    const { stdout: lines } = await host.docker('service', 'logs', 'web');
    assert.equal(lines.match(/hello from shoal/g)?.length, 5);
    await host.docker('service', 'rm', 'web');
    await waitFor(
      'the containers to be gone',
      20_000,
      async () => (await host.engine('ps', '-aq')).stdout.trim() === '',
    );
  });

  it('deploys a stack with a secret, a config and a network, and finds services by name', async () => {
    const secretPath = join(folder, 'secret.txt');
    writeFileSync(secretPath, 'nobody may know');
    const compose = join(folder, 'compose.yml');
    writeFileSync(
      compose,
      `version: "3.8"
services:
  web:
    image: busybox:lab
    command: ["sh", "-c", "mkdir -p /www; cp /run/secrets/word /www/index.html; httpd -f -p 80 -h /www"]
    secrets: [word]
    stop_grace_period: 1s
    deploy: { replicas: 2 }
  asker:
    image: busybox:lab
    command: ["sh", "-c", "while true; do wget -q -O - http://web/; echo; sleep 1; done"]
    stop_grace_period: 1s
secrets:
  word: { file: ${secretPath} }
`,
    );
    await host.docker('stack', 'deploy', '-c', compose, 'app');
    await waitFor('the asker to be answered', 30_000, async () =>
      (await host.docker('service', 'logs', 'app_asker')).stdout.includes('nobody may know'),
    );
    assert.match((await host.docker('stack', 'services', 'app')).stdout, /app_web\s+replicated\s+2\/2/);
    assert.match((await host.docker('stack', 'ls')).stdout, /app\s+2/);
    await host.docker('stack', 'rm', 'app');
    await waitFor(
      'the stack to be gone',
      30_000,
      async () => (await host.engine('ps', '-aq')).stdout.trim() === '',
    );
    await waitFor(
      'its network to be gone',
      30_000,
      async () => !(await host.engine('network', 'ls')).stdout.includes('app_default'),
    );
  });

  it('tells what happened in the cluster, in order, by docker events', async () => {
    const seconds = (ms: number) => (ms / 1000).toFixed(3);
    const since = Date.now();
    await host.docker('config', 'create', '--label', 'a=b', 'told', join(folder, 'secret.txt'));
    await host.docker('config', 'rm', 'told');
    const events = (...flags: string[]) =>
      host.docker('events', '--since', seconds(since), '--until', seconds(Date.now()), ...flags);
    const format = ['--format', '{{.Type}} {{.Action}} {{.Actor.Attributes.name}} {{.Scope}}'];
    const { stdout } = await events('--filter', 'type=config', ...format);
    assert.equal(stdout, 'config create told swarm\nconfig remove told swarm\n');
    assert.equal(
      (await events('--filter', 'config=told', '--filter', 'event=remove', ...format)).stdout.trim(),
      'config remove told swarm',
    );
    assert.equal((await events('--filter', 'config=other')).stdout, '');
  });

  it('says in Docker’s words what is wrong', async () => {
    await assert.rejects(host.docker('service', 'inspect', 'nobody'), /no such service: nobody/);
    await assert.rejects(host.docker('swarm', 'init'), /already part of a swarm/);
    const publish = ['service', 'create', '--detach', '--publish', '8080:80'];
    await host.docker(...publish, '--name', 'mesh', 'busybox:lab');
    await assert.rejects(
      host.docker(...publish, 'busybox:lab'),
      /port '8080' is already in use by service 'mesh' \(\w+\) as an ingress port/,
    );
    await host.docker('service', 'rm', 'mesh');
  });
});
