/**
 * The real clock, dice and log: the only file that asks the machine for time or chance.
 */
import { randomBytes } from 'node:crypto';
import { type Logger, pino } from 'pino';
import type { Clock, Log, Random, Timer } from '../proto/ports.ts';

/** Node clamps longer delays to 1 ms; such a timer is set again until its time has come. */
const longestTimerMs = 2 ** 31 - 1;

/** Since the machine was booted, not this process: what one life of a daemon noted the next one can go by. */
const startedMs = Number(process.hrtime.bigint()) / 1e6 - performance.now();

export const realClock: Clock = {
  now: () => Date.now(),
  monotonicMs: () => startedMs + performance.now(),
  after(delayMs, action): Timer {
    let handle: NodeJS.Timeout;
    const arm = (leftMs: number): void => {
      const stepMs = Math.min(Math.max(0, leftMs), longestTimerMs);
      handle = setTimeout(() => (leftMs > stepMs ? arm(leftMs - stepMs) : action()), stepMs);
    };
    arm(delayMs);
    return { cancel: () => clearTimeout(handle) };
  },
  soon: (action) => {
    setImmediate(action);
  },
};

export const realRandom: Random = {
  bytes: (count) => randomBytes(count),
  float: () => Math.random(),
};

export const logLevels = ['debug', 'info', 'warn', 'error', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

/** A log of one JSON object a line on standard error. */
export function realLog(level: LogLevel): Log {
  return wrap(
    pino(
      { level, base: {}, timestamp: pino.stdTimeFunctions.isoTime },
      pino.destination({ fd: 2, sync: false }),
    ),
  );
}

function wrap(logger: Logger): Log {
  return {
    debug: (fields, message) => logger.debug(fields, message),
    info: (fields, message) => logger.info(fields, message),
    warn: (fields, message) => logger.warn(fields, message),
    error: (fields, message) => logger.error(fields, message),
    child: (fields) => wrap(logger.child(fields)),
  };
}
