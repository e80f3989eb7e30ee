/** Jobs with a schedule: made by either client, run by the managers, through a change of leader. */
import assert from 'node:assert/strict';
import { formCluster, leaderHost, tasksOf } from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

describe('lab: jobs with a schedule', () => {
  let lab: Lab;
  let host: LabHost;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(3, 'shoal-cron');
    await formCluster(lab, 3);
    host = lab.host(1);
  });

  after(() => lab?.down());

  const runs = async (on: LabHost, name: string): Promise<string> =>
    (await on.shoal('service', 'runs', name)).stdout;
  const completed = async (on: LabHost, name: string): Promise<number> =>
    (await runs(on, name)).match(/Complete/g)?.length ?? 0;

  it('run again and again, as the stock CLI asked for by labels, also under another leader', async () => {
    const labels = ['--label', 'shoal.cron=*/3 * * * * *', '--label', 'shoal.cron.timezone=Europe/Berlin'];
    const job = ['--mode', 'replicated-job', '--restart-condition', 'none'];
    await host.docker(
      'service',
      'create',
      '--detach',
      '--name',
      'tick',
      ...job,
      ...labels,
      'busybox:lab',
      'true',
    );
    await waitFor('two runs to be complete', 40_000, async () => (await completed(host, 'tick')) >= 2);
    assert.match(
      await runs(host, 'tick'),
      /schedule: \*\/3 \* \* \* \* \* \(Europe\/Berlin\), overlap: forbid, next run: 2/,
    );
    const leader = await leaderHost(lab, host);
    const witness = lab.hosts.find((one) => one !== leader)!;
    await leader.powerOff();
    const before = await waitFor('the others to answer', 20_000, () => completed(witness, 'tick'));
    await waitFor('runs under the next leader', 40_000, async () => {
      return (await completed(witness, 'tick')) >= Math.min(10, before + 2);
    });
    assert.ok((await tasksOf(witness, 'tick')).some((task) => task.Status.State === 'complete'));
    await witness.shoal('service', 'rm', 'tick');
    host = witness;
  });

  it('a run that is not over lets the next be skipped, or is replaced', async () => {
    const job = ['--mode', 'replicated-job', '--cron', '*/2 * * * * *'];
    const { stderr } = await host.shoal(
      'service',
      'create',
      '--name',
      'slow',
      ...job,
      'busybox:lab',
      'sleep',
      '600',
    );
    assert.match(stderr, /runs by its schedule/);
    await waitFor('a skipped run', 30_000, async () =>
      /Skipped: the run before/.test(await runs(host, 'slow')),
    );
    await host.shoal('service', 'update', '--cron-overlap', 'replace', 'slow');
    await waitFor('a replaced run', 30_000, async () => /Replaced/.test(await runs(host, 'slow')));
    await host.shoal('service', 'rm', 'slow');
  });

  it('what is no schedule, or no job, is refused by name', async () => {
    const create = (...flags: string[]) =>
      host.docker('service', 'create', '--detach', ...flags, 'busybox:lab', 'true');
    await assert.rejects(
      create('--mode', 'replicated-job', '--label', 'shoal.cron=daily'),
      /shoal\.cron must be the five fields of cron/,
    );
    await assert.rejects(create('--label', 'shoal.cron=0 3 * * *'), /shoal\.cron is for jobs/);
  });
});
