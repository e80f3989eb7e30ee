/**
 * When a job of a schedule runs: cron's five fields, or six with seconds first, in a time zone. Pure: the time is handed
 * in, and croner only counts. Summer time as in cron: what falls into the hour that is left out runs right
 * after it; what falls into the hour that comes twice runs once.
 */
import { Cron } from 'croner';

/** Any time will do to see whether a schedule ever comes. */
const someTime = new Date(Date.UTC(2024, 0, 1));

/** The first time after `afterMs` (ms since the epoch) that the schedule names; undefined when none ever comes. */
export function nextRunAt(schedule: string, timezone: string, afterMs: number): number | undefined {
  return cronOf(schedule, timezone).nextRun(new Date(afterMs))?.getTime();
}

/** What is wrong with a schedule, for the end of a sentence; undefined when it is right. */
export function scheduleFault(schedule: string): string | undefined {
  try {
    const next = cronOf(schedule, 'UTC').nextRun(someTime);
    return next ? undefined : 'must be a time that comes';
  } catch {
    return 'must be the five fields of cron (0 3 * * *), six with seconds first, or @hourly, @daily, @weekly, @monthly, @yearly';
  }
}

/** Whether a name is one of the time zone database. */
export function isTimezone(name: string): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone: name });
    return true;
  } catch {
    return false;
  }
}

function cronOf(schedule: string, timezone: string): Cron {
  return new Cron(schedule, { timezone, mode: '5-or-6-parts' });
}
