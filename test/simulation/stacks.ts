/** Stacks as API clients deploy, change and remove them in a simulated cluster: compose files drawn from chance. */
import { compileCompose } from '../../manager/stack/compose.ts';
import { planStack, removeStack } from '../../manager/stack/plan.ts';
import type { Change } from '../../manager/store/change.ts';
import type { View } from '../../manager/store/store.ts';
import type { Id } from '../../proto/ids.ts';
import type { seededRandom } from './random.ts';

type Dice = ReturnType<typeof seededRandom>;

const names = ['shop', 'blog'];

export interface StackClock {
  readonly now: number;
  readonly newId: <I extends Id<string>>() => I;
}

/** Deploys a stack, for the first time or another, or removes one; undefined when there is nothing to do. */
export function stackChanges(view: View, dice: Dice, { now, newId }: StackClock): Change[] | undefined {
  const name = names[dice.integer(names.length)]!;
  const isThere = view.find('stack', 'name', name).length > 0;
  if (isThere && dice.integer(3) === 0) return removeStack(view, name).changes;
  const source = composeOf(dice);
  const files = [{ path: 'compose.yaml', content: source }];
  const readFile = (): never => {
    throw new Error('the file names no other');
  };
  const compiled = compileCompose({ files, environment: {}, readFile }, name);
  const { changes } = planStack(view, name, compiled, source, { prune: true, now, newId });
  return changes.length > 0 ? changes : undefined;
}

/** One to three services, on a network or not, some with a config, in versions that follow one another. */
function composeOf(dice: Dice): string {
  const services = ['web', 'api', 'db'].slice(0, 1 + dice.integer(3));
  const hasNetwork = dice.integer(2) === 0;
  const lines = services.flatMap((service) => [
    `  ${service}:`,
    '    image: web:1',
    `    environment: { VERSION: "${dice.integer(4)}" }`,
    ...(hasNetwork ? ['    networks: [back]'] : []),
    `    deploy: { replicas: ${1 + dice.integer(2)}, update_config: { parallelism: ${1 + dice.integer(2)}, monitor: 1s, order: ${dice.integer(2) === 0 ? 'start-first' : 'stop-first'} } }`,
  ]);
  return ['services:', ...lines, ...(hasNetwork ? ['networks:', '  back: {}'] : []), ''].join('\n');
}
