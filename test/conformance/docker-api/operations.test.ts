/**
 * Every swarm operation that the API's description names, in each of three versions: with all of its parameters and
 * filters, each answer of a type that the description of that version allows.
 */
import assert from 'node:assert/strict';
import { TestApi } from '../../manager/api/host.ts';
import { Asker } from './asker.ts';
import { exercises } from './exercises.ts';
import { corpusFile, type Recording, readCorpus } from './recording.ts';
import { answerFaults, type Description } from './swagger.ts';

interface Operation {
  readonly path: string;
  readonly method: string;
  readonly group: 'swarm' | 'adjacent';
  readonly params: readonly { readonly name: string; readonly filters?: readonly string[] }[];
}

const versions = [41, 47, 51];

/** What an operation is used by: itself, its parameters, its filters. */
function usesOf({ method, path, params }: Operation): string[] {
  const operation = `${method} ${path}`;
  return [
    operation,
    ...params.flatMap(({ name, filters = [] }) => [
      `${operation} ${name}`,
      ...filters.map((filter) => `${operation} filters.${filter}`),
    ]),
  ];
}

/** The recorded requests are of things: /services/0per… is `GET /services/{id}`. */
function operationOf(request: string): { method: string; path: string } {
  const [method, url] = request.split(' ') as [string, string];
  const path = url
    .replace(/\?.*/, '')
    .replace(/^\/(nodes|services|tasks|secrets|configs|networks)\/[^/]+$/, '/$1/{id}');
  return { method, path };
}

/** Not in the recordings, and the same of a stock engine (20.10.24) that was asked. */
const sameOfEngine = ['DELETE /nodes/{id} status 400', 'POST /services/{id}/update .Warnings null'];

describe('conformance: the swarm operations of the API', () => {
  const files = [
    'swarm-endpoints.json',
    'real-swarm.json',
    ...versions.map((minor) => `swagger-v1.${minor}.json`),
  ];
  if (files.some((file) => corpusFile(file) === undefined)) {
    it.skip('needs the descriptions in the corpus (SHOAL_CORPUS)');
    return;
  }
  const operations = readCorpus<{ operations: Operation[] }>('swarm-endpoints.json').operations.filter(
    ({ group }) => group === 'swarm',
  );

  it('are 30', () => assert.equal(operations.length, 30));

  for (const minor of versions) {
    describe(`in API 1.${minor}`, () => {
      const description = readCorpus<Description>(`swagger-v1.${minor}.json`);
      let api: TestApi;
      let asker: Asker;
      before(async () => {
        api = await TestApi.start();
        asker = new Asker(api, minor, description);
      });
      after(() => api.close());
      for (const [what, exercise] of Object.entries(exercises)) {
        it(`have their effect: ${what}`, () => exercise(asker));
      }

      it('are all used, with every parameter and filter', () => {
        const unused = operations.flatMap(usesOf).filter((use) => !asker.used.has(use));
        assert.deepEqual(unused, []);
      });

      it('answer nothing of a type that the description does not allow', () => {
        // null for an empty list or map where a real engine does the same.
        const real = new Set([
          ...sameOfEngine,
          ...Object.values(readCorpus<Recording>('real-swarm.json')).flatMap(({ request, status, body }) => {
            const operation = operationOf(request);
            const faults = answerFaults(description, operation, status, body) ?? [];
            return faults.map(({ path, got }) => `${operation.method} ${operation.path} ${path} ${got}`);
          }),
        ]);
        assert.ok(
          [...real].every((fault) => fault.endsWith(' null') || sameOfEngine.includes(fault)),
          [...real].join('\n'),
        );
        const faults = asker.faults.map(
          ({ operation, path, expected, got }) => [`${operation} ${path} ${got}`, expected] as const,
        );
        const beyond = faults.filter(([fault]) => !real.has(fault));
        assert.deepEqual([...new Set(beyond.map(([fault, expected]) => `${fault}, not ${expected}`))], []);
      });
    });
  }
});

describe('conformance: the check against a description', () => {
  const description: Description = {
    definitions: {
      Thing: { type: 'object', properties: { Names: { type: 'array', items: { type: 'string' } } } },
    },
    paths: { '/things': { get: { responses: { 200: { schema: { $ref: '#/definitions/Thing' } } } } } },
  };
  const operation = { method: 'GET', path: '/things' };

  it('finds what has another type, wherever it is, and an answer that is not described', () => {
    const faults = (value: unknown) =>
      answerFaults(description, operation, 200, value)?.map(({ path, got }) => [path, got]);
    assert.deepEqual(faults({ Names: ['a'], More: 1 }), []);
    assert.deepEqual(faults({ Names: ['a', 1] }), [['.Names[]', 'integer']]);
    assert.deepEqual(faults({ Names: null }), [['.Names', 'null']]);
    assert.deepEqual(faults([]), [['', 'array']]);
    assert.equal(answerFaults(description, operation, 418, {}), undefined);
  });
});
