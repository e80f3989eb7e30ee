/**
 * The consensus core against text scenarios: etcd's own, where they are at hand (SHOAL_CORPUS names the
 * folder above etcd-raft), and those of this project, which `npm run scenarios -- --rewrite FILE` rewrites to what comes out.
 */
import fs from 'node:fs';
import path from 'node:path';
import { runScenarioFile, withoutLogLines } from './scenario-file.ts';

// This file runs from dist/test/conformance/raft.
const root = path.resolve(import.meta.dirname, '../../../..');
const corpus = path.join(process.env.SHOAL_CORPUS ?? path.resolve(root, '../shared/corpus'), 'etcd-raft');
const own = path.join(root, 'test/scenarios/raft');

function filesIn(folder: string): string[] {
  if (!fs.existsSync(folder)) return [];
  return fs
    .readdirSync(folder)
    .filter((name) => name.endsWith('.txt'))
    .sort();
}

const folders = ['quorum', 'confchange', 'interaction'];

describe('consensus core: etcd scenarios', () => {
  for (const folder of folders) {
    const files = filesIn(path.join(corpus, folder));
    if (files.length === 0) {
      it(`${folder} (the corpus is not here)`, function () {
        this.skip();
      });
    }
    for (const file of files) {
      it(`${folder}/${file}`, () => {
        runScenarioFile(path.join(corpus, folder, file), { normalise: withoutLogLines });
      });
    }
  }
});

describe('consensus core: own scenarios', () => {
  for (const file of filesIn(own)) {
    it(file, () => {
      runScenarioFile(path.join(own, file), {});
    });
  }
});
