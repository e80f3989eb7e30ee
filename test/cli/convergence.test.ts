/** How far a service is, from its tasks and nodes, and what a terminal shows of it. */
import assert from 'node:assert/strict';
import type { ListedTask } from '../../cli/commands/tasks.ts';
import { type Picture, pictureOf } from '../../cli/convergence.ts';
import { linesOf } from '../../cli/progress.ts';
import type { ClusterNode, RestartPolicy, Service, ServiceMode, UpdateStatus } from '../../proto/docker.ts';

let made = 0;

function task(
  place: number | string,
  State: string,
  more: { desired?: string; error?: string } = {},
): ListedTask {
  made += 1;
  return {
    ID: `t${made}`,
    ...(typeof place === 'number' ? { Slot: place } : { NodeID: place }),
    Status: { State, Timestamp: '', Message: '', ...(more.error ? { Err: more.error } : {}) },
    DesiredState: more.desired ?? 'running',
    CreatedAt: `2026-01-01T00:00:${String(made).padStart(2, '0')}Z`,
  } as unknown as ListedTask;
}

function node(ID: string, Availability = 'active', State = 'ready', Role = 'worker'): ClusterNode {
  return {
    ID,
    Spec: { Availability, Role, Labels: {} },
    Description: { Hostname: `host-${ID}`, Platform: {}, Engine: { Labels: {} } },
    Status: { State, Addr: '' },
  } as unknown as ClusterNode;
}

function service(
  Mode: ServiceMode,
  more: { restart?: RestartPolicy; constraints?: string[]; status?: Partial<UpdateStatus> } = {},
): Service {
  const Placement = { Constraints: more.constraints ?? [] };
  const RestartPolicy = more.restart ?? {};
  return {
    Spec: { Mode, TaskTemplate: { ContainerSpec: { Image: 'a' }, RestartPolicy, Placement } },
    ...(more.status ? { UpdateStatus: more.status } : {}),
  } as unknown as Service;
}

const replicated = (Replicas: number): ServiceMode => ({ Replicated: { Replicas } });
const count = (picture: Picture): string => `${picture.done}/${picture.total}`;

describe('cli: convergence', () => {
  it('a job is done when each of its slots has completed in this iteration', () => {
    const job = { ...service({ ReplicatedJob: { MaxConcurrent: 1, TotalCompletions: 2 } }), JobStatus: {} };
    const of = (one: ListedTask, Index?: number): ListedTask => ({
      ...one,
      JobIteration: Index === undefined ? {} : { Index },
    });
    const again = { ...job, JobStatus: { JobIteration: { Index: 1 } } } as Service;
    const first = { ...job, JobStatus: { JobIteration: {} } } as Service;
    const { Slot: _zero, ...zero } = task(0, 'complete', { desired: 'complete' });
    const tasks = [of(zero), of(task(1, 'running', { desired: 'complete' }))];
    const picture = pictureOf(first, tasks, tasks, []);
    assert.equal(count(picture), '1/2');
    assert.deepEqual(
      picture.places.map((place) => [place.name, place.isDone]),
      [
        ['1/2', true],
        ['2/2', false],
      ],
    );
    assert.equal(count(pictureOf(again, tasks, tasks, [])), '0/2');
    const failed = [of(zero), of(task(1, 'failed', { desired: 'shutdown', error: 'exit 1' }))];
    assert.match(pictureOf(first, failed, failed, []).failure ?? '', /1 of 2 tasks ended.*exit 1/);
  });

  it('counts slots, made or not; the newest task of a slot speaks for it', () => {
    const tasks = [
      task(1, 'failed', { desired: 'shutdown', error: 'old' }),
      task(1, 'running'),
      task(2, 'preparing'),
    ];
    const picture = pictureOf(service(replicated(3)), tasks, tasks, []);
    assert.equal(count(picture), '1/3');
    assert.deepEqual(
      picture.places.map((place) => place.task?.Status.State),
      ['running', 'preparing', undefined],
    );
    assert.equal(picture.failure, undefined);
  });

  it('nothing wanted is complete; tasks that are out of date do not count', () => {
    const old = [task(1, 'running')];
    assert.equal(count(pictureOf(service(replicated(0)), [], old, [])), '0/0');
    assert.equal(count(pictureOf(service(replicated(1)), [], old, [])), '0/1');
  });

  it('a slot that is tried again tells why the last one ended', () => {
    const tasks = [
      task(1, 'failed', { desired: 'shutdown', error: 'exit 7' }),
      task(1, 'ready', { desired: 'ready' }),
    ];
    const picture = pictureOf(service(replicated(1)), tasks, tasks, []);
    assert.equal(picture.places[0]?.problem, 'exit 7');
    assert.equal(picture.failure, undefined);
  });

  it('work that is done for good counts; work that failed for good is a failure, once all has ended', () => {
    const none: RestartPolicy = { Condition: 'none' };
    const done = task(1, 'complete', { desired: 'shutdown' });
    assert.equal(count(pictureOf(service(replicated(1), { restart: none }), [done], [done], [])), '1/1');
    assert.equal(count(pictureOf(service(replicated(1)), [done], [done], [])), '0/1');
    const failed = task(2, 'failed', { desired: 'shutdown', error: 'exit 3' });
    const live = task(3, 'starting');
    const three = service(replicated(3), { restart: none });
    assert.equal(pictureOf(three, [done, failed, live], [done, failed, live], []).failure, undefined);
    const two = service(replicated(2), { restart: none });
    assert.match(
      pictureOf(two, [done, failed], [done, failed], []).failure ?? '',
      /1 of 2 tasks ended.*exit 3/,
    );
  });

  it('a global service has the nodes that can have it, seen or not', () => {
    const nodes = [
      node('a'),
      node('b', 'drain'),
      node('c', 'pause'),
      node('d', 'pause'),
      node('e', 'active', 'down'),
      node('m', 'active', 'ready', 'manager'),
    ];
    const tasks = [task('a', 'running'), task('c', 'running')];
    const all = pictureOf(service({ Global: {} }), tasks, tasks, nodes);
    assert.deepEqual(
      all.places.map((place) => [place.name, place.isDone]),
      [
        ['host-a', true],
        ['host-c', true],
        ['host-m', false],
      ],
    );
    const workers = service({ Global: {} }, { constraints: ['node.role==worker'] });
    assert.equal(count(pictureOf(workers, tasks, tasks, nodes)), '2/2');
  });

  it('a paused update is a failure, a rollback is told', () => {
    const paused = service(replicated(1), { status: { State: 'paused', Message: 'because' } });
    assert.equal(pictureOf(paused, [], [], []).failure, 'service update paused: because');
    const rolled = service(replicated(1), { status: { State: 'rollback_completed', Message: 'done' } });
    assert.deepEqual(pictureOf(rolled, [], [], []).rollback, { isOver: true, message: 'done' });
    const rolling = service(replicated(1), { status: { State: 'rollback_started', Message: 'x' } });
    assert.equal(pictureOf(rolling, [], [], []).isRolling, true);
  });

  it('draws a bar for each place, the reason where there is one, and a count when there are many', () => {
    const tasks = [task(1, 'running'), task(2, 'pending', { error: 'no suitable node' })];
    const lines = linesOf(pictureOf(service(replicated(2)), tasks, tasks, []));
    assert.equal(lines[0], 'overall progress: 1 out of 2 tasks');
    assert.equal(lines[1], `1/2: running   [${'='.repeat(49)}>]`);
    assert.match(lines[2]!, /^2\/2: pending .*no suitable node/);
    const many = linesOf(pictureOf(service(replicated(50)), tasks, tasks, []));
    assert.deepEqual(many, ['overall progress: 1 out of 50 tasks (no suitable node)']);
  });
});
