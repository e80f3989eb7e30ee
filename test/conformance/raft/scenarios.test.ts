/**
 * The consensus core against text scenarios: etcd's own, where they are at hand (SHOAL_CORPUS names the
 * folder above etcd-raft), and those of this project, which SHOAL_REWRITE=1 rewrites to what comes out.
 */
import fs from 'node:fs';
import path from 'node:path';
import { type Directive, runScenario } from './data-driven.ts';
import { InteractionEnvironment } from './interaction.ts';
import { ConfChangeEnvironment, handleQuorum } from './pure-commands.ts';

// This file runs from dist/test/conformance/raft.
const root = path.resolve(import.meta.dirname, '../../../..');
const corpus = path.join(process.env.SHOAL_CORPUS ?? path.resolve(root, '../shared/corpus'), 'etcd-raft');
const own = path.join(root, 'test/scenarios/raft');

/** Members' log lines are in words of etcd's own, and are left out. */
function withoutLogLines(output: string): string {
  const kept = output.split('\n').filter((line) => !/^\s*(DEBUG|INFO|WARN|ERROR|FATAL) /.test(line));
  const text = kept.join('\n');
  return text.trim() === '' ? 'ok\n' : text;
}

function filesIn(folder: string): string[] {
  if (!fs.existsSync(folder)) return [];
  return fs
    .readdirSync(folder)
    .filter((name) => name.endsWith('.txt'))
    .sort();
}

const handlers: Record<string, () => (directive: Directive) => string> = {
  quorum: () => handleQuorum,
  confchange: () => {
    const environment = new ConfChangeEnvironment();
    return (directive) => environment.handle(directive);
  },
  interaction: () => {
    const environment = new InteractionEnvironment();
    return (directive) => environment.handle(directive);
  },
};

describe('consensus core: etcd scenarios', () => {
  for (const [folder, handler] of Object.entries(handlers)) {
    const files = filesIn(path.join(corpus, folder));
    if (files.length === 0) {
      it(`${folder} (the corpus is not here)`, function () {
        this.skip();
      });
    }
    for (const file of files) {
      it(`${folder}/${file}`, () => {
        runScenario(path.join(corpus, folder, file), handler(), { normalise: withoutLogLines });
      });
    }
  }
});

describe('consensus core: own scenarios', () => {
  for (const file of filesIn(own)) {
    it(file, () => {
      const rewrite = process.env.SHOAL_REWRITE === '1';
      runScenario(path.join(own, file), handlers.interaction!(), { rewrite });
    });
  }
});
