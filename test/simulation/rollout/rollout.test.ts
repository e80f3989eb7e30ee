/**
 * Every interleaving of small rollouts, through the functions that decide in earnest. SHOAL_MODEL=large goes through
 * more of them, which takes some minutes.
 */
import assert from 'node:assert/strict';
import type { Change } from '../../../manager/store/change.ts';
import { explore } from './explore.ts';
import type { Scenario } from './model.ts';

const calm = { replicas: 2, nodes: 2, failures: 0, leaders: 0, updates: 0, losses: 0 } as const;
const stopFirst = { Parallelism: 1, Order: 'stop-first' } as const;
const startFirst = { Parallelism: 1, Order: 'start-first' } as const;

const small: Scenario[] = [
  { ...calm, name: 'stop-first; a task fails, another leader', update: stopFirst, failures: 1, leaders: 1 },
  { ...calm, name: 'start-first; a task fails', update: startFirst, failures: 1 },
  { ...calm, name: 'start-first; another leader', update: startFirst, leaders: 2 },
  {
    ...calm,
    name: 'stop-first with rollback; a task fails',
    update: { ...stopFirst, FailureAction: 'rollback' },
    failures: 1,
  },
  {
    ...calm,
    name: 'start-first with rollback; a task fails',
    update: { ...startFirst, FailureAction: 'rollback' },
    failures: 1,
  },
  {
    ...calm,
    name: 'stop-first, going on after failures; a second update',
    update: { ...stopFirst, FailureAction: 'continue' },
    updates: 1,
  },
  {
    ...calm,
    name: 'start-first, going on after failures; a second update',
    update: { ...startFirst, FailureAction: 'continue' },
    updates: 1,
  },
  { ...calm, name: 'stop-first; a node is lost', update: stopFirst, losses: 1 },
  { ...calm, name: 'start-first; a node is lost', update: startFirst, losses: 1 },
  { ...calm, name: 'stop-first; a second update, another leader', update: stopFirst, updates: 1, leaders: 1 },
  { ...calm, name: 'stop-first; a node is lost, another leader', update: stopFirst, losses: 1, leaders: 1 },
  { ...calm, name: 'three replicas, two at a time', replicas: 3, update: { ...stopFirst, Parallelism: 2 } },
];

const large: Scenario[] = [
  {
    ...calm,
    name: 'three replicas, two at a time; a second update',
    replicas: 3,
    update: { ...stopFirst, Parallelism: 2 },
    updates: 1,
  },
  {
    ...calm,
    name: 'stop-first with rollback; two tasks fail',
    update: { ...stopFirst, FailureAction: 'rollback' },
    failures: 2,
  },
  {
    ...calm,
    name: 'start-first with rollback; two tasks fail',
    update: { ...startFirst, FailureAction: 'rollback' },
    failures: 2,
  },
  {
    ...calm,
    name: 'stop-first, going on; a failure, a second update',
    update: { ...stopFirst, FailureAction: 'continue' },
    failures: 1,
    updates: 1,
  },
  {
    ...calm,
    name: 'start-first, going on; a failure, a second update',
    update: { ...startFirst, FailureAction: 'continue' },
    failures: 1,
    updates: 1,
  },
  { ...calm, name: 'start-first; a node and a task are lost', update: startFirst, losses: 1, failures: 1 },
];

describe('simulation: rollouts, every interleaving', () => {
  let visited = 0;
  for (const scenario of process.env.SHOAL_MODEL === 'large' ? [...small, ...large] : small) {
    it(scenario.name, () => {
      const { states, ends } = explore(scenario);
      visited += states;
      console.log(`      ${states} states, ${ends} of them ends`);
    }).timeout(1_200_000);
  }
  after(() => console.log(`    ${visited} states visited`));

  const plants: [string, Scenario, RegExp][] = [
    [
      'the old task is stopped though the new one has failed meanwhile',
      {
        ...calm,
        name: 'plant',
        update: startFirst,
        failures: 1,
        plant: { propose: (changes) => changes.map(unconditional) },
      },
      /slots \d do not serve though nothing went wrong there/,
    ],
    [
      'a leader forgets to look again when the monitoring period is over',
      { ...calm, name: 'plant', update: stopFirst, plant: { forgetsWakes: true } },
      /it ended/,
    ],
    [
      'a slot gets its new task before the old one has stopped',
      {
        ...calm,
        name: 'plant',
        update: stopFirst,
        plant: { propose: (changes) => changes.map(impatient) },
      },
      /2 tasks are alive in slot/,
    ],
  ];
  for (const [what, scenario, words] of plants) {
    it(`finds it when ${what}`, () => assert.throws(() => explore(scenario), words)).timeout(120_000);
  }
});

function unconditional(change: Change): Change {
  if (change.op !== 'merge') return change;
  const { whileServes: _, ...rest } = change;
  return rest as Change;
}

function impatient(change: Change): Change {
  if (change.op !== 'create' || change.kind !== 'task') return change;
  return { ...change, object: { ...change.object, DesiredState: 'running' } };
}
