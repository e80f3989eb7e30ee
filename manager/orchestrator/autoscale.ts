/**
 * Services that are scaled by what their tasks use (labels `shoal.autoscale.*`).
 *
 * In: settings and state as stored, what agents measured last, the time. Out: another number of replicas (of tasks at a
 * time, for a job), and the state that the next decision, perhaps another leader's, goes on from. The rule is that of
 * Kubernetes' autoscaler: as many tasks as bring the measured average to its target, nothing within a tenth of it; then
 * the least that was advised within the window for more, the most within the window for fewer; and no change within the
 * cooldown after the last. Where nothing is measured nothing changes. Tasks that were not measured count as idle against
 * an increase and as busy as they should be against a decrease.
 */
import type { AutoscaleState, Service, Task } from '../../proto/docker.ts';
import { assertNever } from '../../proto/errors.ts';
import { asId, type ServiceId } from '../../proto/ids.ts';
import {
  type AutoscaleOptions,
  autoscaleOptions,
  measuredService,
  measureEveryMs,
  metricKey,
} from '../store/autoscale-options.ts';
import { nothing, type Reconciler, type Reconciliation } from '../store/reconciler.ts';
import { scaleOf, withScale } from '../store/scale.ts';
import type { View } from '../store/store.ts';
import type { TaskUsage, UsageOf } from '../store/usage.ts';

/** What is older says nothing any more. */
const freshMs = 4 * measureEveryMs;
const tolerance = 0.1;

/** The reconciler over what `usage` knows of tasks. */
export function autoscaler(usage: UsageOf): Reconciler {
  return {
    name: 'autoscale',
    keysFor: (event) => (event.kind === 'service' && isScaled(event.object) ? [event.object.ID] : []),
    allKeys: (view) =>
      (['Replicated', 'ReplicatedJob'] as const)
        .flatMap((mode) => view.find('service', 'mode', mode))
        .filter(isScaled)
        .map(({ ID }) => ID),
    reconcile(view, key, now) {
      const service = view.get('service', asId<ServiceId>(key));
      const options = service && autoscaleOptions(service.Spec.Labels);
      const current = service && scaleOf(service.Spec.Mode);
      if (!service || !options || current === undefined) return nothing;
      const measured = measure(view, service, options, usage, now);
      const decision = decide(options, current, measured, service.Private.Autoscale, now);
      return { ...store(service, current, decision), wakeAt: now + measureEveryMs };
    },
  };
}

function isScaled(service: Service): boolean {
  return autoscaleOptions(service.Spec.Labels) !== undefined;
}

/** By `update`: were the service changed meanwhile, this would not be about it. The commit brings the loop back here. */
function store(service: Service, current: number, decision: Decision): Reconciliation {
  const { state, replicas } = decision;
  if (replicas === current && state === service.Private.Autoscale) return nothing;
  const Mode = replicas === current ? service.Spec.Mode : withScale(service.Spec.Mode, replicas);
  const object: Service = {
    ...service,
    Spec: { ...service.Spec, Mode },
    Private: { ...service.Private, Autoscale: state },
  };
  return { changes: [{ op: 'update', kind: 'service', object }] };
}

// ---------------------------------------------------------------- what is measured

/** What the tasks use, in shares of the target of one: 2 in sum is work for two. */
export interface Measured {
  /** Tasks that run, and how many of them were measured. */
  readonly running: number;
  readonly known: number;
  /** Of those that were measured, together. */
  readonly load: number;
  /** What one task uses on average, or all of a source together, for a person: `cpu 85% of 70%`. */
  readonly words: string;
  /** Why something was not measured, if anything is known. */
  readonly problem: string;
  /** All that is known is of before the number was changed, when each task had another share of the work. */
  readonly isOutdated?: boolean;
}

function measure(
  view: View,
  service: Service,
  options: AutoscaleOptions,
  usage: UsageOf,
  now: number,
): Measured {
  const measured = measuredService(view, service, options);
  const tasks = measured ? view.find('task', 'service', measured.ID).filter(isServing) : [];
  const fresh = tasks.map((task) => usage(task.ID)).filter((one) => one && now - one.atMs <= freshMs);
  const samples = fresh.filter((one) => one && one.atMs > sharedOutAt(service, options, now));
  const shares: number[] = [];
  for (const sample of samples) {
    const share = sample && shareOf(sample, service, options);
    if (share !== undefined) shares.push(share);
  }
  const load = shares.reduce((sum, share) => sum + share, 0);
  return {
    running: tasks.length,
    known: shares.length,
    load,
    words: wordsOf(options, load, shares.length),
    problem:
      measured === undefined
        ? `there is no service ${options.source}`
        : (samples.map((sample) => sample?.problems[metricKey(options) ?? '']).find((one) => one) ?? ''),
    isOutdated: samples.length === 0 && fresh.length > 0,
  };
}

/**
 * Since when tasks have the share of the work that they have: since the number of those that share it was changed. A time that
 * is yet to come was noted by a clock that was ahead.
 */
function sharedOutAt({ Private }: Service, { source }: AutoscaleOptions, now: number): number {
  const changedAt = Private.Autoscale?.ChangedAt;
  return source !== undefined || changedAt === undefined || changedAt > now
    ? Number.NEGATIVE_INFINITY
    : changedAt;
}

function isServing(task: Task): boolean {
  return task.Status.State === 'running' && task.DesiredState === 'running';
}

/** What of its target a task uses; undefined when that was not measured. */
function shareOf(sample: TaskUsage, { Spec }: Service, options: AutoscaleOptions): number | undefined {
  const { metric, target } = options;
  const { Limits, Reservations } = Spec.TaskTemplate.Resources ?? {};
  switch (metric.kind) {
    case 'cpu': {
      const whole = Reservations?.NanoCPUs || Limits?.NanoCPUs || 1e9;
      return sample.nanoCpus === undefined ? undefined : sample.nanoCpus / (whole * (target.value / 100));
    }
    case 'memory': {
      const whole = Reservations?.MemoryBytes || Limits?.MemoryBytes;
      if (target.kind !== 'percent') return sample.memoryBytes / target.value;
      return whole === undefined ? undefined : sample.memoryBytes / (whole * (target.value / 100));
    }
    case 'prometheus':
      return shareOfMetric(sample.metrics[metricKey(options) ?? ''], target.value);
    default:
      return assertNever(metric);
  }
}

function shareOfMetric(value: number | undefined, target: number): number | undefined {
  return value === undefined ? undefined : Math.max(0, value / target);
}

function wordsOf({ metric, target, source }: AutoscaleOptions, load: number, known: number): string {
  const each = known === 0 ? 0 : load / known;
  const rounded = (value: number) => String(Number(value.toPrecision(3)));
  if (metric.kind === 'prometheus') {
    const [value, whose] =
      source === undefined ? [each, 'a task'] : [load, `at ${source}, of ${rounded(target.value)} a task`];
    const amount = rounded(value * target.value);
    return source === undefined
      ? `${metric.name} is ${amount} a task, target ${rounded(target.value)}`
      : `${metric.name} is ${amount} ${whose}`;
  }
  const value = rounded(each * (target.kind === 'size' ? target.value / 2 ** 20 : target.value));
  return target.kind === 'size'
    ? `${metric.kind} is ${value} MiB a task, target ${rounded(target.value / 2 ** 20)} MiB`
    : `${metric.kind} is ${value}% a task, target ${target.value}%`;
}

// ---------------------------------------------------------------- what follows

export interface Decision {
  readonly replicas: number;
  /** The very same object as before when nothing is new. */
  readonly state: AutoscaleState;
}

/** What is wanted now, and what for a person is the matter. */
interface Advice {
  readonly replicas: number;
  /** Names the state, so that measurements that change nothing are not stored. */
  readonly kind: string;
  readonly text: string;
  /** Nothing is known, and nothing follows. */
  readonly isBlind?: true;
}

/** How many tasks there are to be, of `current`, and what is to be remembered. Pure. */
export function decide(
  options: AutoscaleOptions,
  current: number,
  measured: Measured,
  before: AutoscaleState | undefined,
  now: number,
): Decision {
  const state = before ?? { Advice: [{ At: now, Replicas: current }], Asked: current, Kind: '', Reason: '' };
  const bounded = within(options, current);
  if (bounded !== current) {
    const why = bounded > current ? `its least is ${bounded}` : `its most is ${bounded}`;
    return changed(state, bounded, current, why, now);
  }
  if (measured.isOutdated) return { replicas: current, state };
  const advice = advise(options, current, measured);
  if (advice.isBlind) return told(state, before, advice.kind, advice.text, current);
  const Advice = remembered(state.Advice, advice.replicas, options, now);
  const advised = Advice === state.Advice ? state : { ...state, Advice };
  const wanted = stabilised(Advice, current, options, now);
  const readyAt = (state.ChangedAt ?? Number.NEGATIVE_INFINITY) + options.cooldownMs;
  if (wanted !== current && now >= readyAt) return changed(advised, wanted, current, advice.text, now);
  if (wanted !== current || advice.replicas !== current) {
    const waits = wanted !== current ? 'cooldown' : 'window';
    const until = waits === 'cooldown' ? readyAt : windowEnd(Advice, advice.replicas, current, options);
    const text = `${advice.text}: wants ${advice.replicas}, and waits for its ${waits} until ${new Date(until).toISOString()}`;
    return told(advised, before, `${waits} ${advice.replicas} ${until}`, text, current);
  }
  return told(advised, before, advice.kind, advice.text, current);
}

function within({ min, max }: AutoscaleOptions, count: number): number {
  return Math.min(max, Math.max(min, count));
}

function advise(options: AutoscaleOptions, current: number, measured: Measured): Advice {
  const { words, running, known, load, problem } = measured;
  if (known === 0) {
    const whose = options.source === undefined ? 'none of its tasks' : `no task of ${options.source}`;
    const why = problem || (running === 0 ? `${whose} runs` : 'its nodes have not told yet');
    const text = `nothing is measured: ${why}`;
    return { replicas: current, isBlind: true, kind: `blind ${why}`, text };
  }
  const raw = options.source === undefined ? forOwn(current, measured) : forWork(current, load);
  const replicas = within(options, raw);
  if (raw > options.max)
    return {
      replicas,
      kind: `most ${options.max}`,
      text: `${words}: wants ${raw}, and its most is ${options.max}`,
    };
  const partly = known < running ? ` (${known} of ${running} measured)` : '';
  return { replicas, kind: 'steady', text: `${words}${partly}` };
}

/** As many as bring the average of its own tasks to the target. */
function forOwn(current: number, { running, known, load }: Measured): number {
  const average = load / known;
  if (isNear(average)) return current;
  // What was not measured is taken for what makes the least change.
  const all = average > 1 ? load : load + (running - known);
  const ratio = all / running;
  if (isNear(ratio) || ratio > 1 !== average > 1) return current;
  const count = Math.ceil(round(all));
  return average > 1 ? Math.max(current, count) : Math.min(current, Math.max(1, count));
}

/** As many as there is work for, wherever that is measured. */
function forWork(current: number, load: number): number {
  if (current > 0 && load > 0 && isNear(load / current)) return current;
  return Math.ceil(round(load));
}

/** Whether a share of the target is the target, all in all. */
function isNear(share: number): boolean {
  return Math.abs(round(share - 1)) <= tolerance;
}

/** Shares of a target are fractions: 3.0000000001 is 3. */
function round(value: number): number {
  return Math.round(value * 1e6) / 1e6;
}

type Moments = AutoscaleState['Advice'];

/** Advice with what is advised now, where that is new, and without what no window reaches any more. */
function remembered(moments: Moments, replicas: number, options: AutoscaleOptions, now: number): Moments {
  const added =
    moments.at(-1)?.Replicas === replicas ? moments : [...moments, { At: now, Replicas: replicas }];
  const horizon = now - Math.max(options.upWindowMs, options.downWindowMs);
  // A piece of advice holds until the next one.
  const first = added.findLastIndex(({ At }) => At <= horizon);
  return first > 0 ? added.slice(first) : added;
}

/** Advice that held at any time of the last `windowMs`. */
function advisedWithin(moments: Moments, windowMs: number, now: number): number[] {
  return moments
    .filter((_, index) => (moments[index + 1]?.At ?? Number.POSITIVE_INFINITY) > now - windowMs)
    .map(({ Replicas }) => Replicas);
}

function stabilised(moments: Moments, current: number, options: AutoscaleOptions, now: number): number {
  const up = Math.min(...advisedWithin(moments, options.upWindowMs, now));
  const down = Math.max(...advisedWithin(moments, options.downWindowMs, now));
  if (up > current) return within(options, up);
  return down < current ? within(options, down) : current;
}

/** When the last advice that stands against a change is out of the window. */
function windowEnd(moments: Moments, replicas: number, current: number, options: AutoscaleOptions): number {
  const isMore = replicas > current;
  const against = moments.findLastIndex(({ Replicas }) =>
    isMore ? Replicas <= current : Replicas >= current,
  );
  const overAt = moments[against + 1]?.At ?? moments.at(-1)!.At;
  return overAt + (isMore ? options.upWindowMs : options.downWindowMs);
}

function changed(state: AutoscaleState, replicas: number, from: number, why: string, now: number): Decision {
  const Reason = `went from ${from} to ${replicas} at ${new Date(now).toISOString()}: ${why}`;
  return { replicas, state: { ...state, ChangedAt: now, Change: Reason, Kind: 'changed', Reason } };
}

/** Nothing changes; what is new to a person is kept. The word of a change stays until something else is the matter. */
function told(
  state: AutoscaleState,
  before: AutoscaleState | undefined,
  kind: string,
  text: string,
  replicas: number,
): Decision {
  const isOld = state.Kind === kind || (state.Kind === 'changed' && kind === 'steady');
  if (isOld && state === before) return { replicas, state };
  return { replicas, state: isOld ? state : { ...state, Kind: kind, Reason: text } };
}
