/** Commands in tasks of other hosts, through any manager: interactive and not, with a terminal, across a change of the leader. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { formCluster, leaderHost, runningTasks } from './cluster.ts';
import { Lab, type LabHost, labMissing, repositoryRoot, waitFor } from './lab.ts';

const shoal = join(repositoryRoot, 'dist/cli/shoal.js');

describe('lab: commands in tasks', () => {
  let lab: Lab;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(3, 'shoal-exec');
    await formCluster(lab, 3);
    await lab
      .host(1)
      .shoal('service', 'create', '--name', 'web', '--mode', 'global', 'busybox:lab', 'sleep', '1d');
  });

  // On a busy machine a node is taken for lost now and then, and its task is started again.
  const everywhere = () =>
    waitFor(
      'a task on each host',
      60_000,
      async () => (await runningTasks(lab.host(1), 'web')).length === lab.hosts.length,
    );

  after(() => lab?.down());

  const status = async (running: Promise<unknown>): Promise<number> =>
    running.then(
      () => 0,
      (error: { code: number }) => error.code,
    );

  it('run on any host, asked of any manager, by name or id, with their own exit status', async () => {
    await everywhere();
    for (const from of lab.hosts) {
      for (const on of lab.hosts) {
        const { stdout } = await from.shoal('task', 'exec', `web.${on.name}`, 'hostname');
        const { stdout: container } = await on.engine(
          'ps',
          '-q',
          '--filter',
          'label=com.docker.swarm.task.id',
        );
        assert.equal(stdout.trim(), container.trim());
      }
    }
    const [task] = await runningTasks(lab.host(1), 'web');
    const told = await lab.host(2).shoal('task', 'exec', task!.ID, 'sh', '-c', 'echo out; echo err >&2');
    assert.deepEqual([told.stdout, told.stderr], ['out\n', 'err\n']);
    assert.equal(await status(lab.host(1).shoal('task', 'exec', 'web.h2', 'sh', '-c', 'exit 42')), 42);
    assert.ok(
      [126, 127].includes(await status(lab.host(1).shoal('task', 'exec', 'web.h2', 'nosuchprogram'))),
    );
    await assert.rejects(lab.host(1).shoal('task', 'exec', 'web.h9', 'true'), /task web\.h9 not found/);
  });

  it('by the stock CLI, which names a task on another host as its container is called', async () => {
    await everywhere();
    for (const { ID, NodeID } of await runningTasks(lab.host(1), 'web')) {
      for (const name of [ID, `web.${NodeID}.${ID}`]) {
        const { stdout } = await lab.host(1).docker('exec', '-e', 'A=b', name, 'sh', '-c', 'echo $A');
        assert.equal(stdout, 'b\n');
        assert.equal(await status(lab.host(1).docker('exec', name, 'sh', '-c', 'exit 7')), 7);
        const piped = await lab.host(1).dockerReading('typed', 'exec', '-i', name, 'cat');
        assert.equal(piped.stdout, 'typed');
      }
    }
  });

  it('hand on their input to its end, and have the environment, user and folder that were asked for', async () => {
    await everywhere();
    const bytes = 'x'.repeat(3_000_000);
    const counted = await lab.host(1).shoalReading(bytes, 'task', 'exec', '-i', 'web.h3', 'wc', '-c');
    assert.equal(counted.stdout.trim(), String(bytes.length));
    const echoed = await lab.host(1).shoalReading(bytes, 'task', 'exec', '-i', 'web.h3', 'cat');
    assert.equal(echoed.stdout.length, bytes.length);
    const flags = ['-e', 'A=1 2', '-u', '7:8', '-w', '/etc'];
    const { stdout } = await lab
      .host(1)
      .shoal('task', 'exec', ...flags, 'web.h2', 'sh', '-c', 'echo "$A $(id -u):$(id -g) $(pwd)"');
    assert.equal(stdout, '1 2 7:8 /etc\n');
    await assert.rejects(
      lab.host(1).shoal('task', 'exec', '--privileged', 'web.h2', 'true'),
      /does not let services have privileged/,
    );
    const id = (await lab.host(1).shoal('task', 'exec', '-d', 'web.h2', 'touch', '/tmp/was-here')).stdout;
    assert.match(id, /^[0-9a-f]{64}\n$/);
    await waitFor(
      'the file',
      10_000,
      async () =>
        (await status(lab.host(1).shoal('task', 'exec', 'web.h2', 'test', '-e', '/tmp/was-here'))) === 0,
    );
  });

  it('have a terminal of the size of ours, which the usual keys leave to itself', async () => {
    await everywhere();
    const terminal = new Terminal(lab.host(1), 'task', 'exec', '-it', 'web.h2', 'sh');
    await terminal.until(/# /);
    terminal.type('stty size; tty\n');
    await terminal.until(/31 101[\s\S]*\/dev\/pts\/\d/);
    terminal.type('exit 5\n');
    assert.equal(await terminal.ended, 5);
    const left = new Terminal(
      lab.host(1),
      'task',
      'exec',
      '-it',
      'web.h2',
      'sh',
      '-c',
      'echo here; sleep 4321',
    );
    await left.until(/here/);
    left.type('\x10\x11');
    await left.until(/read escape sequence/);
    assert.equal(await left.ended, 1);
    const { stdout } = await lab.host(1).shoal('task', 'exec', 'web.h2', 'ps');
    assert.match(stdout, /sleep 4321/);
  });

  it('go on while the leader is lost, and are asked of the next one', async () => {
    await everywhere();
    const leader = await leaderHost(lab, lab.host(1));
    const [from, on] = lab.hosts.filter((host) => host !== leader) as [LabHost, LabHost];
    const terminal = new Terminal(from, 'task', 'exec', '-it', `web.${on.name}`, 'sh');
    await terminal.until(/# /);
    await leader.powerOff();
    const next = await waitFor('another leader', 30_000, async () => {
      const found = await leaderHost(lab, from);
      return found !== leader ? found : undefined;
    });
    assert.notEqual(next, leader);
    terminal.type('echo still $((40 + 2))\n');
    await terminal.until(/still 42/);
    terminal.type('exit 0\n');
    assert.equal(await terminal.ended, 0);
    await waitFor(
      'a command through the next leader',
      30_000,
      async () => (await from.shoal('task', 'exec', `web.${on.name}`, 'echo', 'again')).stdout === 'again\n',
    );
    await assert.rejects(
      from.shoal('task', 'exec', `web.${leader.name}`, 'true'),
      /is down: no command reaches its tasks|not running|not found/,
    );
  });
});

/** Our command in a terminal of 31 lines of 101 characters, which python's pty module makes. */
class Terminal {
  readonly ended: Promise<number | null>;
  private readonly child;
  private shown = '';

  constructor(host: LabHost, ...args: string[]) {
    const program = [
      'import fcntl, os, pty, struct, sys, termios',
      'pid, fd = pty.fork()',
      'if pid == 0:',
      '    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 31, 101, 0, 0))',
      '    os.execvp(sys.argv[1], sys.argv[1:])',
      'import threading',
      'def keys():',
      '    while True:',
      '        read = os.read(0, 1024)',
      '        if not read: return',
      '        os.write(fd, read)',
      'threading.Thread(target=keys, daemon=True).start()',
      'try:',
      '    while True:',
      '        read = os.read(fd, 1024)',
      '        if not read: break',
      '        os.write(1, read)',
      'except OSError: pass',
      'os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))',
    ].join('\n');
    const env = { ...process.env, SHOAL_HOST: `unix://${host.shoalSocket}`, NO_COLOR: '1' };
    this.child = spawn('python3', ['-c', program, process.execPath, shoal, ...args], { env });
    this.child.stdout.on('data', (chunk: Buffer) => {
      this.shown += chunk;
    });
    this.ended = new Promise((resolve) => this.child.once('exit', resolve));
  }

  type(keys: string): void {
    this.child.stdin.write(keys);
  }

  async until(pattern: RegExp): Promise<void> {
    await waitFor(`${pattern} on the terminal`, 20_000, () => {
      if (pattern.test(this.shown)) return true;
      throw new Error(JSON.stringify(this.shown));
    });
  }
}
