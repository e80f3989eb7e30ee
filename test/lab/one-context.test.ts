/**
 * One socket for the cluster and for the engine: the stock docker command through shoald, for what is the engine's, on
 * a manager, on a worker, outside of a cluster and without an engine.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { create, idle, send, waitForRunning } from './asking.ts';
import { isReady, nodesSeenBy } from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

const image = 'busybox:lab';
const megabyte = 2 ** 20;

/** A docker command that goes on: what it printed so far. */
class Running {
  readonly process: ChildProcess;
  text = '';
  status: number | undefined;

  constructor(host: LabHost, ...args: string[]) {
    this.process = spawn('docker', ['-H', `unix://${host.shoalSocket}`, ...args]);
    for (const stream of [this.process.stdout, this.process.stderr]) {
      stream!.on('data', (chunk: Buffer) => {
        this.text += chunk.toString();
      });
    }
    this.process.on('close', (status) => {
      this.status = status ?? -1;
    });
  }

  async until(pattern: RegExp): Promise<void> {
    await waitFor(`${pattern} in the output`, 30_000, () => pattern.test(this.text));
  }

  async end(): Promise<void> {
    this.process.kill('SIGKILL');
    await waitFor('the command to end', 10_000, () => this.status !== undefined);
  }
}

describe('lab: one docker context for the cluster and the engine', () => {
  let lab: Lab;
  let host: LabHost;
  let folder: string;
  const running: Running[] = [];

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(2, 'shoal-context');
    host = lab.host(1);
    folder = mkdtempSync(join(tmpdir(), 'shoal-lab-'));
    await Promise.all(lab.hosts.map((one) => one.startShoald()));
  });

  after(async () => {
    for (const one of running) one.process.kill();
    if (folder) rmSync(folder, { recursive: true, force: true });
    await lab?.down();
  });

  function start(...args: string[]): Running {
    const one = new Running(host, ...args);
    running.push(one);
    return one;
  }

  /** Standard output of a docker command through shoald. */
  async function docker(...args: string[]): Promise<string> {
    return (await host.docker(...args)).stdout;
  }

  /** Sockets that the daemon holds. An engine may keep its own end of an attach that is long over. */
  function socketsOfShoald(): number {
    const folder = `/proc/${host.shoaldPids()[0]}/fd`;
    return readdirSync(folder).filter((name) => {
      try {
        return readlinkSync(join(folder, name)).startsWith('socket:');
      } catch {
        return false;
      }
    }).length;
  }

  it('outside of a cluster it is the engine’s own context', async () => {
    assert.equal((await docker('run', '--rm', image, 'echo', 'hello')).trim(), 'hello');
    assert.match(
      await docker('info', '--format', '{{.Swarm.LocalNodeState}} {{.Driver}}'),
      /^inactive overlay2/,
    );
    const theirs = await send(host, 'GET', '/version');
    const { stdout } = await host.engine('version', '--format', '{{.Server.Version}}');
    assert.equal((JSON.parse(theirs.text) as { Version: string }).Version, stdout.trim());
  });

  it('is both on a manager, and the engine’s on a worker', async () => {
    await host.shoal('swarm', 'init', '--advertise-addr', host.address);
    const { stdout: token } = await host.shoal('swarm', 'join-token', '-q', 'worker');
    await lab.host(2).docker('swarm', 'join', '--token', token.trim(), `${host.address}:2377`);
    await waitFor(
      'both nodes to be ready',
      30_000,
      async () => (await nodesSeenBy(host)).filter(isReady).length === 2,
    );
    assert.match(
      await docker('info', '--format', '{{.Swarm.LocalNodeState}} {{.Driver}}'),
      /^active overlay2/,
    );
    const worker = lab.host(2);
    assert.equal((await worker.docker('run', '--rm', image, 'echo', 'there')).stdout.trim(), 'there');
    assert.match((await worker.docker('network', 'ls')).stdout, /bridge\s+bridge\s+local/);
    await assert.rejects(worker.docker('node', 'ls'), /Worker nodes can't be used to view or modify/);
  });

  it('shows tasks’ containers as Swarm’s, with the engine’s own', async () => {
    await create(host, 'web', '--constraint', 'node.hostname==h1', ...idle);
    const [task] = await waitForRunning(host, 'web', 1);
    await docker('run', '-d', '--name', 'plain', image, 'sleep', '1000');
    const names = (await docker('ps', '--format', '{{.Names}}')).trim().split('\n').sort();
    assert.deepEqual(names, ['plain', `web.1.${task!.ID}`]);
    const labels = JSON.parse(
      await docker('inspect', '--format', '{{json .Config.Labels}}', `web.1.${task!.ID}`),
    );
    assert.equal(labels['com.docker.swarm.service.name'], 'web');
    assert.equal(labels['com.docker.swarm.task.name'], `web.1.${task!.ID}`);
    await docker('service', 'rm', 'web');
  });

  it('lets a program read its input to the end and answer after it', async () => {
    const input = randomBytes(4 * megabyte);
    const sum = createHash('md5').update(input).digest('hex');
    const ran = await host.dockerReading(
      input,
      'run',
      '--rm',
      '-i',
      image,
      'sh',
      '-c',
      'md5sum; echo said >&2',
    );
    assert.equal(ran.stdout.split(' ')[0], sum);
    assert.equal(ran.stderr, 'said\n');
    const executed = await host.dockerReading(input, 'exec', '-i', 'plain', 'md5sum');
    assert.equal(executed.stdout.split(' ')[0], sum);
    await assert.rejects(
      host.docker('exec', 'plain', 'sh', '-c', 'exit 7'),
      (error: { code?: number }) => error.code === 7,
    );
    const sent = await docker('exec', 'plain', 'head', '-c', String(16 * megabyte), '/dev/zero');
    assert.equal(sent.length, 16 * megabyte);
  });

  it('gives a terminal', async () => {
    const command = `docker -H unix://${host.shoalSocket} exec -it plain sh -c 'tty; stty size'`;
    const { stdout } = await host.exec('script', '-qec', command, '/dev/null');
    assert.match(stdout, /\/dev\/pts\/\d/);
  });

  it('follows, and lets go when the client does', async () => {
    await docker(
      'run',
      '-d',
      '--name',
      'talker',
      image,
      'sh',
      '-c',
      'while true; do echo tick; sleep 0.1; done',
    );
    const follows = [
      start('logs', '-f', 'talker'),
      start('attach', '--no-stdin', '--sig-proxy=false', 'talker'),
      start('stats', 'talker'),
      start('events', '--filter', 'type=container'),
    ];
    await follows[0]!.until(/(tick\s+){3}/);
    await follows[1]!.until(/(tick\s+){3}/);
    await follows[2]!.until(/talker/);
    await docker('rename', 'talker', 'speaker');
    await follows[3]!.until(/container rename/);
    const during = socketsOfShoald();
    await Promise.all(follows.map((one) => one.end()));
    // A client's and an engine's for each; one of the agent's own may have come meanwhile.
    await waitFor('the connections to be let go', 20_000, () => socketsOfShoald() <= during - 8 + 1);
    await docker('rm', '-f', 'speaker');
  });

  it('builds, by both builders, copies and saves', async () => {
    const context = join(folder, 'context');
    mkdirSync(context);
    const big = randomBytes(32 * megabyte);
    writeFileSync(join(context, 'big'), big);
    writeFileSync(join(context, 'Dockerfile'), `FROM ${image}\nCOPY big /big\nRUN md5sum /big > /sum\n`);
    const sum = createHash('md5').update(big).digest('hex');
    for (const builder of ['0', '1']) {
      await host.exec(
        'env',
        `DOCKER_BUILDKIT=${builder}`,
        ...onSocket(),
        'build',
        '-t',
        `built:${builder}`,
        context,
      );
      assert.match(await docker('run', '--rm', `built:${builder}`, 'cat', '/sum'), new RegExp(`^${sum}`));
    }
    await docker('create', '--name', 'holder', 'built:0');
    const file = join(folder, 'copied');
    await docker('cp', 'holder:/big', file);
    await docker('cp', file, 'plain:/tmp/big');
    assert.match(await docker('exec', 'plain', 'md5sum', '/tmp/big'), new RegExp(`^${sum}`));
    await docker('save', '-o', join(folder, 'saved.tar'), 'built:0');
    await docker('rm', 'holder');
    await docker('rmi', 'built:0', 'built:1');
    assert.match(await docker('load', '-i', join(folder, 'saved.tar')), /Loaded image: built:0/);
  });

  /** Debian's own command, whose BuildKit client needs no plugin. */
  function onSocket(): string[] {
    return ['/usr/bin/docker', '-H', `unix://${host.shoalSocket}`];
  }

  it('keeps networks of both, each once', async () => {
    await docker('network', 'create', 'mine');
    await docker('network', 'create', '-d', 'overlay', '--attachable', 'front');
    await create(host, 'api', '--network', 'front', '--constraint', 'node.hostname==h1', ...idle);
    await waitForRunning(host, 'api', 1);
    const listed = (await docker('network', 'ls', '--format', '{{.Name}} {{.Scope}} {{.Driver}}'))
      .trim()
      .split('\n');
    assert.deepEqual(listed.filter((line) => !/ingress|gwbridge/.test(line)).sort(), [
      'bridge local bridge',
      'front swarm overlay',
      'host local host',
      'mine local bridge',
      'none local null',
    ]);
    await docker('network', 'connect', 'mine', 'plain');
    await docker('network', 'connect', 'front', 'plain');
    const inspected = await docker(
      'network',
      'inspect',
      '--format',
      '{{range .Containers}}{{.Name}} {{end}}',
      'front',
    );
    assert.match(inspected, /plain/);
    assert.match(inspected, /api\.1\./);
    await docker('network', 'disconnect', 'front', 'plain');
    await docker('network', 'disconnect', 'mine', 'plain');
    await docker('service', 'rm', 'api');
    assert.match(await docker('network', 'rm', 'mine'), /mine/);
    await waitFor('the network to be free', 20_000, async () =>
      /front/.test(await docker('network', 'prune', '-f')),
    );
  });

  it('tells events of both in one stream, and those that were in one order', async () => {
    const since = String((Date.now() - 1_000) / 1000);
    const events = start('events', '--format', '{{.Type}} {{.Action}} {{.Scope}}');
    await waitFor('the stream to stand', 20_000, async () => {
      await docker('volume', 'create', 'v1');
      await docker('volume', 'rm', 'v1');
      return /volume create local/.test(events.text);
    });
    await host.dockerReading('x', 'config', 'create', 'c1', '-');
    await events.until(/config create swarm/);
    await events.end();
    const until = String(Date.now() / 1000);
    const told = (
      await docker('events', '--since', since, '--until', until, '--format', '{{.TimeNano}} {{.Type}}')
    )
      .trim()
      .split('\n')
      .map((line) => line.split(' '));
    assert.ok(told.some(([, type]) => type === 'volume') && told.some(([, type]) => type === 'config'));
    const times = told.map(([time]) => BigInt(time!));
    assert.ok(times.every((time, at) => at === 0 || times[at - 1]! <= time));
    await docker('config', 'rm', 'c1');
  });

  it('prunes, measures and lists what the engine has', async () => {
    assert.match(await docker('system', 'df'), /Images/);
    await docker('volume', 'create', 'kept');
    assert.match(await docker('volume', 'ls', '-q'), /kept/);
    await docker('volume', 'rm', 'kept');
    await docker('rm', '-f', 'plain');
    assert.match(await docker('system', 'prune', '-f'), /Total reclaimed space/);
    assert.match(await docker('image', 'ls'), /busybox\s+lab/);
  });

  it('says so when the engine is away, and goes on with the cluster', async () => {
    await lab.script('crash', 'h1');
    await assert.rejects(host.docker('ps'), /Cannot connect to the container engine .* Is it running\?/);
    await assert.rejects(host.docker('run', image, 'true'), /Cannot connect to the container engine/);
    assert.match(await docker('node', 'ls'), /h1/);
    await lab.script('start', 'h1');
    await waitFor('the engine to be back', 30_000, async () => /CONTAINER/.test(await docker('ps')));
  });

  it('is the engine’s own context again after it left', async () => {
    await host.docker('swarm', 'leave', '--force');
    assert.equal((await docker('run', '--rm', image, 'echo', 'hello')).trim(), 'hello');
    await assert.rejects(host.docker('service', 'ls'), /This node is not a swarm manager/);
  });
});
