import assert from 'node:assert/strict';
import { text } from 'node:stream/consumers';
import fc from 'fast-check';
import { DetachFilter, parseDetachKeys } from '../../cli/detach-keys.ts';

describe('detach keys', () => {
  const filtered = async (keys: string, chunks: readonly string[]) => {
    let detached = 0;
    const filter = new DetachFilter(parseDetachKeys(keys), () => {
      detached += 1;
    });
    const passed = text(filter);
    for (const chunk of chunks) filter.write(chunk);
    filter.end();
    return { passed: await passed, detached };
  };

  it('are read as docker reads them', () => {
    assert.deepEqual([...parseDetachKeys('')], [16, 17]);
    assert.deepEqual([...parseDetachKeys('a,ctrl-A,ctrl-[,ctrl-@')], [97, 1, 27, 0]);
    for (const bad of ['ctrl-', 'ctrl-1', 'ab', 'a,,b'])
      assert.throws(() => parseDetachKeys(bad), /invalid detach keys/);
  });

  it('detach when they are typed in a row, wherever the pieces end', async () => {
    assert.deepEqual(await filtered('', ['ab\x10', '\x11']), { passed: 'ab', detached: 1 });
    assert.deepEqual(await filtered('', ['\x10a\x10\x10\x11']), { passed: '\x10a\x10', detached: 1 });
    assert.deepEqual(await filtered('', ['\x11\x10']), { passed: '\x11\x10', detached: 0 });
  });

  it('change nothing else', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.string({ maxLength: 4, unit: fc.constantFrom('p', 'q', 'x') })),
        async (chunks) => {
          fc.pre(!chunks.join('').includes('pq'));
          assert.deepEqual(await filtered('p,q', chunks), { passed: chunks.join(''), detached: 0 });
        },
      ),
    ));
});
