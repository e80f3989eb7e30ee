/**
 * Our API, holding what a stock Docker Engine held when its answers were recorded, gives the same statuses,
 * messages, headers and bodies. Each difference stands in docs/api-differences.md with its reason; one that is not
 * there fails, and so does a line there that no answer bears out any more.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { repositoryRoot } from '../../lab/lab.ts';
import { type Answer, TestApi, TestHost } from '../../manager/api/host.ts';
import { type Difference, differences } from './difference.ts';
import {
  corpusFile,
  type Recorded,
  RecordedEngine,
  type Recording,
  readCorpus,
  storeRecorded,
} from './recording.ts';

/** A line of the table: which requests, which field of their answers, and why it differs. */
interface Justification {
  readonly requests: RegExp;
  readonly field: RegExp;
  isBorneOut: boolean;
}

const table = path.join(repositoryRoot, 'docs', 'api-differences.md');

/** The lines of the table: `request` (with … for anything) | `field` | reason. */
function readJustifications(): Justification[] {
  const rows = readFileSync(table, 'utf8').matchAll(/^\| `([^`]+)` +\| `([^`]+)` +\| .+\|$/gm);
  return [...rows].map(([, requests, field]) => ({
    requests: patternOf(requests!),
    field: patternOf(field!),
    isBorneOut: false,
  }));
}

function patternOf(text: string): RegExp {
  const literal = text.split('…').map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&'));
  return new RegExp(`^${literal.join('.*')}$`);
}

const comparedHeaders = [
  'api-version',
  'ostype',
  'docker-experimental',
  'cache-control',
  'pragma',
  'content-type',
];

function allDifferences(recorded: Recorded, answer: Answer): Difference[] {
  if (answer.status !== recorded.status) {
    return [{ path: 'status', kind: 'value', recorded: recorded.status, answered: answer.status }];
  }
  const headers = comparedHeaders
    .filter((name) => recorded.headers[name] !== answer.headers[name])
    .map(
      (name): Difference => ({
        path: `header ${name}`,
        kind: 'value',
        recorded: recorded.headers[name],
        answered: answer.headers[name],
      }),
    );
  const isText = typeof recorded.body === 'string' || recorded.body === null;
  const bodies = isText ? [] : differences(recorded.body, answer.json);
  return [...headers, ...bodies];
}

const recordings: [string, string, (host: TestHost, recording: Recording) => void][] = [
  ['in a swarm', 'real-swarm.json', storeRecorded],
  ['outside of a swarm', 'real-noswarm.json', (host) => host.become({ kind: 'none' })],
];

describe('conformance: a stock engine’s answers', () => {
  if (recordings.some(([, file]) => corpusFile(file) === undefined)) {
    it.skip('needs real-swarm.json and real-noswarm.json of the recorded corpus (SHOAL_CORPUS)');
    return;
  }
  const justifications = readJustifications();
  let replayed = 0;
  for (const [title, file, prepare] of recordings) {
    describe(title, () => {
      const recording = readCorpus<Recording>(file);
      let api: TestApi;
      let engine: RecordedEngine;
      before(async () => {
        engine = await new RecordedEngine(recording).start();
        const host = new TestHost();
        prepare(host, recording);
        host.engineSocket = engine.socketPath;
        host.engineFacts = { info: recording['/info']!.body, version: recording['/version']!.body };
        api = await TestApi.start(host);
        // As any client does first: the version that both speak is known from then on.
        await api.get('/_ping');
      });
      after(async () => {
        await api.close();
        await engine.close();
      });
      for (const recorded of Object.values(recording)) {
        it(recorded.request, async () => {
          const [method, url] = recorded.request.split(' ') as [string, string];
          const answer = await api.send(method, url);
          replayed++;
          const unexplained = allDifferences(recorded, answer).filter((difference) => {
            const known = justifications.filter(
              ({ requests, field }) => requests.test(recorded.request) && field.test(difference.path),
            );
            for (const line of known) line.isBorneOut = true;
            return known.length === 0;
          });
          assert.deepEqual(unexplained, [], 'differences that docs/api-differences.md does not explain');
        });
      }
    });
  }

  describe('in all', () => {
    it('are 74, and every line of docs/api-differences.md is borne out by one', () => {
      assert.equal(replayed, 74);
      const stale = justifications.filter(({ isBorneOut }) => !isBorneOut);
      assert.deepEqual(
        stale.map(({ requests, field }) => `${requests.source} ${field.source}`),
        [],
      );
    });
  });
});
