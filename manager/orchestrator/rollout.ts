/**
 * Rolling updates and rollbacks, as a function of what is stored: which tasks are out of date (revision.ts),
 * which were made by this update (Private.Cause 'update', of the service's revision, created since
 * UpdateStatus.StartedAt), when those ran and ended. Nothing else is remembered, so that a new leader goes
 * on mid-way.
 *
 * A slot is tried once in an update. It is busy until its new task runs or has ended, and for the update's
 * delay after; no more than `Parallelism` slots are busy at a time.
 */
import type { Service, Task, UpdateConfig, UpdateState, UpdateStatus } from '../../proto/docker.ts';
import type { Change } from '../store/change.ts';
import { unmetDependencies } from '../store/dependencies.ts';
import { withPresentScale } from '../store/kept-scale.ts';
import { withPresentCredentials } from '../store/present-credentials.ts';
import { earlier, nothing, type Reconciliation, reconciliation } from '../store/reconciler.ts';
import { firstMissing, referencesOf } from '../store/references.ts';
import { withRecord } from '../store/service-change.ts';
import { isAttempt, settledAtMs, updateTimes } from '../store/update-progress.ts';
import { type Context, createTask, stopTask } from './context.ts';
import { mustWait, type SlotPlan } from './mend.ts';
import { isGuarded } from './partition.ts';
import { endedByItself, isActive, isPaused, isRollingOut, isServing, lastWord } from './slots.ts';

interface Row {
  readonly plan: SlotPlan;
  /** Active tasks that are out of date. */
  readonly outdated: readonly Task[];
  /** Whether the slot still has to get a task of the current revision. */
  readonly isDirty: boolean;
  /** Tasks that this update made in the slot. */
  readonly attempts: readonly Task[];
  /** Until when the slot is busy; infinite while nobody can tell. */
  readonly busyUntil: number;
}

interface Settings {
  /** Slots at a time; infinite for all at once. */
  readonly parallelism: number;
  readonly delayMs: number;
  readonly monitorMs: number;
  readonly maxFailureRatio: number;
  readonly failureAction: NonNullable<UpdateConfig['FailureAction']>;
  readonly isStartFirst: boolean;
}

/** The next step of the service's update, given what is known of its slots. */
export function rollOut(context: Context, plans: readonly SlotPlan[]): Reconciliation {
  const { service, view } = context;
  if (isPaused(service)) return nothing;
  const settings = settingsOf(service);
  const rows = plans.map((plan) => rowOf(context, plan, settings));
  if (!isRollingOut(service)) return rows.some(isUnderWay) ? begin(context) : nothing;
  const failed = failureToActOn(rows, settings);
  if (failed) return { changes: [actOnFailure(context, failed, settings)] };
  const held = rows.some(isToBeTried) ? unmetDependencies(view, service, true) : [];
  const message = held[0] ?? messageUnderWay(service);
  if (service.UpdateStatus && service.UpdateStatus.Message !== message && mayRetell(service)) {
    return { changes: [setStatus(service, service.UpdateStatus.State, message)] };
  }
  // What is up is not taken down for what could not start.
  if (held.length > 0) return nothing;
  return advance(context, rows, settings);
}

const updatingMessage = 'update in progress';
const holdingPrefix = 'waiting for dependency ';

function messageUnderWay(service: Service): string {
  const message = service.UpdateStatus?.Message ?? '';
  return message.startsWith(holdingPrefix) ? updatingMessage : message;
}

/** A rollback's message says why it is rolled back, which is not to be lost. */
function mayRetell(service: Service): boolean {
  return service.UpdateStatus?.State === 'updating';
}

function settingsOf(service: Service): Settings {
  const { config, delayMs, monitorMs } = updateTimes(service);
  return {
    parallelism: config.Parallelism > 0 ? config.Parallelism : Number.POSITIVE_INFINITY,
    delayMs,
    monitorMs,
    maxFailureRatio: config.MaxFailureRatio ?? 0,
    failureAction: config.FailureAction || 'pause',
    isStartFirst: config.Order === 'start-first' && !isGuarded(service),
  };
}

// ---------------------------------------------------------------- what is known of a slot

function rowOf(context: Context, plan: SlotPlan, settings: Settings): Row {
  const { tasks } = plan.slot;
  const active = tasks.filter(isActive);
  const outdated = active.filter((task) => context.isDirty(task));
  // Clocks of managers differ: a task from before one that is out of date was made by an earlier update.
  const recent = tasks.slice(tasks.findLastIndex((task) => context.isDirty(task)) + 1);
  const attempts = recent.filter((task) => isAttempt(context.service, task));
  const last = lastWord(tasks);
  const isStale = plan.state === 'finished' && last !== undefined && context.isDirty(last);
  const isOutdated = active.length === 0 ? isStale : outdated.length === active.length;
  const isDirty = plan.mayReplace && isOutdated;
  const isUnsettled = active.some(
    (task) => task.Private.Cause === 'update' && settledAtMs(task) === undefined && !outdated.includes(task),
  );
  const lastSettled = latest(attempts.map(settledAtMs));
  const busyUntil = isUnsettled
    ? Number.POSITIVE_INFINITY
    : lastSettled === undefined
      ? 0
      : lastSettled + settings.delayMs;
  return { plan, outdated, isDirty, attempts, busyUntil };
}

function latest(times: readonly (number | undefined)[]): number | undefined {
  const known = times.filter((time) => time !== undefined);
  return known.length === 0 ? undefined : known.reduce((left, right) => Math.max(left, right));
}

function isToBeTried(row: Row): boolean {
  return row.isDirty && row.attempts.length === 0;
}

/** Whether a slot holds, beside or instead of a current one, a task that this update has yet to see off. */
function isUnderWay(row: Row): boolean {
  const isSwapping = row.plan.mayReplace && row.outdated.length > 0;
  return (row.isDirty || isSwapping) && row.attempts.length === 0;
}

// ---------------------------------------------------------------- failures

/** The task whose failure is one too many, when there is one. */
function failureToActOn(rows: readonly Row[], settings: Settings): Task | undefined {
  if (settings.failureAction === 'continue') return undefined;
  const failed = rows.flatMap((row) => row.attempts.filter((task) => hasFailed(task, settings)));
  const tried = rows.filter((row) => row.isDirty || row.attempts.length > 0);
  if (failed.length === 0 || failed.length / tried.length <= settings.maxFailureRatio) return undefined;
  return failed.reduce((last, task) =>
    (task.Private.EndedAt ?? 0) > (last.Private.EndedAt ?? 0) ? task : last,
  );
}

/** Whether a task ended by itself before it ran, or within the monitoring period after. */
function hasFailed(task: Task, settings: Settings): boolean {
  const { RunningSince, EndedAt } = task.Private;
  if (!endedByItself(task) || EndedAt === undefined) return false;
  return RunningSince === undefined || EndedAt - RunningSince <= settings.monitorMs;
}

function actOnFailure(context: Context, failed: Task, settings: Settings): Change {
  const { service, view, now } = context;
  const cause = `due to failure or early termination of task ${failed.ID}`;
  if (service.UpdateStatus?.State === 'rollback_started') {
    return setStatus(service, 'rollback_paused', `rollback paused ${cause}`);
  }
  if (settings.failureAction !== 'rollback') return setStatus(service, 'paused', `update paused ${cause}`);
  const { PreviousSpec, ...rest } = service;
  const { PreviousRevisionID, ...privateRest } = service.Private;
  if (!PreviousSpec || PreviousRevisionID === undefined || !view.get('revision', PreviousRevisionID)) {
    return setStatus(service, 'paused', `update paused ${cause}; there is no previous spec to roll back to`);
  }
  const missing = firstMissing(view, referencesOf(PreviousSpec));
  if (missing) {
    const what = `${missing.kind} ${missing.name}`;
    return setStatus(
      service,
      'paused',
      `update paused ${cause}; the previous spec needs ${what}, which was removed`,
    );
  }
  const rolledBack: Service = {
    ...rest,
    Spec: withPresentCredentials(service, withPresentScale(service, PreviousSpec)),
    Private: {
      ...privateRest,
      RevisionID: PreviousRevisionID,
      History: withRecord(service, {
        Number: view.get('revision', PreviousRevisionID)!.Number,
        RevisionID: PreviousRevisionID,
        At: new Date(now).toISOString(),
        By: 'the managers',
        What: `update rolled back ${cause}`,
      }),
    },
    UpdateStatus: {
      State: 'rollback_started',
      StartedAt: new Date(now).toISOString(),
      Message: `update rolled back ${cause}`,
    },
  };
  return { op: 'update', kind: 'service', object: rolledBack };
}

// ---------------------------------------------------------------- progress

function begin({ service, now }: Context): Reconciliation {
  const UpdateStatus: UpdateStatus = {
    State: 'updating',
    StartedAt: new Date(now).toISOString(),
    Message: updatingMessage,
  };
  return { changes: [{ op: 'update', kind: 'service', object: { ...service, UpdateStatus } }] };
}

function advance(context: Context, rows: readonly Row[], settings: Settings): Reconciliation {
  const busy = rows.filter((row) => row.busyUntil > context.now);
  const open = rows.filter(isToBeTried);
  // A slot that is being mended is left alone until it is; one that does not serve has room in this update all
  // the same, for were another taken down beside it, fewer would serve than was promised.
  const mending = open.filter((row) => row.plan.changes.length > 0 && !isUp(row));
  const room = Math.max(0, settings.parallelism - busy.length - mending.length);
  const next = open
    .filter((row) => row.plan.changes.length === 0)
    .sort((left, right) => Number(isUp(left)) - Number(isUp(right)))
    .slice(0, room);
  const changes = next.flatMap((row) => replace(context, row, settings));
  const coolAt = busy
    .map((row) => row.busyUntil)
    .filter(Number.isFinite)
    .reduce<number | undefined>(earlier, undefined);
  const isPending = rows.some((row) => isUnderWay(row) || row.busyUntil === Number.POSITIVE_INFINITY);
  if (isPending) return reconciliation(changes, coolAt);
  return complete(context, rows, settings);
}

/** Whether a slot serves now: those that do not are updated first, which costs nothing. */
function isUp(row: Row): boolean {
  return row.outdated.some(isServing);
}

function replace(context: Context, row: Row, settings: Settings): Change[] {
  const { slot } = row.plan;
  const stopped = settings.isStartFirst ? row.outdated.filter((task) => !isServing(task)) : row.outdated;
  const replaced = row.outdated.at(-1) ?? slot.tasks.at(-1);
  const creation = createTask(context, slot.place, {
    ...(replaced ? { replaces: replaced.ID } : {}),
    cause: 'update',
    waits: mustWait(context, slot, stopped),
    reason: replaced && `replaces task ${replaced.ID} in a rolling update`,
  });
  return [...stopped.map((task) => stopTask(context, task, 'replaced in a rolling update')), creation];
}

/** Ends the update once its last task has been watched for the monitoring period. */
function complete(context: Context, rows: readonly Row[], settings: Settings): Reconciliation {
  const { service, now } = context;
  const lastSettled = latest(rows.flatMap((row) => row.attempts.map(settledAtMs)));
  const doneAt = lastSettled === undefined ? now : lastSettled + settings.monitorMs;
  if (doneAt > now) return { changes: [], wakeAt: doneAt };
  const isRollback = service.UpdateStatus?.State === 'rollback_started';
  const CompletedAt = new Date(now).toISOString();
  return {
    changes: [
      isRollback
        ? setStatus(service, 'rollback_completed', 'rollback completed', { CompletedAt })
        : setStatus(service, 'completed', 'update completed', { CompletedAt }),
    ],
  };
}

/** By `update`, not `merge`: were the service changed meanwhile, this status would not be about it. */
function setStatus(
  service: Service,
  State: UpdateState,
  Message: string,
  more: { CompletedAt?: string } = {},
): Change {
  const UpdateStatus: UpdateStatus = { ...service.UpdateStatus, State, Message, ...more };
  return { op: 'update', kind: 'service', object: { ...service, UpdateStatus } };
}
