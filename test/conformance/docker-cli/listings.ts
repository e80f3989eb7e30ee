/** The flags of lists, of inspect and of logs, on one service with two tasks that write lines. */
import assert from 'node:assert/strict';
import { docker, effect, type FlagCase, inspect, tryDocker, type World, waitFor } from './case.ts';

/** The service that the cases read; made by prepare.ts. */
export const talker = 'flag-talker';

async function lines(world: World, ...args: string[]): Promise<string[]> {
  const { stdout, stderr } = await docker(world, args);
  return `${stdout}${stderr}`.split('\n').filter((line) => line !== '');
}

interface Listing {
  readonly command: string;
  /** What is typed after the flags. */
  readonly target: readonly string[];
  /** A filter that something passes, and one that nothing does. */
  readonly filters: readonly [some: string, none: string];
  readonly field: string;
  readonly pattern: RegExp;
}

const listings: readonly Listing[] = [
  {
    command: 'node ls',
    target: [],
    filters: ['role=manager', 'name=nobody'],
    field: 'Hostname',
    pattern: /^h[12]$/,
  },
  {
    command: 'node ps',
    target: ['self'],
    filters: ['desired-state=running', 'name=nobody'],
    field: 'Name',
    pattern: /^[\w-]+\.\w+$/,
  },
  {
    command: 'service ls',
    target: [],
    filters: [`name=${talker}`, 'name=nobody'],
    field: 'Name',
    pattern: /^[\w-]+$/,
  },
  {
    command: 'service ps',
    target: [talker],
    filters: ['desired-state=running', 'desired-state=shutdown'],
    field: 'Name',
    pattern: /^flag-talker\.[12]$/,
  },
  {
    command: 'secret ls',
    target: [],
    filters: ['name=flag-secret', 'name=nobody'],
    field: 'Name',
    pattern: /^[\w-]+$/,
  },
  {
    command: 'config ls',
    target: [],
    filters: ['name=flag-config', 'name=nobody'],
    field: 'Name',
    pattern: /^[\w-]+$/,
  },
  {
    command: 'stack ps',
    target: ['flagstack'],
    filters: ['desired-state=running', 'desired-state=shutdown'],
    field: 'Name',
    pattern: /^flagstack_web\.1$/,
  },
  {
    command: 'stack services',
    target: ['flagstack'],
    filters: ['name=flagstack_web', 'name=nobody'],
    field: 'Name',
    pattern: /^flagstack_web$/,
  },
];

function listingCases({ command: words, target, filters, field, pattern }: Listing): FlagCase[] {
  const command = `docker ${words}`;
  const list = (world: World, ...flags: string[]) => lines(world, ...words.split(' '), ...flags, ...target);
  const own = (flag: string, run: FlagCase['run']): FlagCase => ({ command, flag, run });
  const format = `{{.${field}}}`;
  return [
    own('', async (world) => {
      assert.ok((await list(world)).length > 1);
      return effect('a table');
    }),
    own('--filter', async (world) => {
      const named = (filter: string) =>
        tryDocker(world, [...words.split(' '), '--filter', filter, '--format', format, ...target]);
      assert.match((await named(filters[0])).stdout, /\S/);
      assert.equal((await named(filters[1])).stdout.trim(), '');
      return effect(`\`${filters[0]}\` finds, \`${filters[1]}\` does not`);
    }),
    own('--format', async (world) => {
      const found = await list(world, '--format', format);
      assert.ok(found.length > 0);
      for (const line of found) assert.match(line, pattern);
      return effect(`\`${format}\``);
    }),
    own('--quiet', async (world) => {
      const found = await list(world, '--quiet');
      assert.ok(found.length > 0);
      for (const line of found) assert.match(line, /^\w{10,25}$/);
      return effect('ids only');
    }),
    ...(words.endsWith(' ps')
      ? [
          own('--no-trunc', async (world) => {
            for (const line of await list(world, '--no-trunc', '--quiet')) assert.match(line, /^\w{25}$/);
            return effect('whole ids');
          }),
          own('--no-resolve', async (world) => {
            const [name] = await list(world, '--no-resolve', '--format', '{{.Name}} {{.Node}}');
            assert.match(name ?? '', /^\w{25}\.\w+ \w{25}$/);
            return effect('ids of service and node in place of names');
          }),
        ]
      : []),
  ];
}

const inspected: readonly (readonly [
  kind: string,
  name: string,
  format: string,
  value: RegExp,
  pretty: RegExp,
])[] = [
  ['node', 'self', '{{.Description.Hostname}}', /^h1$/, /Hostname:\s+h1/],
  ['service', talker, '{{.Spec.Name}}', /^flag-talker$/, /Name:\s+flag-talker/],
  ['secret', 'flag-secret', '{{.Spec.Name}}', /^flag-secret$/, /Name:\s+flag-secret/],
  ['config', 'flag-config', '{{.Spec.Name}}', /^flag-config$/, /Name:\s+flag-config/],
];

const inspectCases = inspected.flatMap(([kind, name, format, value, pretty]): FlagCase[] => [
  {
    command: `docker ${kind} inspect`,
    flag: '',
    run: async (world) => {
      assert.ok((await inspect(world, kind, name)).ID);
      return effect('the object');
    },
  },
  {
    command: `docker ${kind} inspect`,
    flag: '--format',
    run: async (world) => {
      assert.match((await lines(world, kind, 'inspect', '--format', format, name))[0] ?? '', value);
      return effect(`\`${format}\``);
    },
  },
  {
    command: `docker ${kind} inspect`,
    flag: '--pretty',
    run: async (world) => {
      assert.match((await lines(world, kind, 'inspect', '--pretty', name)).join('\n'), pretty);
      return effect('for people');
    },
  },
]);

const prefix = /^flag-talker\.[12]\.\w{12}@h1 +\| line \d$/;

const logs: readonly (readonly [flag: string, (world: World) => Promise<string>])[] = [
  [
    '',
    async (world) => {
      const found = await lines(world, 'service', 'logs', talker);
      assert.equal(found.length, 6);
      for (const line of found) assert.match(line, prefix);
      return 'lines headed by service, slot, task and node';
    },
  ],
  [
    '--details',
    async (world) => {
      for (const line of await lines(world, 'service', 'logs', '--details', talker)) {
        assert.match(line, /\| flag-detail=shown line \d$/);
      }
      return 'what the log driver adds (`--log-opt labels=…`)';
    },
  ],
  [
    '--follow',
    async (world) => {
      const following = docker(
        world,
        ['service', 'logs', '--follow', '--raw', '--tail', '0', 'flag-ticker'],
        {
          boundMs: 4_000,
        },
      ).then(
        () => '',
        (error: { output?: { stdout: string } }) => error.output?.stdout ?? '',
      );
      assert.ok(((await following).match(/tick/g)?.length ?? 0) >= 2);
      return 'lines that come later are printed as they come';
    },
  ],
  [
    '--no-resolve',
    async (world) => {
      for (const line of await lines(world, 'service', 'logs', '--no-resolve', talker)) {
        assert.match(line, /^\w{25}\.[12]\.\w+@\w{25} +\|/);
      }
      return 'ids in place of names';
    },
  ],
  [
    '--no-task-ids',
    async (world) => {
      for (const line of await lines(world, 'service', 'logs', '--no-task-ids', talker)) {
        assert.match(line, /^flag-talker\.[12]@h1 +\|/);
      }
      return 'no task ids';
    },
  ],
  [
    '--no-trunc',
    async (world) => {
      for (const line of await lines(world, 'service', 'logs', '--no-trunc', talker)) {
        assert.match(line, /^flag-talker\.[12]\.\w{25}@h1 +\|/);
      }
      return 'whole task ids';
    },
  ],
  [
    '--raw',
    async (world) => {
      for (const line of await lines(world, 'service', 'logs', '--raw', talker))
        assert.match(line, /^line \d$/);
      return 'lines only';
    },
  ],
  [
    '--since',
    async (world) => {
      assert.equal((await lines(world, 'service', 'logs', '--since', '1h', talker)).length, 6);
      assert.equal((await lines(world, 'service', 'logs', '--since', '0s', talker)).length, 0);
      return 'none that is older';
    },
  ],
  [
    '--tail',
    async (world) => {
      const found = await lines(world, 'service', 'logs', '--raw', '--tail', '1', talker);
      assert.deepEqual(found, ['line 3', 'line 3']);
      return 'the last of each task';
    },
  ],
  [
    '--timestamps',
    async (world) => {
      for (const line of await lines(world, 'service', 'logs', '--timestamps', talker)) {
        assert.match(line, /^\d{4}-\d\d-\d\dT[\d:.]+Z flag-talker/);
      }
      return 'the time of each line';
    },
  ],
];

const stackLs: readonly FlagCase[] = [
  {
    command: 'docker stack ls',
    flag: '',
    run: async (world) => {
      assert.match((await lines(world, 'stack', 'ls')).join('\n'), /flagstack\s+1/);
      return effect('a table');
    },
  },
  {
    command: 'docker stack ls',
    flag: '--format',
    run: async (world) => {
      assert.ok(
        (await lines(world, 'stack', 'ls', '--format', '{{.Name}}:{{.Services}}')).includes('flagstack:1'),
      );
      return effect('`{{.Name}}:{{.Services}}`');
    },
  },
];

/** Waits until what the cases read is there. */
export async function listingsAreReady(world: World): Promise<void> {
  await waitFor(
    'the lines to be written',
    60_000,
    async () => (await lines(world, 'service', 'logs', '--raw', talker)).length === 6,
  );
  await waitFor(
    'the stack to run',
    60_000,
    async () =>
      (await lines(world, 'stack', 'services', '--format', '{{.Replicas}}', 'flagstack'))[0] === '1/1',
  );
}

export const listingCasesAll: readonly FlagCase[] = [
  ...listings.flatMap(listingCases),
  ...inspectCases,
  ...logs.map(
    ([flag, run]): FlagCase => ({
      command: 'docker service logs',
      flag,
      run: async (world) => effect(await run(world)),
    }),
  ),
  ...stackLs,
];
