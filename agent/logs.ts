/**
 * Sends containers' logs to managers that ask for them. In: subscriptions from the log broker. Out: the lines of
 * every matching task on this node, past and (when followed) to come, also of tasks that start later. It keeps no
 * line: a reader that is slow makes the engine wait.
 */
import { assertNever, isShoalError, messageOf, type ShoalError } from '../proto/errors.ts';
import type { LogMessage } from '../proto/generated/docker/swarmkit/v1/LogMessage.ts';
import type { Clock, Log, Timer } from '../proto/ports.ts';
import type { DispatcherClient, LogUpload, Stream } from './dispatcher-client.ts';
import type { Engine, EngineLogLine, LogOptions } from './engine/engine.ts';
import { timestampOfText, type WireSubscription, type WireTask } from './wire.ts';

const listenAgainMs = 1_000;
const largestBatch = 200;

export interface LogSources {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly log: Log;
  readonly nodeId: () => string;
  /** Tasks of this node, with their containers once these have been started. */
  readonly tasks: () => { task: WireTask; containerId: string | undefined }[];
  /** Calls the listener when the answer of `tasks` may be another; its answer takes the listener off. */
  readonly onTasks: (listener: () => void) => () => void;
}

type Connection =
  | { readonly kind: 'none' }
  | { readonly kind: 'listening'; readonly client: DispatcherClient; readonly stream: Stream }
  | { readonly kind: 'waiting'; readonly client: DispatcherClient; readonly timer: Timer };

export class LogForwarder {
  readonly #sources: LogSources;
  readonly #publications = new Map<string, Publication>();
  #connection: Connection = { kind: 'none' };

  constructor(sources: LogSources) {
    this.#sources = sources;
  }

  /** Listens for subscriptions at this manager. */
  connect(client: DispatcherClient): void {
    this.disconnect();
    this.#listen(client);
  }

  /** The manager is gone, and with it whoever was reading. */
  disconnect(): void {
    const connection = this.#connection;
    this.#connection = { kind: 'none' };
    for (const publication of [...this.#publications.values()]) publication.cancel();
    switch (connection.kind) {
      case 'none':
        return;
      case 'listening':
        connection.stream.cancel();
        return;
      case 'waiting':
        connection.timer.cancel();
        return;
      default:
        assertNever(connection);
    }
  }

  #listen(client: DispatcherClient): void {
    let isCurrent = true;
    const stream = client.listenSubscriptions({
      onMessage: (subscription) => this.#onSubscription(client, subscription),
      onEnd: (error) => {
        isCurrent = false;
        this.#listenLater(client, error);
      },
    });
    if (isCurrent) this.#connection = { kind: 'listening', client, stream };
  }

  #listenLater(client: DispatcherClient, error: ShoalError | undefined): void {
    if (this.#connection.kind !== 'none' && this.#connection.client !== client) return;
    this.#sources.log.debug({ reason: error?.message ?? 'ended' }, 'the log broker does not listen');
    const timer = this.#sources.clock.after(listenAgainMs, () => this.#listen(client));
    this.#connection = { kind: 'waiting', client, timer };
  }

  #onSubscription(client: DispatcherClient, subscription: WireSubscription): void {
    const id = subscription.id ?? '';
    if (subscription.close === true) {
      this.#publications.get(id)?.cancel();
      return;
    }
    if (this.#publications.has(id)) return;
    const publication = new Publication(this.#sources, subscription, client.publishLogs());
    this.#publications.set(id, publication);
    void publication.done.then(() => this.#publications.delete(id));
  }
}

/** One subscription being served. */
class Publication {
  readonly done: Promise<void>;
  readonly #sources: LogSources;
  readonly #subscription: WireSubscription;
  readonly #upload: LogUpload;
  readonly #options: LogOptions;
  readonly #abort = new AbortController();
  readonly #read = new Set<string>();
  readonly #reading = new Set<Promise<void>>();

  constructor(sources: LogSources, subscription: WireSubscription, upload: LogUpload) {
    this.#sources = sources;
    this.#subscription = subscription;
    this.#upload = upload;
    this.#options = logOptions(subscription);
    this.done = this.#run();
  }

  cancel(): void {
    this.#abort.abort();
  }

  async #run(): Promise<void> {
    const off = this.#options.follow ? this.#sources.onTasks(() => this.#readTasks(true)) : () => {};
    try {
      this.#readTasks(false);
      if (this.#options.follow) await aborted(this.#abort.signal);
      while (this.#reading.size > 0) await Promise.all(this.#reading);
      await this.#upload.send({ subscription_id: this.#subscription.id, close: true });
      await this.#upload.close();
    } catch (error) {
      this.#sources.log.debug({ reason: messageOf(error) }, 'a reader of logs is gone');
      this.#abort.abort();
    } finally {
      off();
    }
  }

  /** `areNew`: they have started while the reader reads, which therefore wants all of their lines. */
  #readTasks(areNew: boolean): void {
    const { tail: _, ...whole } = this.#options;
    const options = areNew ? whole : this.#options;
    for (const { task, containerId } of this.#sources.tasks()) {
      if (containerId === undefined || this.#read.has(containerId)) continue;
      if (!isSelected(this.#subscription, task, this.#sources.nodeId())) continue;
      this.#read.add(containerId);
      const reading = this.#readTask(task, containerId, options).finally(() => this.#reading.delete(reading));
      this.#reading.add(reading);
    }
  }

  async #readTask(task: WireTask, containerId: string, options: LogOptions): Promise<void> {
    const context = { service_id: task.service_id, node_id: this.#sources.nodeId(), task_id: task.id };
    let batch: LogMessage[] = [];
    let sending: Promise<void> | undefined;
    // While one batch is on its way the next is gathered; a full one waits for it.
    const send = async (): Promise<void> => {
      while (batch.length > 0) {
        const messages = batch;
        batch = [];
        await this.#upload.send({ subscription_id: this.#subscription.id, messages });
      }
      sending = undefined;
    };
    try {
      for await (const line of this.#sources.engine.logs(containerId, options, this.#abort.signal)) {
        batch.push({ context, ...logMessage(line) });
        if (sending === undefined) {
          sending = send();
          sending.catch(() => this.#abort.abort());
        }
        if (batch.length >= largestBatch) await sending;
      }
      await sending;
    } catch (error) {
      if (isShoalError(error, 'not-found')) return;
      this.#sources.log.debug({ task: task.id, reason: messageOf(error) }, 'logs of a task ended early');
    }
  }
}

function logMessage(line: EngineLogLine): LogMessage {
  return {
    timestamp: timestampOfText(line.timestamp),
    stream: line.stream === 'stderr' ? 'LOG_STREAM_STDERR' : 'LOG_STREAM_STDOUT',
    data: line.data,
    ...(line.attributes
      ? { attrs: Object.entries(line.attributes).map(([key, value]) => ({ key, value })) }
      : {}),
  };
}

function isSelected({ selector }: WireSubscription, task: WireTask, nodeId: string): boolean {
  return (
    (selector?.service_ids ?? []).includes(task.service_id ?? '') ||
    (selector?.task_ids ?? []).includes(task.id ?? '') ||
    (selector?.node_ids ?? []).includes(nodeId)
  );
}

/** On the wire a tail of -n-1 asks for the last n lines, and 0 for all. */
function logOptions({ options }: WireSubscription): LogOptions {
  const streams = options?.streams ?? [];
  const tail = Number(options?.tail ?? 0);
  const { since } = options ?? {};
  return {
    stdout: streams.length === 0 || streams.includes('LOG_STREAM_STDOUT'),
    stderr: streams.length === 0 || streams.includes('LOG_STREAM_STDERR'),
    follow: options?.follow === true,
    ...(tail < 0 ? { tail: -tail - 1 } : {}),
    // As it came: a number of milliseconds can't tell a line's time from the next nanosecond's.
    ...(since ? { since: `${since.seconds ?? 0}.${String(since.nanos ?? 0).padStart(9, '0')}` } : {}),
  };
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
