/**
 * A container's health check, and one run of it by hand: as a command in the container, as the engine runs it itself. In: what
 * the engine says that the check is. Out: how it ended, with what it printed. Nothing of it is kept by the engine.
 */
import type { Duplex } from 'node:stream';
import { type Clock, delay } from '../../proto/ports.ts';
import { frames } from './docker-stream.ts';
import type { ContainerHealthCheck, EngineExecs } from './engine.ts';

/** The part of a container's Config that says how its health is checked; `Test` is the image's where the request has none. */
export interface HealthConfig {
  readonly Healthcheck?: {
    readonly Test?: readonly string[] | null;
    readonly Timeout?: number;
    readonly StartInterval?: number;
  } | null;
  readonly Shell?: readonly string[] | null;
}

const engineShell = ['/bin/sh', '-c'];
/** The engine's, where a check names none. */
const defaultTimeoutMs = 30_000;
const outputLength = 300;
/** A command's output ends a moment before its engine knows how it ended. */
const endLookMs = 20;
const endLooks = 50;

/** How the health of a container of `config` is checked; undefined where it is not. */
export function healthCheckOf({ Healthcheck, Shell }: HealthConfig): ContainerHealthCheck | undefined {
  const [kind, ...words] = Healthcheck?.Test ?? [];
  if (kind !== 'CMD' && kind !== 'CMD-SHELL') return undefined;
  return {
    command: kind === 'CMD' ? words : [...(Shell?.length ? Shell : engineShell), ...words],
    timeoutMs: Healthcheck?.Timeout ? Healthcheck.Timeout / 1e6 : defaultTimeoutMs,
    hasStartInterval: (Healthcheck?.StartInterval ?? 0) > 0,
  };
}

/** Runs the check once. Throws what the engine says when it can't; a check that takes too long has not passed. */
export async function runHealthCheck(
  execs: EngineExecs,
  containerId: string,
  { command, timeoutMs }: ContainerHealthCheck,
  clock: Clock,
): Promise<{ readonly hasPassed: boolean; readonly output: string }> {
  const nothing = { env: [], user: '', workingDir: '', detachKeys: '' };
  const request = { ...nothing, command, stdin: false, stdout: true, stderr: true };
  const id = await execs.make(containerId, { ...request, tty: false, privileged: false });
  const stream = await execs.start(id, false);
  let isLate = false;
  const timer = clock.after(timeoutMs, () => {
    isLate = true;
    stream.destroy();
  });
  try {
    const output = await outputOf(stream);
    if (isLate) return { hasPassed: false, output: `the check took more than ${timeoutMs} ms` };
    for (let look = 0; look < endLooks; look += 1) {
      const { isRunning, exitCode } = await execs.inspect(id);
      if (!isRunning) return { hasPassed: exitCode === 0, output };
      await delay(clock, endLookMs);
    }
    return { hasPassed: false, output };
  } finally {
    timer.cancel();
    stream.destroy();
  }
}

/** The end of what a command prints. */
async function outputOf(stream: Duplex): Promise<string> {
  let output = '';
  const decoder = new TextDecoder();
  try {
    for await (const { data } of frames(stream)) {
      output = (output + decoder.decode(data, { stream: true })).slice(-outputLength);
    }
  } catch {
    // Broken off: how the command ended says the engine.
  }
  return output.trim();
}
