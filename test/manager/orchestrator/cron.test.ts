import assert from 'node:assert/strict';
import type { CronRun, ServiceMode, TaskSpec } from '../../../proto/docker.ts';
import { makeSpec } from './objects.ts';
import { World } from './world.ts';

const minute = 60_000;

/** A world at midnight with a job that runs every ten minutes. */
function setUp(labels: Record<string, string> = {}, Mode: ServiceMode = { ReplicatedJob: {} }): World {
  const spec = { ...makeSpec({ Labels: { 'shoal.cron': '*/10 * * * *', ...labels } }), Mode };
  return new World().createService('job', spec).settle();
}

/** The same with a restart policy. */
function setUpTried(
  RestartPolicy: NonNullable<TaskSpec['RestartPolicy']>,
  labels: Record<string, string> = {},
): World {
  const Labels = { 'shoal.cron': '*/10 * * * *', ...labels };
  const spec = makeSpec({
    Labels,
    TaskTemplate: { RestartPolicy: { Condition: 'on-failure', ...RestartPolicy } },
  });
  return new World().createService('job', { ...spec, Mode: { ReplicatedJob: {} } }).settle();
}

const outcomes = (world: World): CronRun['Outcome'][] =>
  (world.service('job').Private.Cron?.Runs ?? []).map((run) => run.Outcome);
const startedAt = (world: World): (number | undefined)[] =>
  (world.service('job').Private.Cron?.Runs ?? []).map(({ StartedAt }) =>
    StartedAt === undefined ? undefined : (StartedAt - Date.UTC(2026, 0, 1)) / minute,
  );
/** The task of the newest run gets as far as running, and stays there. */
function begin(world: World): string {
  world.settle().schedule().settle();
  const task = world.active('job').at(-1)!;
  world.report(task.ID, 'running').settle();
  return task.ID;
}

describe('orchestrator: jobs with a schedule', () => {
  it('run when the schedule says, not when they are made, and remember how it went', () => {
    const world = setUp().pass(9 * minute);
    assert.deepEqual(world.tasks('job'), []);
    world.pass(minute).run();
    assert.deepEqual([outcomes(world), startedAt(world)], [['complete'], [10]]);
    world.pass(10 * minute);
    begin(world);
    assert.deepEqual(outcomes(world), ['complete', 'running']);
    world.run().pass(10 * minute);
    assert.deepEqual(startedAt(world), [10, 20, 30]);
  });

  it('a run whose task fails for good has failed', () => {
    const RestartPolicy = { Condition: 'none' as const };
    const spec = makeSpec({ Labels: { 'shoal.cron': '*/10 * * * *' }, TaskTemplate: { RestartPolicy } });
    const world = new World().createService('job', { ...spec, Mode: { ReplicatedJob: {} } }).settle();
    world
      .pass(10 * minute)
      .settle()
      .schedule();
    world.report(world.active('job')[0]!.ID, 'failed').settle();
    assert.deepEqual(outcomes(world), ['failed']);
  });

  it('a new leader goes on; what was missed is made up for once', () => {
    const world = setUp()
      .pass(10 * minute)
      .run();
    world.now += 47 * minute;
    world.newLeader();
    world.run();
    assert.deepEqual(
      [outcomes(world), startedAt(world)],
      [
        ['complete', 'complete'],
        [10, 57],
      ],
    );
    world.newLeader();
    world.pass(2 * minute).run();
    assert.equal(outcomes(world).length, 2);
    world.pass(minute).run();
    assert.deepEqual(startedAt(world), [10, 57, 60]);
  });

  it('forbid skips the next run and says so', () => {
    const world = setUp().pass(10 * minute);
    const first = begin(world);
    world.pass(10 * minute);
    assert.deepEqual(outcomes(world), ['running', 'skipped']);
    assert.deepEqual(
      world.active('job').map(({ ID }) => ID),
      [first],
    );
    world.report(first, 'complete').settle();
    assert.deepEqual(outcomes(world), ['complete', 'skipped']);
    world.pass(10 * minute).run();
    assert.deepEqual(outcomes(world), ['complete', 'skipped', 'complete']);
  });

  it('replace stops the run before, and only then begins', () => {
    const world = setUp({ 'shoal.cron.overlap': 'replace' }).pass(10 * minute);
    const first = begin(world);
    world.pass(10 * minute).settle();
    assert.deepEqual(outcomes(world), ['replaced', 'running']);
    assert.equal(world.task(first).DesiredState, 'remove');
    assert.deepEqual(
      world.active('job').map(({ DesiredState }) => DesiredState),
      ['ready'],
    );
    world.run();
    assert.deepEqual(outcomes(world), ['replaced', 'complete']);
  });

  it('allow lets the run before go on beside the next', () => {
    const world = setUp({ 'shoal.cron.overlap': 'allow' }).pass(10 * minute);
    const first = begin(world);
    world.pass(10 * minute);
    const second = begin(world);
    assert.notEqual(first, second);
    assert.deepEqual(
      world
        .running('job')
        .map(({ ID }) => ID)
        .sort(),
      [first, second].sort(),
    );
    assert.deepEqual(outcomes(world), ['running', 'running']);
    world.report(first, 'complete').settle();
    assert.deepEqual(outcomes(world), ['complete', 'running']);
    world.report(second, 'complete').settle();
    assert.deepEqual(outcomes(world), ['complete', 'complete']);
  });

  it('a run that another one overlaps begins nothing more, also not what failed and waits to be tried again', () => {
    const world = setUpTried({ Delay: 15 * minute * 1e6 }, { 'shoal.cron.overlap': 'allow' });
    world.pass(10 * minute);
    world.report(begin(world), 'failed').settle();
    assert.deepEqual(
      world.active('job').map(({ DesiredState }) => DesiredState),
      ['ready'],
    );
    world.pass(10 * minute).settle();
    assert.deepEqual(
      world.active('job').map(({ JobIteration }) => JobIteration?.Index),
      [2],
    );
    world.pass(9 * minute).run();
    assert.deepEqual(outcomes(world), ['failed', 'complete']);
  });

  it('nor does a run that another one overlaps wait for a node that is lost', () => {
    const world = setUp({ 'shoal.cron.overlap': 'allow' }).pass(10 * minute);
    const first = begin(world);
    world.pass(10 * minute);
    world.setNode(world.task(first).NodeID!, { Status: { State: 'down' } }).settle();
    assert.deepEqual(outcomes(world), ['failed', 'running']);
  });

  it('each run has all its attempts', () => {
    const world = setUpTried({ MaxAttempts: 1, Delay: 0 });
    for (const tried of [['failed'], ['failed', 'failed']]) {
      world.pass(10 * minute);
      for (let attempt = 0; attempt < 2; attempt += 1) world.report(begin(world), 'failed').settle();
      assert.deepEqual(outcomes(world), tried);
    }
    assert.equal(world.tasks('job').filter(({ JobIteration }) => JobIteration?.Index === 2).length, 2);
  });

  it('keeps as many runs as asked for', () => {
    const world = setUp({ 'shoal.cron.history': '2' });
    for (let run = 0; run < 5; run += 1) world.pass(10 * minute).run();
    assert.deepEqual(startedAt(world), [40, 50]);
  });

  it('another schedule counts from when it was given', () => {
    const world = setUp().pass(5 * minute);
    const service = world.service('job');
    const Spec = { ...service.Spec, Labels: { 'shoal.cron': '3 * * * *' } };
    world.apply([{ op: 'update', kind: 'service', object: { ...service, Spec } }]);
    world
      .settle()
      .pass(50 * minute)
      .run();
    assert.deepEqual(outcomes(world), []);
    world.pass(8 * minute).run();
    assert.deepEqual(startedAt(world), [63]);
  });

  it('global jobs run on every node', () => {
    const world = setUp({}, { GlobalJob: {} })
      .pass(10 * minute)
      .run();
    assert.equal(world.tasks('job').filter(({ Status }) => Status.State === 'complete').length, 3);
    assert.deepEqual(outcomes(world), ['complete']);
  });
});
