/**
 * Stopping on isolation: what a node's agent and the managers must agree on, so that of such a service's tasks there
 * are never two. The agent that hears nothing of its managers for `limitMs` stops the task itself, within its grace;
 * the managers start another one only when that, and a margin for clocks and scheduling, is over.
 *
 * Both go by the labels that the task was made with: these are what its agent was told.
 */
import { parseDurationMs } from './duration.ts';

/** The label of a service that asks for it: `true`, `after:<duration>` or `false`. */
export const isolationLabel = 'shoal.partition.stop-on-isolation';

/** How long an agent waits that was told `true`: longer than a change of leader takes, several times over. */
export const defaultIsolationMs = 10_000;
/** A shorter wait would stop tasks whenever a leader is lost. */
export const shortestIsolationMs = 5_000;
/** What the managers wait on top of the agent's time and the task's grace. */
export const isolationMarginMs = 5_000;
/** Heartbeat periods that an agent stays silent at least before it takes itself for isolated. */
export const silentPeriods = 3;
/** An agent that was restarted has so long to be heard again, if that is over in time. */
export const restartedIsolationMs = isolationMarginMs;
/** What it may take of the managers' margin for that; the rest is for clocks and scheduling. */
export const restartedMarginMs = isolationMarginMs - 1_000;
/** The engine's grace when a service names none. */
export const defaultGraceMs = 10_000;

/** What the value must be, for the end of a sentence. */
export const isolationForm = `must be true, false or after:<duration>, such as after:30s, of ${shortestIsolationMs / 1000} s at least`;

/** How long an agent bears isolation, in ms; 'never-stops' when it is not to mind, undefined when the value is none. */
export function parseIsolation(value: string): number | 'never-stops' | undefined {
  if (value === 'false') return 'never-stops';
  if (value === 'true') return defaultIsolationMs;
  const limitMs = value.startsWith('after:') ? parseDurationMs(value.slice('after:'.length)) : undefined;
  return limitMs !== undefined && limitMs >= shortestIsolationMs ? limitMs : undefined;
}

/** How long the agent of a task with these service labels bears isolation, in ms; undefined when it does not mind. */
export function isolationLimitMs(labels: Readonly<Record<string, string>>): number | undefined {
  const limit = parseIsolation(labels[isolationLabel] ?? 'false');
  return limit === 'never-stops' ? undefined : limit;
}

/**
 * How long after a node was found down a task with these labels may still run there, in ms; undefined when nobody
 * stops it. `graceMs`: the task's own time to stop.
 */
export function isolationHoldMs(
  labels: Readonly<Record<string, string>>,
  graceMs: number,
): number | undefined {
  const limitMs = isolationLimitMs(labels);
  return limitMs === undefined ? undefined : limitMs + graceMs + isolationMarginMs;
}
