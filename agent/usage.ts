/**
 * Measures what this node's tasks use, of the services that the managers name, and tells the leader. In: wishes, the
 * engine's figures, what tasks serve for Prometheus. Out: samples, as often as was asked. It decides nothing, and keeps no
 * more than the figures before, to tell how fast something rises.
 */
import { messageOf } from '../proto/errors.ts';
import type { UsageSample } from '../proto/generated/shoal/v1/UsageSample.ts';
import type { UsageWishes__Output as UsageWishes } from '../proto/generated/shoal/v1/UsageWishes.ts';
import { parseSelector } from '../proto/metric-selector.ts';
import type { Clock, Log, Timer } from '../proto/ports.ts';
import { type DispatcherClient, reasonOfEnd, type UsageStream } from './dispatcher-client.ts';
import type { EngineMeter } from './engine/engine.ts';
import { readMetric } from './exposition.ts';
import type { Scrape } from './scrape.ts';
import type { WireTask } from './wire.ts';

const watchAgainMs = 1_000;
const shortestPeriodMs = 500;
/** Tasks that are measured at once. */
const atOnce = 8;

export interface UsageMeterOptions {
  readonly meter: EngineMeter;
  readonly scrape: Scrape;
  readonly clock: Clock;
  readonly log: Log;
  /** Tasks of this node, with their containers once these have been started. */
  readonly tasks: () => { readonly task: WireTask; readonly containerId: string | undefined }[];
}

interface Figure {
  readonly atMs: number;
  readonly value: number;
}

type Metric = NonNullable<NonNullable<UsageWishes['wishes']>[number]['metrics']>[number];

interface Measured {
  readonly taskId: string;
  readonly containerId: string;
  readonly metrics: readonly Metric[];
}

export class UsageMeter {
  readonly #options: UsageMeterOptions;
  #stream: UsageStream | undefined;
  #wishes = new Map<string, readonly Metric[]>();
  #periodMs = shortestPeriodMs;
  #timer: Timer | undefined;
  #isMeasuring = false;
  /** What rises, by container and what it is. Of the last round and this one. */
  #figures = new Map<string, Figure>();
  #next = new Map<string, Figure>();

  constructor(options: UsageMeterOptions) {
    this.#options = options;
  }

  /** Reports to this manager from now on. */
  connect(client: DispatcherClient): void {
    this.disconnect();
    this.#stream = client.watchUsage?.({
      onMessage: (wishes) => this.#onWishes(wishes),
      onEnd: (error) => {
        this.disconnect();
        // A manager of an older version never asks.
        if (error?.code === 'not-supported') return;
        this.#options.log.debug({ reason: reasonOfEnd(error) }, 'nobody asks what tasks use');
        this.#timer = this.#options.clock.after(watchAgainMs, () => this.connect(client));
      },
    });
  }

  disconnect(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    this.#stream?.cancel();
    this.#stream = undefined;
    this.#wishes.clear();
  }

  #onWishes({ period_ms: periodMs, wishes }: UsageWishes): void {
    this.#wishes = new Map((wishes ?? []).map((wish) => [wish.service_id ?? '', wish.metrics ?? []]));
    this.#periodMs = Math.max(shortestPeriodMs, periodMs ?? 0);
    this.#timer?.cancel();
    this.#timer = undefined;
    if (this.#wishes.size === 0) this.#figures.clear();
    else if (!this.#isMeasuring) void this.#round();
  }

  async #round(): Promise<void> {
    this.#isMeasuring = true;
    const waiting = this.#toMeasure();
    const samples: UsageSample[] = [];
    const work = async (): Promise<void> => {
      for (let one = waiting.shift(); one; one = waiting.shift()) {
        const sample = await this.#sample(one);
        if (sample) samples.push(sample);
      }
    };
    await Promise.all(Array.from({ length: atOnce }, work));
    this.#figures = this.#next;
    this.#next = new Map();
    this.#isMeasuring = false;
    if (samples.length > 0) this.#stream?.report({ samples });
    if (this.#stream === undefined || this.#wishes.size === 0) return;
    this.#timer?.cancel();
    this.#timer = this.#options.clock.after(this.#periodMs, () => void this.#round());
  }

  #toMeasure(): Measured[] {
    return this.#options.tasks().flatMap(({ task, containerId }) => {
      const metrics = this.#wishes.get(task.service_id ?? '');
      if (metrics === undefined || containerId === undefined) return [];
      return [{ taskId: task.id ?? '', containerId, metrics }];
    });
  }

  async #sample({ taskId, containerId, metrics }: Measured): Promise<UsageSample | undefined> {
    const { meter, clock, log } = this.#options;
    try {
      const { cpuNanos, memoryBytes } = await meter.measure(containerId);
      const atMs = clock.monotonicMs();
      const nanoCpus = this.#risePerSecond(`${containerId} cpu`, { atMs, value: cpuNanos });
      const read = metrics.length === 0 ? {} : await this.#readMetrics(containerId, metrics);
      return {
        task_id: taskId,
        memory_bytes: String(Math.round(memoryBytes)),
        ...(nanoCpus === undefined ? {} : { nano_cpus: String(Math.round(nanoCpus)) }),
        ...read,
      };
    } catch (error) {
      log.debug({ task: taskId, reason: messageOf(error) }, 'a task could not be measured');
      return undefined;
    }
  }

  async #readMetrics(
    containerId: string,
    metrics: readonly Metric[],
  ): Promise<Pick<UsageSample, 'metrics' | 'problems'>> {
    const values: Record<string, number> = {};
    const problems: Record<string, string> = {};
    for (const { key = '', name = '', port = 0, path = '' } of metrics) {
      try {
        const value = await this.#readMetric(containerId, { key, name, port, path });
        if (value !== undefined) values[key] = value;
      } catch (error) {
        problems[key] = messageOf(error);
      }
    }
    return { metrics: values, problems };
  }

  /** Undefined for the first look at a counter. Throws why there is none. */
  async #readMetric(
    containerId: string,
    { key, name, port, path }: { key: string; name: string; port: number; path: string },
  ): Promise<number | undefined> {
    const { meter, scrape, clock } = this.#options;
    const address = await meter.address(containerId);
    if (address === undefined) throw new Error('its container has no address');
    const text = await scrape(address, port, path);
    const selector = parseSelector(name);
    const reading = selector && readMetric(text, selector);
    if (reading === undefined) throw new Error(`:${port}${path} has no metric ${name}`);
    if (!reading.isCounter) return reading.value;
    return this.#risePerSecond(`${containerId} ${key}`, {
      atMs: clock.monotonicMs(),
      value: reading.value,
    });
  }

  /** How much a figure rises a second, by the one before; one that fell has begun anew. */
  #risePerSecond(what: string, figure: Figure): number | undefined {
    this.#next.set(what, figure);
    const before = this.#figures.get(what);
    if (before === undefined || figure.atMs <= before.atMs || figure.value < before.value) return undefined;
    return (figure.value - before.value) / ((figure.atMs - before.atMs) / 1000);
  }
}
