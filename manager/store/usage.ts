/** What a task was last seen to use: what agents report to the leader, and deciding rooms are handed. Not stored. */
import type { TaskId } from '../../proto/ids.ts';

export interface TaskUsage {
  /** When the leader heard of it, in ms since the epoch. */
  readonly atMs: number;
  /** Processors in use times 10^9; undefined until two samples were taken. */
  readonly nanoCpus: number | undefined;
  readonly memoryBytes: number;
  /** Metrics that services ask for, by metricKey. */
  readonly metrics: Readonly<Record<string, number>>;
  /** Why one is not there, by its key. */
  readonly problems: Readonly<Record<string, string>>;
}

/** The newest sample of a task, however old; undefined when there is none. */
export type UsageOf = (taskId: TaskId) => TaskUsage | undefined;
