/** What simulated containers use: what a test says. */
import type { EngineMeter } from './engine.ts';

export class SimulatedMeter implements EngineMeter {
  /** By container's id; nothing is used without an entry. */
  readonly used = new Map<string, { cpuNanos: number; memoryBytes: number }>();

  async measure(containerId: string): Promise<{ cpuNanos: number; memoryBytes: number }> {
    return this.used.get(containerId) ?? { cpuNanos: 0, memoryBytes: 0 };
  }

  async address(): Promise<string> {
    return '127.0.0.1';
  }
}
