import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { ContainerPhase, ContainerState, Health } from '../../agent/engine/engine.ts';
import { type Action, type ContainerView, transition, type Wanted } from '../../agent/transition.ts';
import type { AgentStatus } from '../../agent/wire.ts';
import { isTerminal, type TaskState, taskStateRank, taskStates } from '../../proto/task-state.ts';

const container = (over: Partial<ContainerState> = {}): ContainerState => ({
  id: 'c1',
  name: 'web.1.t1',
  labels: {},
  phase: 'running',
  pid: 42,
  exitCode: 0,
  oomKilled: false,
  error: '',
  health: 'none',
  healthOutput: '',
  ports: [],
  ...over,
});
const status = (state: TaskState): AgentStatus => ({ state, message: state, err: '', atMs: 0 });
const exited = (exitCode: number, over: Partial<ContainerState> = {}) =>
  container({ phase: 'exited', pid: 0, exitCode, ...over });
const advance = (state: TaskState, message: string, err?: string): Action => ({
  kind: 'advance',
  state,
  message,
  ...(err === undefined ? {} : { err }),
});

describe('transition', () => {
  const table: [string, TaskState, Wanted, ContainerView, Action][] = [
    ['a new task is accepted', 'assigned', 'running', 'absent', advance('accepted', 'accepted')],
    ['then prepared', 'accepted', 'running', 'absent', advance('preparing', 'preparing')],
    ['which makes its container', 'preparing', 'running', 'absent', { kind: 'prepare' }],
    [
      'one that is half made goes first',
      'preparing',
      'ready',
      container({ phase: 'created' }),
      { kind: 'remove' },
    ],
    ['a ready task waits', 'ready', 'ready', container({ phase: 'created' }), { kind: 'rest' }],
    [
      'until it is to run',
      'ready',
      'running',
      container({ phase: 'created' }),
      advance('starting', 'starting'),
    ],
    [
      'a ready task whose container was removed makes another',
      'ready',
      'ready',
      'absent',
      { kind: 'prepare' },
    ],
    ['an isolated one is stopped', 'running', 'isolated', container(), { kind: 'stop' }],
    [
      'and says why it was',
      'running',
      'isolated',
      exited(0),
      advance(
        'shutdown',
        'shutdown',
        'the node had lost its managers: stopped, so that it never runs twice (shoal.partition.stop-on-isolation)',
      ),
    ],
    ['as far as anybody can tell', 'running', 'isolated', 'unknown', { kind: 'rest' }],
    ['it starts', 'starting', 'running', container({ phase: 'created' }), { kind: 'start' }],
    ['it runs', 'starting', 'running', container(), advance('running', 'started')],
    ['not before it is healthy', 'starting', 'running', container({ health: 'starting' }), { kind: 'rest' }],
    ['healthy', 'starting', 'running', container({ health: 'healthy' }), advance('running', 'started')],
    ['never healthy', 'starting', 'running', container({ health: 'unhealthy' }), { kind: 'stop' }],
    ['running is left alone', 'running', 'running', container(), { kind: 'rest' }],
    ['no longer healthy', 'running', 'running', container({ health: 'unhealthy' }), { kind: 'stop' }],
    ['finished', 'running', 'running', exited(0), advance('complete', 'finished')],
    ['failed', 'running', 'running', exited(1), advance('failed', 'started', 'task: non-zero exit (1)')],
    [
      'failed at once',
      'starting',
      'running',
      exited(2),
      advance('failed', 'started', 'task: non-zero exit (2)'),
    ],
    [
      'out of memory',
      'running',
      'running',
      exited(137, { oomKilled: true }),
      advance('failed', 'started', 'task: non-zero exit (137): OOM: the container ran out of memory'),
    ],
    [
      'unhealthy, with the last output',
      'running',
      'running',
      exited(0, { health: 'unhealthy', healthOutput: 'curl: (7)' }),
      advance('failed', 'started', 'task: non-zero exit (0): unhealthy container: curl: (7)'),
    ],
    [
      'removed by hand',
      'running',
      'running',
      'absent',
      advance('failed', 'running', 'No such container: it was removed from the engine'),
    ],
    ['an engine that does not answer fails nothing', 'running', 'running', 'unknown', { kind: 'rest' }],
    ['nor prepares anything', 'preparing', 'running', 'unknown', { kind: 'rest' }],
    ['shut down while running', 'running', 'shutdown', container(), { kind: 'stop' }],
    ['shut down', 'running', 'shutdown', exited(143), advance('shutdown', 'shutdown')],
    ['shut down before it was made', 'accepted', 'shutdown', 'absent', advance('shutdown', 'shutdown')],
    ['what failed stays failed', 'failed', 'shutdown', exited(1), { kind: 'rest' }],
    ['and must not run', 'orphaned', 'running', container(), { kind: 'stop' }],
    ['gone: stop first', 'running', 'gone', container(), { kind: 'stop' }],
    ['gone: then remove', 'failed', 'gone', exited(1), { kind: 'remove' }],
    ['gone: then forget', 'failed', 'gone', 'absent', { kind: 'forget' }],
    ['gone: not while the engine is', 'running', 'gone', 'unknown', { kind: 'rest' }],
  ];
  for (const [name, state, wanted, view, expected] of table) {
    it(name, () => assert.deepEqual(transition(status(state), wanted, view), expected));
  }

  it('never takes a state back, and always comes to rest', () => {
    const view = fc.oneof(
      fc.constant<ContainerView>('absent'),
      fc.constant<ContainerView>('unknown'),
      fc.record({
        phase: fc.constantFrom<ContainerPhase>('created', 'running', 'exited', 'dead'),
        health: fc.constantFrom<Health>('none', 'starting', 'healthy', 'unhealthy'),
        exitCode: fc.integer({ min: 0, max: 255 }),
        oomKilled: fc.boolean(),
      }),
    );
    const wanted = fc.constantFrom<Wanted>('ready', 'running', 'shutdown', 'gone');
    fc.assert(
      fc.property(fc.constantFrom(...taskStates), wanted, view, (first, want, seen) => {
        let state = first;
        let now: ContainerView = typeof seen === 'string' ? seen : container(seen);
        for (let step = 0; step < 20; step += 1) {
          const action = transition(status(state), want, now);
          if (action.kind === 'rest' || action.kind === 'forget') return;
          if (action.kind === 'advance') {
            assert.ok(taskStateRank[action.state] > taskStateRank[state], `${state} → ${action.state}`);
            assert.ok(!isTerminal(state), `${state} → ${action.state}`);
            state = action.state;
          } else if (action.kind === 'prepare') {
            now = container({ phase: 'created' });
            if (taskStateRank[state] < taskStateRank.ready) state = 'ready';
          } else if (action.kind === 'start') now = container();
          else if (action.kind === 'remove') now = 'absent';
          else now = exited(0);
        }
        assert.fail(`${first} wanted ${want} does not come to rest`);
      }),
    );
  });
});
