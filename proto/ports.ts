/**
 * What the deciding parts are handed instead of taking it from the machine: time, chance and a log.
 * The real ones stand in cli/runtime.ts, the virtual ones in the simulator.
 */

/** A timer that can be called off; calling it off twice, or after it fired, does nothing. */
export interface Timer {
  cancel(): void;
}

/** Time. `now` is in milliseconds since the Unix epoch; it may step, so deadlines use timers. */
export interface Clock {
  now(): number;
  /** Milliseconds that only rise, from an arbitrary origin: for durations. */
  monotonicMs(): number;
  /** Calls `action` once after `delayMs`. */
  after(delayMs: number, action: () => void): Timer;
  /**
   * Calls `action` once as soon as everything that has arrived by now has been looked at: what it does then is done for
   * all of it together. Absent: where nothing arrives, whenever the present callback is through will do.
   */
  soon?(action: () => void): void;
}

/** Chance. */
export interface Random {
  /** `count` bytes fit for identifiers, tokens and keys. */
  bytes(count: number): Uint8Array;
  /** A number in [0, 1). */
  float(): number;
}

/** A structured log. Fields never hold secrets. */
export interface Log {
  debug(fields: Record<string, unknown>, message: string): void;
  info(fields: Record<string, unknown>, message: string): void;
  warn(fields: Record<string, unknown>, message: string): void;
  error(fields: Record<string, unknown>, message: string): void;
  /** A log whose lines all carry `fields`. */
  child(fields: Record<string, unknown>): Log;
}

/** A log that drops every line. */
export const silentLog: Log = {
  debug() {},
  info() {},
  warn() {},
  error() {},
  child() {
    return silentLog;
  },
};

/** Resolves after `delayMs` of the clock's time. */
export function delay(clock: Clock, delayMs: number): Promise<void> {
  return new Promise((resolve) => {
    clock.after(delayMs, resolve);
  });
}
