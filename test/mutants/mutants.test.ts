/** The list of planted bugs fits the code as it is. That each is caught, `npm run mutants` shows. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { mutants } from './mutants.ts';
import { planted } from './plant.ts';

// This file runs from dist/test/mutants.
const manager = resolve(import.meta.dirname, '../../manager');

describe('planted bugs', () => {
  it('are many, and each has a name of its own', () => {
    assert.ok(mutants.length >= 40);
    assert.equal(new Set(mutants.map(({ name }) => name)).size, mutants.length);
  });

  for (const mutant of mutants) {
    it(`${mutant.name}: can be planted`, () => {
      const text = readFileSync(resolve(manager, mutant.file), 'utf8');
      assert.notEqual(planted(text, mutant), text);
    });
  }
});
