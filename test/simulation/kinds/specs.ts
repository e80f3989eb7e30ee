/**
 * Services that do not simply run: jobs, jobs with a schedule, and services that are scaled by what their tasks use; drawn from
 * chance, for runs about them.
 */
import type { ServiceMode, ServiceSpec, TaskSpec } from '../../../proto/docker.ts';
import type { seededRandom } from '../random.ts';

type Dice = ReturnType<typeof seededRandom>;

const second = 1e9;
/** Label of a container: of how many in a hundred that are started the main process fails. */
export const flakyLabel = 'simulation.flaky';
/** Label of a container: how long a job's takes. */
export const tookLabel = 'shoal.simulated.exit-after-ms';
export const cronLabel = 'shoal.cron';
const scaleLabel = 'shoal.autoscale';
/** A schedule that does not come within a run. */
export const seldom = '0 0 1 1 *';

/** Seconds between the runs of a schedule. All divide a minute, so that anybody can count them. */
const periods = [3, 5, 10] as const;

/** The period of a schedule of these, in ms; undefined of others. */
export function periodMsOf(schedule: string | undefined): number | undefined {
  const seconds = /^\*\/(\d+) \* \* \* \* \*/.exec(schedule ?? '')?.[1];
  return seconds === undefined ? undefined : Number(seconds) * 1000;
}

/** A job, a job with a schedule, or a service that is scaled. */
export function variedSpecOf(dice: Dice, Name: string): ServiceSpec {
  const draw = dice.float();
  if (draw < 0.3) return jobOf(dice, Name, {});
  if (draw < 0.65) return jobOf(dice, Name, scheduleOf(dice));
  return scaledOf(dice, Name);
}

function scheduleOf(dice: Dice): Record<string, string> {
  return {
    [cronLabel]: `*/${periods[dice.integer(periods.length)]} * * * * *`,
    [`${cronLabel}.overlap`]: (['forbid', 'replace', 'allow', 'forbid'] as const)[dice.integer(4)]!,
    [`${cronLabel}.history`]: String(2 + dice.integer(6)),
  };
}

function jobOf(dice: Dice, Name: string, Labels: Record<string, string>): ServiceSpec {
  const RestartPolicy: NonNullable<TaskSpec['RestartPolicy']> = {
    Condition: (['any', 'on-failure', 'on-failure', 'none'] as const)[dice.integer(4)]!,
    MaxAttempts: dice.integer(3),
    Delay: (0.2 + dice.float()) * second,
  };
  const isBounded = RestartPolicy.Condition === 'none' || RestartPolicy.MaxAttempts !== 0;
  const flaky = isBounded ? [0, 40, 100][dice.integer(3)]! : [0, 20, 40][dice.integer(3)]!;
  const isScheduled = Labels[cronLabel] !== undefined;
  const tookMs = 50 + Math.floor(dice.float() ** 2 * (isScheduled ? 8_000 : 4_000));
  const Mode: ServiceMode =
    dice.integer(4) === 0
      ? { GlobalJob: {} }
      : {
          ReplicatedJob: {
            MaxConcurrent: 1 + dice.integer(3),
            TotalCompletions: 1 + dice.integer(isScheduled ? 3 : 6),
          },
        };
  return {
    Name,
    Labels,
    TaskTemplate: {
      ContainerSpec: {
        Image: 'job:exit-0',
        Labels: { [tookLabel]: String(tookMs), [flakyLabel]: String(flaky) },
        StopGracePeriod: 2 * second,
      },
      RestartPolicy,
    },
    Mode,
  };
}

function scaledOf(dice: Dice, Name: string): ServiceSpec {
  const isMemory = dice.integer(2) === 0;
  const min = 1 + dice.integer(2);
  const max = min + 1 + dice.integer(5);
  const windowOf = (): string => `${dice.integer(4) * 3}s`;
  return {
    Name,
    Labels: {
      [`${scaleLabel}.min`]: String(min),
      [`${scaleLabel}.max`]: String(max),
      [`${scaleLabel}.metric`]: isMemory ? 'memory' : 'cpu',
      [`${scaleLabel}.target`]: isMemory ? '100m' : '50%',
      [`${scaleLabel}.up-window`]: windowOf(),
      [`${scaleLabel}.down-window`]: windowOf(),
      [`${scaleLabel}.cooldown`]: windowOf(),
    },
    TaskTemplate: {
      ContainerSpec: { Image: 'web:1', Labels: {}, StopGracePeriod: 2 * second },
      RestartPolicy: { Condition: 'any', Delay: 0.5 * second },
    },
    Mode: { Replicated: { Replicas: dice.integer(max + 3) } },
    UpdateConfig: { Parallelism: 1, Monitor: second, FailureAction: 'continue' },
  };
}

/** What an owner changes of such a service: it is run again, runs something else, or is to have another number of tasks. */
export function variedChange(dice: Dice, spec: ServiceSpec): ServiceSpec {
  const { TaskTemplate, Mode } = spec;
  const { ContainerSpec, ForceUpdate = 0 } = TaskTemplate;
  const draw = dice.float();
  if (Mode.Replicated && draw < 0.4) return { ...spec, Mode: { Replicated: { Replicas: dice.integer(9) } } };
  if (draw < 0.7) return { ...spec, TaskTemplate: { ...TaskTemplate, ForceUpdate: ForceUpdate + 1 } };
  const Env = [`VERSION=${dice.integer(1000)}`];
  return { ...spec, TaskTemplate: { ...TaskTemplate, ContainerSpec: { ...ContainerSpec, Env } } };
}
