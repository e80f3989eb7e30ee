/**
 * Reading logs as the API does: a request in plain terms, lines as an async iterable. The lines come from this
 * manager's broker or, on a follower, from the leader's; the reader does not know which.
 */

import { isShoalError } from '../../proto/errors.ts';
import type { LogMessage__Output as WireLine } from '../../proto/generated/docker/swarmkit/v1/LogMessage.ts';
import type { SubscribeLogsMessage__Output as WireLines } from '../../proto/generated/docker/swarmkit/v1/SubscribeLogsMessage.ts';
import type { SubscribeLogsRequest__Output as WireLogRequest } from '../../proto/generated/docker/swarmkit/v1/SubscribeLogsRequest.ts';
import { type Clock, delay } from '../../proto/ports.ts';
import type { Sink, StreamHandle } from '../../proto/rpc-stream.ts';
import { LogProgress } from './progress.ts';
import { noticeAttribute, streamOf, textOfTime, wireLogOptions, wireTime } from './wire.ts';

/** Starts a subscription: LogBroker.subscribe, or subscribeThrough with a channel to the leader. */
export type OpenLogs = (request: WireLogRequest, sink: Sink<WireLines>) => StreamHandle;

/** Whose lines, which, and for how long. Times in ms since the epoch. */
export interface LogQuery {
  readonly serviceIds: readonly string[];
  readonly taskIds: readonly string[];
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly follow: boolean;
  readonly sinceMs?: number;
  /** Only the last n lines of each task; undefined: all. */
  readonly tail?: number;
}

/** One line, with where it comes from. */
export interface LogEntry {
  readonly kind: 'line';
  readonly stream: 'stdout' | 'stderr';
  /** RFC 3339, to the nanosecond. */
  readonly timestamp: string;
  readonly nodeId: string;
  readonly serviceId: string;
  readonly taskId: string;
  /** What the log driver adds to each line. */
  readonly attributes: Readonly<Record<string, string>>;
  readonly data: Uint8Array;
}

/** So long a reader that does not follow tries to find the leader; one that follows tries as long as it stays. */
const retryBoundMs = 10_000;
const retryEveryMs = 250;

/**
 * The lines of `query`, no faster than they are taken. Ends when the nodes have sent all, or by `signal`;
 * throws at the end, with Docker's words, when lines of some nodes are missing. When the leader changes it goes on
 * through the next one, without a line lost or told twice.
 */
export async function* readLogs(
  open: OpenLogs,
  query: LogQuery,
  signal: AbortSignal,
  clock: Clock,
): AsyncGenerator<LogEntry, void, undefined> {
  const progress = new LogProgress(clock.now());
  let request = wireRequest(query);
  let brokenAt: number | undefined;
  while (!signal.aborted) {
    try {
      for await (const line of readOnce(open, request, signal, () => progress.onIdle(clock.now()))) {
        brokenAt = undefined;
        const isNotice = line.attributes[noticeAttribute] !== undefined;
        if (isNotice || progress.take(line, query.tail !== undefined)) yield line;
      }
      return;
    } catch (error) {
      const now = clock.monotonicMs();
      brokenAt ??= now;
      const isLate = !query.follow && now - brokenAt > retryBoundMs;
      if (signal.aborted) return;
      if (isLate || !isInterruption(error)) throw error;
    }
    await delay(clock, retryEveryMs);
    const sinceMs = progress.resume();
    request = wireRequest(query.follow && sinceMs !== undefined ? resumed(query, sinceMs) : query);
  }
}

/** Whether the way to the lines broke off, not that lines are missing or can't be had. */
function isInterruption(error: unknown): boolean {
  return isShoalError(error) && error.retriable && error.details.incomplete === undefined;
}

function resumed({ tail: _, ...query }: LogQuery, sinceMs: number): LogQuery {
  return { ...query, sinceMs: Math.max(sinceMs, query.sinceMs ?? 0) };
}

async function* readOnce(
  open: OpenLogs,
  request: WireLogRequest,
  signal: AbortSignal,
  onIdle: () => void,
): AsyncGenerator<LogEntry, void, undefined> {
  const mailbox = new Mailbox(onIdle);
  const handle = open(request, mailbox);
  const abort = () => mailbox.end();
  signal.addEventListener('abort', abort);
  try {
    for (;;) {
      const lines = await mailbox.take();
      if (lines === undefined) return;
      for (const line of lines.messages ?? []) yield entryOf(line);
    }
  } finally {
    signal.removeEventListener('abort', abort);
    mailbox.drop();
    handle.close();
  }
}

function wireRequest(query: LogQuery): WireLogRequest {
  return {
    selector: { service_ids: [...query.serviceIds], task_ids: [...query.taskIds] },
    options: wireLogOptions({
      follow: query.follow,
      stdout: query.stdout,
      stderr: query.stderr,
      tail: query.tail ?? 'all',
      since: query.sinceMs === undefined ? undefined : wireTime(query.sinceMs),
    }),
  };
}

function entryOf(line: WireLine): LogEntry {
  return {
    kind: 'line',
    stream: streamOf(line),
    timestamp: textOfTime(line.timestamp),
    nodeId: line.context?.node_id ?? '',
    serviceId: line.context?.service_id ?? '',
    taskId: line.context?.task_id ?? '',
    attributes: Object.fromEntries((line.attrs ?? []).map(({ key = '', value = '' }) => [key, value])),
    data: line.data ?? new Uint8Array(),
  };
}

/** Holds what was sent until it is taken; each sender waits until its message has been. */
class Mailbox implements Sink<WireLines> {
  private readonly waiting: { message: WireLines; taken: () => void }[] = [];
  private over: { error: unknown } | undefined;
  private wake: (() => void) | undefined;
  private isWaiting = false;
  private readonly onIdle: () => void;

  /** Calls `onIdle` while nothing waits. */
  constructor(onIdle: () => void) {
    this.onIdle = onIdle;
  }

  send(message: WireLines): Promise<void> {
    if (this.over) return Promise.resolve();
    return new Promise((resolve) => {
      this.waiting.push({ message, taken: resolve });
      this.wake?.();
    });
  }

  end(error?: unknown): void {
    if (this.over === undefined && this.waiting.length === 0) this.onIdle();
    this.over ??= { error };
    this.wake?.();
  }

  /** Nobody takes anything any more: senders go on. */
  drop(): void {
    this.end();
    for (const { taken } of this.waiting.splice(0)) taken();
  }

  /** The next message; undefined at the end. Throws what the stream was ended with. */
  async take(): Promise<WireLines | undefined> {
    for (;;) {
      const next = this.waiting.shift();
      if (next) {
        // It waited for nothing until now.
        if (this.isWaiting) this.onIdle();
        this.isWaiting = false;
        next.taken();
        return next.message;
      }
      if (this.over) {
        if (this.over.error !== undefined) throw this.over.error;
        return undefined;
      }
      this.onIdle();
      this.isWaiting = true;
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
  }
}
