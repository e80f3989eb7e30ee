/** Who follows a service's logs goes on following: through another leader, other tasks, agents that start anew. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { formCluster, leaderHost } from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

/** `docker service logs --follow` at one host's manager: what it has printed so far, by task. */
class Follower {
  private readonly child: ChildProcess;
  private printed = '';
  private warned = '';

  constructor(host: LabHost, ...args: string[]) {
    const socket = `unix://${host.shoalSocket}`;
    this.child = spawn('docker', ['-H', socket, 'service', 'logs', '--follow', ...args]);
    // Each on its own: a warning in the middle of a line is no break in what the tasks said.
    this.child.stdout?.on('data', (chunk: Buffer) => {
      this.printed += chunk.toString();
    });
    this.child.stderr?.on('data', (chunk: Buffer) => {
      this.warned += chunk.toString();
    });
  }

  get isRunning(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  get words(): string {
    return this.printed + this.warned;
  }

  /** The numbers that each task has counted, in the order in which they came. */
  counts(): Map<string, number[]> {
    const found = new Map<string, number[]>();
    for (const [, task, count] of this.printed.matchAll(/^(count\.\d+\.\w+)@\S+ +\| tick (\d+)\n/gm)) {
      found.set(task!, [...(found.get(task!) ?? []), Number(count)]);
    }
    return found;
  }

  async end(): Promise<void> {
    if (!this.isRunning) return;
    const ended = new Promise((resolve) => this.child.once('exit', resolve));
    this.child.kill('SIGTERM');
    await ended;
  }
}

describe('lab: following logs', () => {
  let lab: Lab;
  let leader: LabHost;
  let others: LabHost[];
  let follower: Follower;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(3, 'shoal-follow');
    await formCluster(lab, 3);
    leader = await leaderHost(lab, lab.host(1));
    others = lab.hosts.filter((host) => host !== leader);
    const settings = ['--name', 'count', '--mode', 'global', '--stop-grace-period', '1s'];
    const elsewhere = ['--constraint', `node.hostname!=${leader.name}`, '--network', 'host'];
    const counting = 'n=0; while true; do n=$((n+1)); echo tick $n; sleep 0.2; done';
    await leader.shoal(
      'service',
      'create',
      '-q',
      ...settings,
      ...elsewhere,
      'busybox:lab',
      'sh',
      '-c',
      counting,
    );
    follower = new Follower(others[0]!, 'count');
  });

  after(async () => {
    await follower?.end();
    await lab?.down();
  });

  const latest = (): number[] => [...follower.counts().values()].map((counts) => counts.at(-1) ?? 0);

  function assertUnbroken(): void {
    for (const [task, counts] of follower.counts()) {
      const whole = Array.from({ length: counts.length }, (_, at) => at + 1);
      const at = counts.findIndex((count, index) => count !== whole[index]);
      const near = `…${counts.slice(Math.max(0, at - 3), at + 5).join(' ')}…`;
      assert.deepEqual(counts, whole, `${task} is told whole, once and in order: ${near}`);
    }
  }

  it('goes on, without a gap or a line twice, when the leader is killed', async () => {
    await waitFor('both tasks to be heard', 30_000, () => latest().length === 2 && Math.min(...latest()) > 5);
    const before = latest();
    await leader.killShoald('SIGKILL');
    await waitFor('both tasks to be heard of again', 40_000, () =>
      latest().every((count, at) => count > before[at]! + 25),
    );
    assert.ok(follower.isRunning, follower.words);
    assertUnbroken();
  });

  it('goes on when an agent starts anew', async () => {
    const before = latest();
    await others[1]!.killShoald('SIGKILL');
    await leader.startShoald();
    await others[1]!.startShoald();
    await waitFor('both tasks to be heard of again', 40_000, () =>
      latest().every((count, at) => count > before[at]! + 10),
    );
    assert.ok(follower.isRunning, follower.words);
    assertUnbroken();
  });

  it('tells the tasks that take over, from their first line', async () => {
    const before = follower.counts().size;
    await others[0]!.shoal('service', 'update', '--force', '-q', 'count');
    await waitFor('the new tasks to be heard', 30_000, () => follower.counts().size === before + 2);
    await waitFor('more of them', 30_000, () =>
      [...follower.counts().values()].slice(before).every((counts) => counts.length > 3),
    );
    assert.ok(follower.isRunning, follower.words);
    assertUnbroken();
  });

  it('names a node that is gone, in a whole answer of the rest', async () => {
    await leader.killShoald('SIGKILL');
    const gone = others[1]!;
    await gone.powerOff();
    await leader.startShoald();
    await waitFor('the node to be down', 40_000, async () =>
      (await others[0]!.docker('node', 'ls')).stdout
        .split('\n')
        .some((line) => line.includes(gone.name) && line.includes('Down')),
    );
    await assert.rejects(others[0]!.docker('service', 'logs', '--tail', '1', 'count'), (error) => {
      assert.match(
        String((error as { stderr?: string }).stderr),
        new RegExp(`node ${gone.name} (is not available|disconnected unexpectedly)`),
      );
      assert.match(String((error as { stdout?: string }).stdout), /tick \d+/);
      return true;
    });
    await waitFor('who follows to be told', 30_000, () =>
      new RegExp(`warning: node ${gone.name} (is not available|disconnected unexpectedly)`).test(
        follower.words,
      ),
    );
    assert.ok(follower.isRunning, follower.words);
  });
});
