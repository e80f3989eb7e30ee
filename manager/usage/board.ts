/**
 * What tasks use, as their agents report it to the leader. In: streams of agents, the store's services. Out: to agents, of
 * which services they are to measure what; to whoever decides, the newest sample of a task. It keeps one sample a task, and
 * none beyond this time of leading.
 */
import type { Service } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import type { UsageReport } from '../../proto/generated/shoal/v1/UsageReport.ts';
import type { UsageWishes } from '../../proto/generated/shoal/v1/UsageWishes.ts';
import { asId, type NodeId, type ServiceId, type TaskId } from '../../proto/ids.ts';
import type { Clock } from '../../proto/ports.ts';
import type { Sink, StreamHandle } from '../../proto/rpc-stream.ts';
import { autoscaleOptions } from '../store/autoscale-options.ts';
import type { View } from '../store/store.ts';
import type { TaskUsage, UsageOf } from '../store/usage.ts';
import type { Commit, StoreEvent } from '../store/watch.ts';
import { isScaled, wishesOf } from './wishes.ts';

export interface UsageBoardOptions {
  readonly store: View & { onCommit(listener: (commit: Commit) => void): () => void };
  readonly clock: Clock;
}

export interface UsageHandle extends StreamHandle {
  report(report: UsageReport): void;
}

export class UsageBoard {
  private readonly options: UsageBoardOptions;
  private readonly sinks = new Map<NodeId, Sink<UsageWishes>>();
  private readonly samples = new Map<TaskId, TaskUsage>();
  /** Services that are scaled, and the names after a stack's of what they are scaled by. */
  private readonly scaled = new Map<ServiceId, string | undefined>();
  private wishes: UsageWishes = {};
  private text = '';
  private unsubscribe: (() => void) | undefined;

  constructor(options: UsageBoardOptions) {
    this.options = options;
  }

  start(): void {
    this.unsubscribe ??= this.options.store.onCommit((commit) => this.onCommit(commit));
    this.lookAtAll();
  }

  /** Ends every stream. */
  stop(error: ShoalError): void {
    this.unsubscribe?.();
    this.unsubscribe = undefined;
    for (const sink of this.sinks.values()) sink.end(error);
    this.sinks.clear();
  }

  readonly usageOf: UsageOf = (taskId) => this.samples.get(taskId);

  /** An agent reports, in place of an older stream of its node. */
  watch(nodeId: NodeId, sink: Sink<UsageWishes>): UsageHandle {
    this.sinks.get(nodeId)?.end(new ShoalError('conflict', 'the node opened a newer stream'));
    this.sinks.set(nodeId, sink);
    void sink.send(this.wishes).catch(() => undefined);
    return {
      report: (report) => this.take(nodeId, report),
      close: () => {
        if (this.sinks.get(nodeId) === sink) this.sinks.delete(nodeId);
      },
    };
  }

  private take(nodeId: NodeId, { samples }: UsageReport): void {
    const atMs = this.options.clock.now();
    for (const sample of samples ?? []) {
      const id = asId<TaskId>(sample.task_id ?? '');
      // A node speaks for its own tasks.
      if (this.options.store.get('task', id)?.NodeID !== nodeId) continue;
      this.samples.set(id, {
        atMs,
        nanoCpus: numberOf(sample.nano_cpus),
        memoryBytes: numberOf(sample.memory_bytes) ?? 0,
        metrics: numbersOf(sample.metrics ?? {}),
        problems: sample.problems ?? {},
      });
    }
  }

  private onCommit(commit: Commit): void {
    if (commit.kind === 'restored') {
      this.lookAtAll();
      return;
    }
    let isNews = false;
    for (const event of commit.events) {
      if (event.kind === 'task' && event.op === 'remove') this.samples.delete(event.object.ID);
      if (event.kind === 'service' && this.concerns(event)) isNews = true;
    }
    if (isNews) this.look();
  }

  /** Notes a service that is scaled; answers whether what is measured may be another matter now. */
  private concerns({ op, object }: Extract<StoreEvent, { kind: 'service' }>): boolean {
    const was = this.scaled.delete(object.ID);
    if (op !== 'remove') this.note(object);
    if (was || this.scaled.has(object.ID)) return true;
    const isSource = (name: string | undefined) =>
      name !== undefined && (object.Spec.Name === name || object.Spec.Name.endsWith(`_${name}`));
    return op !== 'update' && [...this.scaled.values()].some(isSource);
  }

  private note(service: Service): void {
    if (isScaled(service)) this.scaled.set(service.ID, autoscaleOptions(service.Spec.Labels)?.source);
  }

  private lookAtAll(): void {
    this.scaled.clear();
    for (const service of this.options.store.list('service')) this.note(service);
    this.look();
  }

  private look(): void {
    const wishes = wishesOf(this.options.store, this.scaled.keys());
    const text = JSON.stringify(wishes);
    if (text === this.text) return;
    this.text = text;
    this.wishes = wishes;
    for (const sink of this.sinks.values()) void sink.send(wishes).catch(() => undefined);
  }
}

function numberOf(value: unknown): number | undefined {
  const number = value === undefined || value === null ? Number.NaN : Number(value);
  return Number.isFinite(number) ? number : undefined;
}

function numbersOf(values: Readonly<Record<string, unknown>>): Record<string, number> {
  return Object.fromEntries(
    Object.entries(values).flatMap(([key, value]) => {
      const number = numberOf(value);
      return number === undefined ? [] : [[key, number]];
    }),
  );
}
