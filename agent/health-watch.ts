/**
 * A task's health check until it passes. In: the container as it was last seen, and the check as the service asks for it. Out:
 * a look again now and then, for what a check prints is no event; and checks of the agent's own where the service names an
 * interval for the time of starting of which the engine knows nothing (Docker Engine before 25.0). As on an engine that has it,
 * one that passes makes the container healthy, one that fails counts for nothing, and there are none after the start period.
 */
import type { HealthConfig__Output } from '../proto/generated/docker/swarmkit/v1/HealthConfig.ts';
import type { Clock, Timer } from '../proto/ports.ts';
import type { ContainerState, EngineExecs } from './engine/engine.ts';
import { runHealthCheck } from './engine/health-check.ts';
import { millisecondsOf } from './wire.ts';

/** While a health check has not passed, its last output is looked at so often. */
const lookMs = 2_000;

export class HealthWatch {
  readonly #execs: EngineExecs;
  readonly #clock: Clock;
  readonly #onNews: () => void;
  #look: Timer | undefined;
  #next: Timer | undefined;
  /** Since when the container starts, as far as this agent knows. */
  #beganAtMs: number | undefined;
  #isChecking = false;
  #hasPassed = false;
  /** Of the last check of the agent's own. */
  #output = '';
  #isOver = false;

  /** `onNews`: the container is to be looked at again. */
  constructor(execs: EngineExecs, clock: Clock, onNews: () => void) {
    this.#execs = execs;
    this.#clock = clock;
    this.#onNews = onNews;
  }

  /** The container with what the agent's own checks found, as long as the engine's have said nothing. */
  seen(view: ContainerState): ContainerState {
    if (view.health !== 'starting') return view;
    if (this.#hasPassed) return { ...view, health: 'healthy' };
    return view.healthOutput === '' ? { ...view, healthOutput: this.#output } : view;
  }

  /** Sees to it that a container that starts is looked at again, and checked as often as `asked`. */
  watch(view: ContainerState, asked: HealthConfig__Output | undefined): void {
    if (this.#isOver) return;
    this.#look ??= this.#clock.after(lookMs, () => {
      this.#look = undefined;
      this.#onNews();
    });
    if (view.healthCheck === undefined || view.healthCheck.hasStartInterval) return;
    const intervalMs = millisecondsOf(asked?.start_interval) ?? 0;
    if (intervalMs <= 0 || this.#next !== undefined || this.#isChecking) return;
    const now = this.#clock.now();
    this.#beganAtMs ??= now;
    if (now + intervalMs > this.#beganAtMs + (millisecondsOf(asked?.start_period) ?? 0)) return;
    this.#next = this.#clock.after(intervalMs, () => {
      this.#next = undefined;
      void this.#check(view);
    });
  }

  /** Ends it; a check under way is left to itself. */
  stop(): void {
    this.#isOver = true;
    this.#look?.cancel();
    this.#next?.cancel();
  }

  async #check({ id, healthCheck }: ContainerState): Promise<void> {
    this.#isChecking = true;
    try {
      const { hasPassed, output } = await runHealthCheck(this.#execs, id, healthCheck!, this.#clock);
      this.#hasPassed = hasPassed;
      this.#output = output;
    } catch {
      // The container has ended, or the engine does not answer: the task hears of either by itself.
    } finally {
      this.#isChecking = false;
    }
    if (!this.#isOver) this.#onNews();
  }
}
