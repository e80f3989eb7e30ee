/**
 * The ten things that Swarm never had, and the lab's scripts that show them through the clients: what `npm run never-had`
 * runs, and what docs/services.md lists.
 */

/** A test of a script, as the reporter tells it. */
export interface TestOutcome {
  /** From the root of the built project, e.g. `dist/test/lab/x.test.js`. */
  readonly path: string;
  /** Of the suites that it stands in, from the outermost, and its own. */
  readonly titles: readonly string[];
  readonly state: 'passed' | 'failed' | 'skipped';
}

export interface Point {
  readonly what: string;
  /** Scripts in test/lab, without `.test.ts`; what of a script is about this point, where it is about several. */
  readonly scripts: readonly { readonly name: string; readonly part?: string }[];
  /** What a stock client can do of it. */
  readonly stock: string;
}

/** In the order of docs/services.md. */
export const points: readonly Point[] = [
  {
    what: 'Why',
    scripts: [{ name: 'service-extras', part: 'why' }],
    stock: 'the present reason, in `docker service ps`',
  },
  {
    what: 'Plan',
    scripts: [{ name: 'service-extras', part: 'plan' }],
    stock: 'nothing: it has no request for it',
  },
  {
    what: 'Order',
    scripts: [{ name: 'service-extras', part: 'order' }],
    stock: '`docker stack deploy`, with `shoal.depends-on`',
  },
  {
    what: 'Maintenance',
    scripts: [
      { name: 'service-upkeep', part: 'a node that is drained' },
      { name: 'service-upkeep', part: 'a node that joins' },
    ],
    stock: '`docker node update --availability drain`, `shoal.drain`, `shoal.rebalance`',
  },
  {
    what: 'Partitions',
    scripts: [{ name: 'service-upkeep', part: 'a node that is cut off' }],
    stock: '`shoal.partition`, `shoal.partition.stop-on-isolation`',
  },
  { what: 'Rotation', scripts: [{ name: 'service-rotation' }], stock: '`shoal.rotate`' },
  {
    what: 'Histories',
    scripts: [{ name: 'service-extras', part: 'history' }],
    stock: 'what it changes is in them',
  },
  { what: 'Schedules', scripts: [{ name: 'service-cron' }], stock: '`shoal.cron` and its kin' },
  { what: 'Autoscaling', scripts: [{ name: 'autoscale' }], stock: '`shoal.autoscale` and its kin' },
  {
    what: 'Devices, exec, sticky slots',
    scripts: [{ name: 'service-privileges' }, { name: 'task-exec' }, { name: 'service-sticky' }],
    stock: '`shoal.privileged` and its kin, `shoal.volume.sticky`',
  },
];

/** Every script, once. */
export function scriptNames(): string[] {
  return [...new Set(points.flatMap(({ scripts }) => scripts.map(({ name }) => name)))];
}

/** A point's tests among those that were run. */
export function testsOf({ scripts }: Point, tests: readonly TestOutcome[]): TestOutcome[] {
  return tests.filter(({ path, titles }) =>
    scripts.some(
      ({ name, part }) =>
        path.endsWith(`/lab/${name}.test.js`) && (part === undefined || titles.slice(0, -1).includes(part)),
    ),
  );
}

/** A line for each point: what became of its tests, and where they stand. One without a test that passed has failed. */
export function pointLines(tests: readonly TestOutcome[]): string[] {
  return points.map((point, at) => {
    const own = testsOf(point, tests);
    const count = (state: TestOutcome['state']) => own.filter((test) => test.state === state).length;
    const isShown = count('passed') > 0 && count('failed') === 0;
    const number = String(at + 1).padStart(2);
    const numbers = `${count('passed')} passed, ${count('failed')} failed, ${count('skipped')} skipped`;
    const files = [...new Set(point.scripts.map(({ name }) => `test/lab/${name}.test.ts`))];
    return `${isShown ? '✔' : '✖'} ${number} ${point.what.padEnd(28)} ${numbers.padEnd(32)} ${files.join(' ')}`;
  });
}
