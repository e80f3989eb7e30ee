/** Statuses on their way to managers of whom some do not answer. */
import assert from 'node:assert/strict';
import { Reporter, type StatusUpdate } from '../../agent/reporter.ts';
import type { AgentStatus } from '../../agent/wire.ts';
import { silentLog } from '../../proto/ports.ts';
import { VirtualClock } from '../simulation/clock.ts';

const status = (state: AgentStatus['state']): AgentStatus => ({ state, message: state, err: '', atMs: 0 });
const never = () => new Promise<never>(() => {});
const statesOf = (updates: readonly StatusUpdate[]) =>
  updates.map(({ task_id, status: { state } }) => `${task_id} ${state}`);

describe('agent: reports', () => {
  let clock: VirtualClock;
  let reporter: Reporter;
  let heard: string[];

  const hear = async (updates: StatusUpdate[]) => {
    heard.push(...statesOf(updates));
  };

  beforeEach(() => {
    clock = new VirtualClock();
    reporter = new Reporter(clock, silentLog, () => 'n1');
    heard = [];
  });

  it('wait for nobody whom they are no longer meant for', async () => {
    reporter.connect(never);
    reporter.report('t1', status('running'));
    await clock.run(100);
    reporter.connect(undefined);
    reporter.connect(hear);
    await clock.run(100);
    assert.deepEqual(heard, ['t1 RUNNING']);
    assert.equal(reporter.pendingCount, 0);
  });

  it('that the one before acknowledges late are not said again, newer ones are', async () => {
    let acknowledge = () => {};
    reporter.connect(
      () =>
        new Promise((resolve) => {
          acknowledge = resolve;
        }),
    );
    reporter.report('t1', status('starting'));
    reporter.report('t2', status('starting'));
    await clock.run(100);
    reporter.connect(undefined);
    reporter.report('t2', status('running'));
    acknowledge();
    await clock.run(100);
    reporter.connect(hear);
    await clock.run(100);
    assert.deepEqual(heard, ['t2 RUNNING']);
  });

  it('come one batch after the other, the newest of each task', async () => {
    let answers: (() => void)[] = [];
    reporter.connect(async (updates) => {
      heard.push(...statesOf(updates));
      await new Promise<void>((resolve) => answers.push(resolve));
    });
    reporter.report('t1', status('preparing'));
    await clock.run(100);
    reporter.report('t1', status('starting'));
    reporter.report('t1', status('running'));
    await clock.run(100);
    assert.deepEqual(heard, ['t1 PREPARING']);
    for (const answer of answers) answer();
    answers = [];
    await clock.run(100);
    assert.deepEqual(heard, ['t1 PREPARING', 't1 RUNNING']);
  });
});
