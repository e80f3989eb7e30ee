import assert from 'node:assert/strict';
import fc from 'fast-check';
import { splitAssignments } from '../../../manager/dispatcher/split.ts';
import type { AssignmentChange__Output } from '../../../proto/generated/docker/swarmkit/v1/AssignmentChange.ts';
import type { AssignmentsMessage__Output } from '../../../proto/generated/docker/swarmkit/v1/AssignmentsMessage.ts';

type State = 'ASSIGNED' | 'RUNNING';

function task(id: string, state: State = 'ASSIGNED'): AssignmentChange__Output {
  return { assignment: { task: { id, status: { state } }, item: 'task' }, action: 'UPDATE' };
}

function secret(id: string, bytes: number): AssignmentChange__Output {
  const data = Buffer.alloc(bytes);
  return { assignment: { secret: { id, spec: { data } }, item: 'secret' }, action: 'UPDATE' };
}

function idsOf(message: AssignmentsMessage__Output): (string | undefined)[] {
  return (message.changes ?? []).map(({ assignment }) => assignment?.task?.id ?? assignment?.secret?.id);
}

describe('dispatcher/split', () => {
  it('leaves alone what is small enough', () => {
    const message = { type: 'COMPLETE', results_in: '1', changes: [secret('s', 10), task('t')] } as const;
    assert.deepEqual(splitAssignments({ ...message, changes: [...message.changes] }), [message]);
  });

  it('a worker that starts anew hears first of every task that runs, then of secrets before who waits for them', () => {
    const changes = [secret('s1', 600), secret('s2', 600), task('new'), task('old', 'RUNNING')];
    const parts = splitAssignments({ type: 'COMPLETE', results_in: '7', changes }, 900);
    assert.deepEqual(parts.map(idsOf), [
      ['old', 's1'],
      ['s2', 'new'],
    ]);
    assert.deepEqual(
      parts.map((part) => [part.type, part.applies_to, part.results_in]),
      [
        ['COMPLETE', undefined, '7.1'],
        ['INCREMENTAL', '7.1', '7'],
      ],
    );
  });

  it('whatever it holds: nothing lost, nothing twice, each part after the one before, none too large', () => {
    const change = fc.oneof(
      fc.record({ bytes: fc.nat(1200) }).map(
        ({ bytes }) =>
          (id: string) =>
            secret(id, bytes),
      ),
      fc.constantFrom<State>('ASSIGNED', 'RUNNING').map((state) => (id: string) => task(id, state)),
    );
    fc.assert(
      fc.property(fc.array(change, { maxLength: 30 }), fc.boolean(), (makers, isComplete) => {
        const changes = makers.map((make, at) => make(`${at}`));
        const type = isComplete ? 'COMPLETE' : 'INCREMENTAL';
        const head = isComplete ? { results_in: '2' } : { applies_to: '1', results_in: '2' };
        const parts = splitAssignments({ type, ...head, changes }, 2_000);
        assert.deepEqual(parts.flatMap(idsOf).sort(), idsOf({ changes }).sort());
        assert.equal(parts.at(-1)?.results_in, '2');
        assert.deepEqual([parts[0]?.type, parts[0]?.applies_to], [type, isComplete ? undefined : '1']);
        parts.slice(1).forEach((part, at) => {
          assert.equal(part.type, 'INCREMENTAL');
          assert.equal(part.applies_to, parts[at]?.results_in);
        });
        const running = changes.filter((one) => one.assignment?.task?.status?.state === 'RUNNING');
        if (isComplete) for (const one of running) assert.ok(parts[0]?.changes?.includes(one));
        for (const part of parts.slice(1)) {
          const size = (part.changes ?? []).reduce(
            (sum, one) => sum + (one.assignment?.secret?.spec?.data?.length ?? 0),
            0,
          );
          assert.ok(size <= 2_000);
        }
      }),
    );
  });
});
