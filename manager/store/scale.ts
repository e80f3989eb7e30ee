/** How many tasks a mode asks for, and the same mode with another number. */
import type { ServiceMode } from '../../proto/docker.ts';

/** Replicas, or tasks at a time of a job; undefined for modes with a task on each node. */
export function scaleOf({ Replicated, ReplicatedJob }: ServiceMode): number | undefined {
  if (Replicated) return Replicated.Replicas ?? 1;
  return ReplicatedJob && (ReplicatedJob.MaxConcurrent ?? 1);
}

export function withScale(mode: ServiceMode, count: number): ServiceMode {
  if (mode.Replicated) return { Replicated: { ...mode.Replicated, Replicas: count } };
  return { ReplicatedJob: { ...mode.ReplicatedJob, MaxConcurrent: count } };
}
