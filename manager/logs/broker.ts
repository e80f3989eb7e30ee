/**
 * The log broker: brings the lines of services and tasks from the nodes that run them to who asked.
 *
 * In: subscriptions of readers; on the other side agents that listen for them and publish lines. Out: lines,
 * as they come, and at the end the reasons why some are missing. It stores nothing, waits for no node longer than
 * that node's own time limit (it names it), and queues nothing: an agent may publish its next lines when the reader
 * has taken the last. It runs on the leader alone, and knows no transport.
 */

import type { Task } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import type { LogMessage__Output as WireLine } from '../../proto/generated/docker/swarmkit/v1/LogMessage.ts';
import type { PublishLogsMessage__Output as WirePublish } from '../../proto/generated/docker/swarmkit/v1/PublishLogsMessage.ts';
import type { SubscribeLogsMessage__Output as WireLines } from '../../proto/generated/docker/swarmkit/v1/SubscribeLogsMessage.ts';
import type { SubscribeLogsRequest__Output as WireLogRequest } from '../../proto/generated/docker/swarmkit/v1/SubscribeLogsRequest.ts';
import type { SubscriptionMessage__Output as WireSubscription } from '../../proto/generated/docker/swarmkit/v1/SubscriptionMessage.ts';
import { asId, type Id, type NodeId, newId, type ServiceId, type TaskId } from '../../proto/ids.ts';
import type { Clock, Random, Timer } from '../../proto/ports.ts';
import type { Sink, StreamHandle } from '../../proto/rpc-stream.ts';
import { taskStateRank } from '../../proto/task-state.ts';
import type { View } from '../store/store.ts';
import type { Commit } from '../store/watch.ts';
import { LogProgress } from './progress.ts';
import { millisecondsOf, noticeAttribute, streamOf, textOfTime, wireTime } from './wire.ts';

export interface LogBrokerOptions {
  readonly store: View & { onCommit(listener: (commit: Commit) => void): () => void };
  readonly clock: Clock;
  readonly random: Random;
}

/** A node that has sent nothing for so long while it was its turn is named and no longer waited for. */
export const nodeTimeoutMs = 10_000;

/** A reader's subscription. */
export interface LogSubscription extends StreamHandle {
  /** Why lines are missing so far, in words, e.g. `node alpha is not available`. */
  readonly problems: readonly string[];
}

/** One agent's PublishLogs stream. */
export interface Publisher {
  /** Resolves when the reader can take more; rejects when there is no such reader (any more). */
  publish(message: WirePublish): Promise<void>;
  /** The stream is over, with or without the agent having said so in a message. */
  end(): void;
}

/** A node's part in a subscription. */
interface Source {
  /** away: not connected. asked: publishing. done: has sent all. */
  state: 'away' | 'asked' | 'done';
  /** What it has sent of each of its tasks: where it goes on when it comes back. */
  readonly progress: LogProgress;
  wasAsked: boolean;
  /** Runs while the node is waited for. */
  timer?: Timer | undefined;
  /** What the reader reads there came to be after the reader, who wants all of it. */
  isNew?: boolean;
  /** A task of the reader's on it. */
  readonly taskId?: TaskId | undefined;
}

interface Subscription {
  readonly id: string;
  readonly request: WireLogRequest;
  readonly follow: boolean;
  readonly services: ReadonlySet<ServiceId>;
  readonly tasks: ReadonlySet<TaskId>;
  readonly sink: Sink<WireLines>;
  readonly sources: Map<NodeId, Source>;
  /** Tasks that no node has yet. */
  readonly unscheduled: Set<TaskId>;
  readonly problems: string[];
}

export class LogBroker {
  private readonly store: LogBrokerOptions['store'];
  private readonly clock: Clock;
  private readonly random: Random;
  private readonly subscriptions = new Map<string, Subscription>();
  private readonly listeners = new Map<NodeId, Sink<WireSubscription>>();
  private unsubscribe: (() => void) | undefined;

  constructor(options: LogBrokerOptions) {
    this.store = options.store;
    this.clock = options.clock;
    this.random = options.random;
  }

  start(): void {
    this.unsubscribe ??= this.store.onCommit((commit) => this.onCommit(commit));
  }

  /** Ends every stream. */
  stop(leaderAddress?: string): void {
    this.unsubscribe?.();
    this.unsubscribe = undefined;
    const error = notLeader(leaderAddress);
    for (const subscription of this.subscriptions.values()) {
      stopTimers(subscription);
      subscription.sink.end(error);
    }
    for (const sink of this.listeners.values()) sink.end(error);
    this.subscriptions.clear();
    this.listeners.clear();
  }

  /**
   * Sends `sink` the lines that `request` selects. Without follow the stream ends when every node has sent
   * what it has, with an error that names what is missing, if anything is. Throws `invalid-argument` when
   * nothing is selected.
   */
  subscribe(request: WireLogRequest, sink: Sink<WireLines>): LogSubscription {
    this.requireStarted();
    const subscription = this.newSubscription(request, sink);
    this.subscriptions.set(subscription.id, subscription);
    this.findSources(subscription);
    for (const nodeId of subscription.sources.keys()) this.ask(subscription, nodeId);
    this.endIfDone(subscription);
    return {
      problems: subscription.problems,
      close: () => this.cancel(subscription),
    };
  }

  /** Tells an agent's `sink` of the subscriptions that concern its node, in place of an older stream. */
  listen(nodeId: NodeId, sink: Sink<WireSubscription>): StreamHandle {
    this.requireStarted();
    const previous = this.listeners.get(nodeId);
    if (previous) {
      this.onGone(nodeId);
      previous.end(new ShoalError('conflict', 'the node opened a newer stream'));
    }
    this.listeners.set(nodeId, sink);
    for (const subscription of this.subscriptions.values()) {
      if (subscription.sources.get(nodeId)?.state === 'away') this.ask(subscription, nodeId);
    }
    return {
      close: () => {
        if (this.listeners.get(nodeId) !== sink) return;
        this.listeners.delete(nodeId);
        this.onGone(nodeId);
      },
    };
  }

  /** Takes the lines of one PublishLogs stream of a node. */
  publisher(nodeId: NodeId): Publisher {
    this.requireStarted();
    /** Subscriptions that this stream has lines for and has not said to be done with. */
    const open = new Set<string>();
    return {
      publish: async (message) => {
        const id = message.subscription_id ?? '';
        const subscription = this.subscriptions.get(id);
        if (message.close) open.delete(id);
        else open.add(id);
        if (subscription === undefined) {
          if (message.close) return;
          throw new ShoalError('not-found', 'nobody reads this log any more');
        }
        await this.take(subscription, nodeId, message);
      },
      end: () => {
        for (const id of open) {
          const subscription = this.subscriptions.get(id);
          if (subscription) this.onDone(subscription, nodeId, 'disconnected unexpectedly');
        }
        open.clear();
      },
    };
  }

  private newSubscription(request: WireLogRequest, sink: Sink<WireLines>): Subscription {
    const selector = request.selector ?? {};
    const sources = new Map<NodeId, Source>();
    for (const id of selector.node_ids ?? []) sources.set(asId(id), this.newSource());
    const subscription: Subscription = {
      id: newId<Id<'subscription'>>(this.random),
      request,
      follow: request.options?.follow ?? false,
      services: new Set((selector.service_ids ?? []).map((id) => asId<ServiceId>(id))),
      tasks: new Set((selector.task_ids ?? []).map((id) => asId<TaskId>(id))),
      sink,
      sources,
      unscheduled: new Set(),
      problems: [],
    };
    if (subscription.services.size + subscription.tasks.size + sources.size === 0) {
      throw new ShoalError('invalid-argument', 'a log request must name a service, a task or a node');
    }
    return subscription;
  }

  private findSources(subscription: Subscription): void {
    for (const id of subscription.tasks) {
      const task = this.store.get('task', id);
      if (task) this.addSource(subscription, task);
      else subscription.problems.push(`task ${id} not found`);
    }
    for (const id of subscription.services) {
      for (const task of this.store.find('task', 'service', id)) {
        // What has not run yet has no lines; a reader that does not stay has no use for waiting.
        const hasLines = taskStateRank[task.Status.State] >= taskStateRank.running;
        if (subscription.follow || hasLines) this.addSource(subscription, task);
      }
    }
  }

  private newSource(taskId?: TaskId, isNew = false): Source {
    return { state: 'away', progress: new LogProgress(this.clock.now()), wasAsked: false, taskId, isNew };
  }

  private addSource(subscription: Subscription, task: Task, isNew = false): void {
    const { ID, NodeID } = task;
    if (NodeID === undefined) {
      subscription.unscheduled.add(ID);
      return;
    }
    subscription.unscheduled.delete(ID);
    if (!subscription.sources.has(NodeID)) subscription.sources.set(NodeID, this.newSource(ID, isNew));
  }

  private ask(subscription: Subscription, nodeId: NodeId): void {
    const source = subscription.sources.get(nodeId);
    const listener = this.listeners.get(nodeId);
    if (source === undefined || source.state !== 'away') return;
    if (listener === undefined) {
      // One that is up comes back to a new leader in a moment.
      if (subscription.follow || this.isUp(nodeId)) this.limit(subscription, nodeId);
      else this.giveUp(subscription, nodeId);
      return;
    }
    source.state = 'asked';
    const { selector, options } = subscription.request;
    const rest = source.wasAsked ? restOf(subscription, source) : source.isNew ? { tail: '0' } : {};
    source.wasAsked = true;
    tell(listener, { id: subscription.id, selector, options: { ...options, ...rest } });
    if (subscription.follow) source.timer?.cancel();
    else this.limit(subscription, nodeId);
  }

  /** From now on the node has its time to send something. */
  private limit(subscription: Subscription, nodeId: NodeId): void {
    const source = subscription.sources.get(nodeId);
    if (source === undefined) return;
    source.timer?.cancel();
    source.timer = this.clock.after(nodeTimeoutMs, () => this.giveUp(subscription, nodeId));
  }

  /** The node is named, and the rest goes on without it; who follows gets its lines if it comes back. */
  private giveUp(subscription: Subscription, nodeId: NodeId): void {
    const source = subscription.sources.get(nodeId);
    if (source === undefined || source.state === 'done') return;
    source.timer?.cancel();
    const name = this.nameOf(nodeId);
    if (subscription.follow) {
      this.notify(subscription, nodeId, source, `node ${name} is not available; its lines follow once it is`);
      return;
    }
    const seconds = nodeTimeoutMs / 1000;
    const fault = source.state === 'away' ? 'is not available' : `did not answer within ${seconds} s`;
    subscription.problems.push(`node ${name} ${fault}`);
    const listener = this.listeners.get(nodeId);
    if (source.state === 'asked' && listener) this.revoke(subscription, listener);
    source.state = 'done';
    this.endIfDone(subscription);
  }

  /** Who follows hears of it as of a line on standard error, for nothing else gets through to it while it follows. */
  private notify(subscription: Subscription, nodeId: NodeId, source: Source, text: string): void {
    const streams = subscription.request.options?.streams ?? [];
    const task = this.store.get('task', source.taskId);
    if (task === undefined || (streams.length > 0 && !streams.includes('LOG_STREAM_STDERR'))) return;
    const notice: WireLine = {
      context: { node_id: nodeId, service_id: task.ServiceID, task_id: task.ID },
      timestamp: wireTime(this.clock.now()),
      stream: 'LOG_STREAM_STDERR',
      data: Buffer.from(`warning: ${text}\n`),
      attrs: [{ key: noticeAttribute, value: 'node' }],
    };
    void subscription.sink.send({ messages: [notice] }).catch(() => undefined);
  }

  private isUp(nodeId: NodeId): boolean {
    const node = this.store.get('node', nodeId);
    return node !== undefined && node.Status.State !== 'down';
  }

  private revoke(subscription: Subscription, listener: Sink<WireSubscription>): void {
    const { selector, options } = subscription.request;
    tell(listener, { id: subscription.id, selector, options, close: true });
  }

  private async take(subscription: Subscription, nodeId: NodeId, message: WirePublish): Promise<void> {
    const source = subscription.sources.get(nodeId);
    if (source === undefined) {
      throw new ShoalError('permission-denied', 'this log was not asked of this node');
    }
    const messages = (message.messages ?? []).map((line) => ({
      ...line,
      context: { ...line.context, node_id: nodeId },
    }));
    // While the reader takes the lines it is not the node that is waited for.
    source.timer?.cancel();
    const news = subscription.follow
      ? messages.filter((line) => isNews(subscription, source, line))
      : messages;
    if (news.length > 0) {
      await subscription.sink.send({ messages: news });
      source.progress.onIdle(this.clock.now());
    }
    if (message.close) this.onDone(subscription, nodeId, undefined);
    else if (!subscription.follow && source.state === 'asked') this.limit(subscription, nodeId);
  }

  /** The node's stream has ended; `problem` says that it should not have. */
  private onDone(subscription: Subscription, nodeId: NodeId, problem: string | undefined): void {
    const source = subscription.sources.get(nodeId);
    if (source === undefined || source.state !== 'asked') return;
    source.timer?.cancel();
    const reason = problem && `node ${this.nameOf(nodeId)} ${problem}`;
    if (reason && !subscription.problems.includes(reason)) subscription.problems.push(reason);
    if (subscription.follow) return;
    source.state = 'done';
    this.endIfDone(subscription);
  }

  /** The node no longer listens: it sends nothing more until it does again. */
  private onGone(nodeId: NodeId): void {
    for (const subscription of [...this.subscriptions.values()]) {
      const source = subscription.sources.get(nodeId);
      if (source?.state !== 'asked') continue;
      this.onDone(subscription, nodeId, 'disconnected unexpectedly');
      if (!subscription.follow) continue;
      source.state = 'away';
      source.progress.onIdle(this.clock.now());
      this.limit(subscription, nodeId);
    }
  }

  private endIfDone(subscription: Subscription): void {
    if (subscription.follow) return;
    for (const source of subscription.sources.values()) if (source.state !== 'done') return;
    if (!this.subscriptions.delete(subscription.id)) return;
    const reasons = [...subscription.problems];
    for (const id of subscription.unscheduled) reasons.push(`task ${id} has not been scheduled`);
    subscription.sink.end(reasons.length === 0 ? undefined : incomplete(reasons));
  }

  private cancel(subscription: Subscription): void {
    if (!this.subscriptions.delete(subscription.id)) return;
    stopTimers(subscription);
    for (const [nodeId, source] of subscription.sources) {
      const listener = this.listeners.get(nodeId);
      if (source.state === 'asked' && listener) this.revoke(subscription, listener);
    }
  }

  private onCommit(commit: Commit): void {
    if (commit.kind !== 'changed') return;
    for (const subscription of this.subscriptions.values()) {
      if (!subscription.follow) continue;
      for (const event of commit.events) {
        if (event.kind !== 'task' || event.op === 'remove') continue;
        const { ID: id, ServiceID: serviceId, NodeID: nodeId } = event.object;
        if (!subscription.tasks.has(id) && !subscription.services.has(serviceId)) continue;
        if (nodeId === undefined || subscription.sources.has(nodeId)) continue;
        this.addSource(subscription, event.object, true);
        this.ask(subscription, nodeId);
      }
    }
  }

  private nameOf(nodeId: NodeId): string {
    return this.store.get('node', nodeId)?.Description.Hostname || nodeId;
  }

  private requireStarted(): void {
    if (this.unsubscribe === undefined) throw notLeader(undefined);
  }
}

/**
 * What a node that comes back is asked for: the rest, from a while before the last line that was taken of it, for its
 * tasks' lines come in no order among each other. What it sends once more of each task is left out.
 */
function restOf({ request }: Subscription, { progress, isNew }: Source) {
  const sinceMs = progress.resume();
  if (sinceMs === undefined) return isNew ? { tail: '0' } : {};
  const asked = request.options?.since;
  return { tail: '0', since: asked && millisecondsOf(asked) > sinceMs ? asked : wireTime(sinceMs) };
}

/** Whether the reader has not had a line of a node yet; notes that it has. */
function isNews({ request }: Subscription, { progress, isNew }: Source, line: WireLine): boolean {
  const mark = {
    taskId: line.context?.task_id ?? '',
    stream: streamOf(line),
    timestamp: textOfTime(line.timestamp),
  };
  const isOfLast = !isNew && Number(request.options?.tail ?? 0) !== 0;
  return progress.take(mark, isOfLast);
}

function stopTimers(subscription: Subscription): void {
  for (const source of subscription.sources.values()) source.timer?.cancel();
}

/** These messages are few and small: a listener that is slow to read them holds nobody up. */
function tell(listener: Sink<WireSubscription>, message: WireSubscription): void {
  void listener.send(message).catch(() => undefined);
}

function incomplete(reasons: readonly string[]): ShoalError {
  return new ShoalError(
    'unavailable',
    `warning: incomplete log stream. some logs could not be retrieved for the following reasons: ${reasons.join(', ')}`,
    { details: { incomplete: 'yes' } },
  );
}

/** The error of a call that only the leader's broker can answer; `shoal-leader` tells where to go. */
export function notLeader(leaderAddress: string | undefined): ShoalError {
  return new ShoalError(
    'not-leader',
    leaderAddress === undefined
      ? 'logs are read through the leader, and this manager knows of none: try again'
      : `logs are read through the leader: ask ${leaderAddress}`,
    { details: leaderAddress === undefined ? {} : { leader: leaderAddress } },
  );
}
