import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { repositoryRoot } from '../lab/lab.ts';
import { expectedSeconds, timedFiles } from './durations.ts';
import { FileQueue } from './queue.ts';

const secondsOf = (path: string) => Number(path.slice(1));

describe('the queue of files', () => {
  it('gives the longest first, and equals as they came', () => {
    const queue = new FileQueue(['a1', 'b3', 'c2', 'd3'], secondsOf);
    assert.deepEqual([queue.take(), queue.take(), queue.take(), queue.take()], ['b3', 'd3', 'c2', 'a1']);
    assert.equal(queue.take(), undefined);
    assert.equal(queue.isDone, false);
    for (const path of ['a1', 'b3', 'c2', 'd3']) queue.end(path);
    assert.equal(queue.isDone, true);
  });

  it('gives each file once, and those that need quiet when nothing else is under way', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.nat(99), { maxLength: 20 }),
        fc.nat(100),
        fc.infiniteStream(fc.nat(3)),
        (numbers, quietBelow, choices) => {
          const paths = numbers.map((number) => `f${number}`);
          const isAlone = (path: string) => secondsOf(path) < quietBelow;
          const queue = new FileQueue(paths, secondsOf, isAlone);
          const running: string[] = [];
          const taken: string[] = [];
          while (!queue.isDone) {
            const path = running.length < 3 ? queue.take() : undefined;
            if (path === undefined) {
              const [ended] = running.splice(choices.next().value! % running.length, 1);
              assert.ok(ended, 'nothing is under way, and nothing is given');
              queue.end(ended);
              continue;
            }
            assert.ok(!running.some(isAlone) && !(isAlone(path) && running.length > 0));
            running.push(path);
            taken.push(path);
          }
          assert.deepEqual([...taken].sort(), [...paths].sort());
          assert.deepEqual(taken.filter(isAlone), taken.slice(taken.length - paths.filter(isAlone).length));
        },
      ),
    );
  });

  it('knows durations of files that are there', () => {
    const missing = timedFiles.filter((name) => !existsSync(join(repositoryRoot, 'test', `${name}.test.ts`)));
    assert.deepEqual(missing, []);
    assert.ok(expectedSeconds('dist/test/lab/service-upkeep.test.js') > 60);
    assert.ok(expectedSeconds('dist/test/lab/new.test.js') > expectedSeconds('dist/test/tidy.test.js'));
  });
});
