/** What may happen to a service in the property tests: settings, steps, and how a step is taken. */
import fc from 'fast-check';
import { isActive } from '../../../manager/orchestrator/slots.ts';
import type { ServiceSpec, UpdateConfig } from '../../../proto/docker.ts';
import { makeSpec } from './objects.ts';
import type { World } from './world.ts';

export const serviceId = 's';

export interface Plan {
  readonly isGlobal: boolean;
  readonly replicas: number;
  readonly update: UpdateConfig;
  readonly rollback: UpdateConfig;
  readonly condition: 'none' | 'on-failure' | 'any';
  readonly maxAttempts: number;
  readonly historyLimit: number;
  readonly steps: readonly Step[];
}

export type Step =
  | {
      readonly kind: 'work' | 'fail' | 'complete' | 'lose' | 'drain' | 'pause' | 'remove';
      readonly at: number;
    }
  | { readonly kind: 'back'; readonly at: number }
  | { readonly kind: 'pass'; readonly ms: number }
  | { readonly kind: 'scale' | 'image'; readonly to: number }
  | { readonly kind: 'leader' | 'rollback' | 'schedule' };

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 8, arbitrary: fc.record({ kind: fc.constant('work' as const), at: fc.nat(20) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('fail' as const), at: fc.nat(20) }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constantFrom('complete' as const, 'lose' as const, 'drain' as const, 'pause' as const),
      at: fc.nat(20),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('back' as const), at: fc.nat(20) }) },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('pass' as const), ms: fc.constantFrom(10, 900, 6_000, 70_000) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('scale' as const), to: fc.nat(5) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('image' as const), to: fc.nat(3) }) },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constantFrom('leader' as const, 'rollback' as const, 'schedule' as const, 'schedule' as const),
    }),
  },
);

const config: fc.Arbitrary<UpdateConfig> = fc.record({
  Parallelism: fc.constantFrom(1, 2),
  Delay: fc.constantFrom(0, 2e9),
  FailureAction: fc.constantFrom('pause' as const, 'continue' as const, 'rollback' as const),
  Monitor: fc.constantFrom(0, 1e9),
  MaxFailureRatio: fc.constantFrom(0, 0.5),
  Order: fc.constantFrom('stop-first' as const, 'start-first' as const),
});

export const plan: fc.Arbitrary<Plan> = fc.record({
  isGlobal: fc.boolean(),
  replicas: fc.nat(4),
  update: config,
  rollback: config,
  condition: fc.constantFrom('none' as const, 'on-failure' as const, 'any' as const),
  maxAttempts: fc.constantFrom(0, 0, 2),
  historyLimit: fc.constantFrom(0, 1, 5),
  steps: fc.array(step, { maxLength: 60, size: 'max' }),
});

export function specOf(of: Plan): ServiceSpec {
  const spec = makeSpec({
    TaskTemplate: { RestartPolicy: { Condition: of.condition, MaxAttempts: of.maxAttempts } },
    UpdateConfig: of.update,
    RollbackConfig: of.rollback,
  });
  return { ...spec, Mode: of.isGlobal ? { Global: {} } : { Replicated: { Replicas: of.replicas } } };
}

function pick<T>(items: readonly T[], at: number): T | undefined {
  return items.length === 0 ? undefined : items[at % items.length];
}

export function take(world: World, of: Plan, now: Step): void {
  const nodes = world.store.list('node');
  switch (now.kind) {
    case 'work': {
      const task = pick(world.workable(), now.at);
      if (task) world.work(task);
      break;
    }
    case 'fail':
    case 'complete': {
      const alive = world.workable().concat(world.running(serviceId));
      const task = pick(alive, now.at);
      const node = task && world.store.get('node', task.NodeID);
      if (task && isActive(task) && node?.Status.State === 'ready') {
        world.report(task.ID, now.kind === 'fail' ? 'failed' : 'complete');
      }
      break;
    }
    case 'lose':
      world.setNode(pick(nodes, now.at)!.ID, { Status: { State: 'down' } });
      break;
    case 'drain':
    case 'pause':
      world.setNode(pick(nodes, now.at)!.ID, { Spec: { Availability: now.kind } });
      break;
    case 'back':
      world.setNode(pick(nodes, now.at)!.ID, {
        Status: { State: 'ready' },
        Spec: { Availability: 'active' },
      });
      break;
    case 'pass':
      world.pass(now.ms);
      break;
    case 'scale':
      if (!of.isGlobal) world.scale(serviceId, now.to);
      break;
    case 'image':
      world.updateService(serviceId, (spec) => ({
        ...spec,
        TaskTemplate: { ...spec.TaskTemplate, ContainerSpec: { Image: `web:${now.to}` } },
      }));
      break;
    case 'rollback':
      world.rollbackService(serviceId);
      break;
    case 'leader':
      world.newLeader();
      break;
    case 'schedule':
      world.schedule();
      break;
  }
}
