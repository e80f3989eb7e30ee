/** `shoal service logs` against real containers' lines, and beside what the stock docker command prints. */
import assert from 'node:assert/strict';
import { formCluster } from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

describe('lab: service logs', () => {
  let lab: Lab;
  let host: LabHost;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(1, 'shoal-cli');
    await formCluster(lab, 1);
    host = lab.host(1);
    const talk = 'for i in 1 2 3; do echo line $i; done; echo trouble >&2; sleep 1000000';
    const settings = ['--name', 'talk', '--replicas', '2', '--stop-grace-period', '1s', '--network', 'host'];
    await host.shoal('service', 'create', '-q', ...settings, 'busybox:lab', 'sh', '-c', talk);
    await waitFor('all lines', 20_000, async () => (await linesOf('--raw')).length === 8);
  });
  after(() => lab?.down());

  const linesOf = async (...flags: string[]): Promise<string[]> => {
    const { stdout, stderr } = await host.shoal('service', 'logs', ...flags, 'talk');
    return `${stdout}${stderr}`.split('\n').filter((line) => line !== '');
  };
  const dockersLines = async (...flags: string[]): Promise<string[]> => {
    const { stdout, stderr } = await host.docker('service', 'logs', ...flags, 'talk');
    return `${stdout}${stderr}`.split('\n').filter((line) => line !== '');
  };

  it('standard output and standard error go their own ways', async () => {
    const { stdout, stderr } = await host.shoal('service', 'logs', '--raw', 'talk');
    assert.equal(stdout.match(/^line [123]$/gm)?.length, 6);
    assert.equal(stderr, 'trouble\ntrouble\n');
  });

  it('lines are headed by service, slot, task and node', async () => {
    for (const line of await linesOf())
      assert.match(line, /^talk\.[12]\.\w{12}@h1 +\| (line [123]|trouble)$/);
  });

  for (const flags of [
    [],
    ['--raw'],
    ['--tail', '1'],
    ['--timestamps'],
    ['--no-task-ids'],
    ['--no-trunc'],
    ['--no-resolve'],
    ['--since', '1h'],
    ['--since', '2020-01-02T03:04:05Z', '--tail', '2', '--no-task-ids'],
  ]) {
    it(`prints what docker prints: ${flags.join(' ') || 'without flags'}`, async () => {
      const [ours, dockers] = await Promise.all([linesOf(...flags), dockersLines(...flags)]);
      // Lines of two containers come in any order; docker's padding differs with what it saw first.
      const normal = (lines: string[]): string[] => lines.map((line) => line.replace(/ +\| /, ' | ')).sort();
      assert.deepEqual(normal(ours), normal(dockers));
      assert.ok(ours.length > 0);
    });
  }

  it('--since leaves out what is older', async () => {
    assert.deepEqual(await linesOf('--since', '0s'), []);
  });

  it('a task’s logs are had by its id; nobody’s are not', async () => {
    const { stdout } = await host.shoal('service', 'ps', '-q', 'talk');
    const logs = await host.shoal('service', 'logs', '--raw', stdout.trim().split('\n')[0]!);
    assert.equal(logs.stdout, 'line 1\nline 2\nline 3\n');
    await assert.rejects(host.shoal('service', 'logs', 'nobody'), /no such task or service: nobody/);
  });
});
