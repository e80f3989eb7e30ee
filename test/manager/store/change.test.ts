import assert from 'node:assert/strict';
import { decodeEntry, encodeEntry } from '../../../manager/store/change.ts';
import type { Secret } from '../../../proto/docker.ts';
import type { SecretId } from '../../../proto/ids.ts';

const now = Date.UTC(2026, 5, 1);

function secretWith(Labels: Record<string, string>): Secret {
  const times = { Version: { Index: 0 }, CreatedAt: '', UpdatedAt: '' };
  return { ID: 'a' as SecretId, ...times, Spec: { Name: 'a', Labels } };
}

describe('manager/store/change', () => {
  it('reads entries back as they were written', () => {
    const entry = {
      now,
      changes: [{ op: 'create', kind: 'secret', object: secretWith({ a: 'b' }) }],
    } as const;
    assert.deepEqual(decodeEntry(encodeEntry(entry)), entry);
  });

  it('reads a key that would be a prototype as another one, in either form, on every manager the same', () => {
    const odd = { op: 'create', kind: 'secret', object: secretWith({ ['__proto__']: 'x' }) } as const;
    for (const times of [1, 300]) {
      const [first] = decodeEntry(encodeEntry({ now, changes: Array(times).fill(odd) })).changes;
      assert.ok(first?.op === 'create' && first.kind === 'secret');
      assert.deepEqual(Object.entries(first.object.Spec.Labels), [['__proto_', 'x']]);
      assert.equal(Object.getPrototypeOf(first.object.Spec.Labels), Object.prototype);
    }
  });
});
