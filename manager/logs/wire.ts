/** What a reader of logs asks for, as the worker protocol says it: pure. */
import type { LogMessage__Output as WireLine } from '../../proto/generated/docker/swarmkit/v1/LogMessage.ts';
import type { LogStream__Output as WireLogStream } from '../../proto/generated/docker/swarmkit/v1/LogStream.ts';
import type { LogSubscriptionOptions__Output as WireLogOptions } from '../../proto/generated/docker/swarmkit/v1/LogSubscriptionOptions.ts';
import type { Timestamp__Output as WireTimestamp } from '../../proto/generated/google/protobuf/Timestamp.ts';

/** The query of Docker's `GET /services/{id}/logs` and `GET /tasks/{id}/logs`. */
export interface LogOptions {
  readonly follow: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  /** Lines of each task to begin with. */
  readonly tail: number | 'all';
  /** Only lines from this time on; absent for all. */
  readonly since?: WireTimestamp | undefined;
}

/**
 * SwarmKit counts `tail` in its own way: 0 is every line, and the last n lines are -(n+1), so that -1 is none.
 */
export function wireLogOptions(options: LogOptions): WireLogOptions {
  const streams: WireLogStream[] = [];
  if (options.stdout) streams.push('LOG_STREAM_STDOUT');
  if (options.stderr) streams.push('LOG_STREAM_STDERR');
  return {
    streams,
    follow: options.follow,
    tail: options.tail === 'all' ? '0' : String(-(options.tail + 1)),
    since: options.since,
  };
}

/** Milliseconds since the epoch as protobuf's time. */
export function wireTime(milliseconds: number): WireTimestamp {
  const seconds = Math.floor(milliseconds / 1000);
  return { seconds: String(seconds), nanos: Math.round((milliseconds - seconds * 1000) * 1_000_000) };
}

/** The reverse of wireTime; 0 without a time. */
export function millisecondsOf(time: WireTimestamp | null | undefined): number {
  return Number(time?.seconds ?? 0) * 1000 + (time?.nanos ?? 0) / 1_000_000;
}

/** RFC 3339, to the nanosecond: earlier times come first as text. */
export function textOfTime(time: WireTimestamp | null | undefined): string {
  const second = new Date(Number(time?.seconds ?? 0) * 1000).toISOString().slice(0, 19);
  return `${second}.${String(time?.nanos ?? 0).padStart(9, '0')}Z`;
}

export function streamOf(line: WireLine): 'stdout' | 'stderr' {
  return line.stream === 'LOG_STREAM_STDERR' ? 'stderr' : 'stdout';
}

/** Attribute of a line that no container wrote: the managers' word to who follows. */
export const noticeAttribute = 'shoal.notice';
