import assert from 'node:assert/strict';
import fc from 'fast-check';
import { withShares } from '../../../manager/dispatcher/rollout-share.ts';
import type { View } from '../../../manager/store/store.ts';
import type { Service, UpdateState } from '../../../proto/docker.ts';
import { makeService } from './cluster.ts';

interface Sample {
  readonly fresh: number;
  readonly old: number;
  readonly draining: number;
}

/** Each endpoint's weight, with whether it is of the new revision: `n:3`, `o:1`; without a weight `n`. */
function weights(
  { fresh, old, draining }: Sample,
  share: string | undefined,
  State: UpdateState | undefined,
): string[] {
  const base = makeService('service1', 'revision2');
  const service = {
    ...base,
    Spec: { ...base.Spec, Labels: share === undefined ? {} : { 'shoal.rollout.share': share } },
    ...(State === undefined ? {} : { UpdateStatus: { State, StartedAt: '', Message: '' } }),
  } as Service;
  const view = {
    get: (_kind: string, id: string) => ({ RevisionID: id.startsWith('n') ? 'revision2' : 'revision1' }),
  } as unknown as View;
  const endpoints = [
    ...Array.from({ length: fresh }, (_, at) => ({ task_id: `n${at}` })),
    ...Array.from({ length: old }, (_, at) => ({ task_id: `o${at}` })),
    ...Array.from({ length: draining }, (_, at) => ({ task_id: `o-draining${at}`, is_draining: true })),
  ];
  return withShares(view, service, endpoints)
    .filter(({ is_draining }) => !is_draining)
    .map(({ task_id, weight }) => `${task_id?.[0]}${weight === undefined ? '' : `:${weight}`}`);
}

describe('the share of a rollout', () => {
  it('is what the tasks of the new revision get together', () => {
    assert.deepEqual(weights({ fresh: 1, old: 1, draining: 0 }, '10%', 'updating'), ['n:1', 'o:9']);
    assert.deepEqual(weights({ fresh: 1, old: 3, draining: 2 }, '25%', 'paused'), [
      'n:1',
      'o:1',
      'o:1',
      'o:1',
    ]);
    assert.deepEqual(weights({ fresh: 2, old: 1, draining: 1 }, '1', 'updating'), ['n:1', 'n:1', 'o:198']);
  });

  it('is nobody’s where it was not asked for, no update is under way, or there is but one revision', () => {
    const sample = { fresh: 1, old: 2, draining: 0 };
    for (const plain of [
      weights(sample, undefined, 'updating'),
      weights(sample, '10%', 'completed'),
      weights(sample, '10%', 'rollback_started'),
      weights(sample, '10%', undefined),
    ]) {
      assert.deepEqual(plain, ['n', 'o', 'o']);
    }
    assert.deepEqual(weights({ fresh: 0, old: 2, draining: 0 }, '10%', 'updating'), ['o', 'o']);
    assert.deepEqual(weights({ fresh: 2, old: 0, draining: 3 }, '10%', 'updating'), ['n', 'n']);
  });

  it('is exact, and nobody is left out', () => {
    const some = fc.integer({ min: 1, max: 40 });
    fc.assert(
      fc.property(some, some, fc.integer({ min: 1, max: 99 }), (fresh, old, share) => {
        const found = weights({ fresh, old, draining: 1 }, `${share}%`, 'updating');
        const sum = (kind: string) =>
          found.filter((one) => one.startsWith(kind)).reduce((total, one) => total + Number(one.slice(2)), 0);
        assert.equal(sum('n') * (100 - share), sum('o') * share);
        assert.ok(found.every((one) => Number.isInteger(Number(one.slice(2))) && Number(one.slice(2)) >= 1));
      }),
    );
  });
});
