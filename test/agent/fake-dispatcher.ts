/**
 * Managers of a cluster as an agent sees them, without a manager: which of them lives and leads is set by the test,
 * what the agent says is kept, what it is assigned is sent.
 */
import type {
  ConnectDispatcher,
  DispatcherClient,
  LogUpload,
  Stream,
  StreamHandlers,
} from '../../agent/dispatcher-client.ts';
import type { StatusUpdate } from '../../agent/reporter.ts';
import type {
  WireAssignments,
  WireDescription,
  WireSessionMessage,
  WireStatus,
  WireSubscription,
  WireTask,
} from '../../agent/wire.ts';
import { ShoalError } from '../../proto/errors.ts';
import type { LogMessage } from '../../proto/generated/docker/swarmkit/v1/LogMessage.ts';
import { type Clock, delay } from '../../proto/ports.ts';

type Change = NonNullable<WireAssignments['changes']>[number];

/** One manager: its address, whether it answers, whether it leads. */
export interface FakeManager {
  readonly address: string;
  isAlive: boolean;
  /** Swallows what it is sent, as after a power cut. */
  isSilent: boolean;
  /** Elected, but not leading yet. */
  isTakingOver: boolean;
}

interface LiveSession {
  readonly manager: FakeManager;
  readonly id: string;
  readonly handlers: StreamHandlers<WireSessionMessage>;
  assignments: StreamHandlers<WireAssignments> | undefined;
  subscriptions: StreamHandlers<WireSubscription> | undefined;
  isOver: boolean;
}

export class FakeManagers {
  readonly managers: readonly FakeManager[];
  leader: string;
  heartbeatMs = 1_000;
  /** Every status that was acknowledged, in order. */
  readonly reports: { readonly taskId: string; readonly status: WireStatus }[] = [];
  readonly descriptions: WireDescription[] = [];
  /** Addresses that were connected to, in order. */
  readonly connections: string[] = [];
  readonly logLines: LogMessage[] = [];
  readonly closedSubscriptions: string[] = [];
  beats = 0;
  refusesReports = false;
  session: LiveSession | undefined;
  readonly #clock: Clock;
  readonly #tasks = new Map<string, Change>();
  #serial = 0;
  #revision = 0;

  constructor(clock: Clock, addresses: readonly string[]) {
    this.#clock = clock;
    this.managers = addresses.map((address) => ({
      address,
      isAlive: true,
      isSilent: false,
      isTakingOver: false,
    }));
    this.leader = addresses[0]!;
  }

  readonly connect: ConnectDispatcher = (address) => {
    this.connections.push(address);
    return this.#client(address);
  };

  manager(address: string): FakeManager {
    return this.managers.find((manager) => manager.address === address)!;
  }

  /** The process of the manager ends: connections break. */
  kill(address: string): void {
    this.manager(address).isAlive = false;
    const session = this.session;
    if (session?.manager.address === address)
      this.endSession(new ShoalError('unavailable', 'connection reset'));
  }

  endSession(error: ShoalError): void {
    const session = this.session;
    if (session === undefined) return;
    this.session = undefined;
    session.isOver = true;
    session.assignments?.onEnd(error);
    session.handlers.onEnd(error);
  }

  /** Assigns a task (again); `with` are payloads that travel in the same message. */
  assign(task: WireTask, ...payloads: Change[]): void {
    this.#tasks.set(task.id ?? '', { action: 'UPDATE', assignment: { task, item: 'task' } });
    for (const payload of payloads) this.#tasks.set(keyOf(payload), payload);
    this.#send([...payloads, { action: 'UPDATE', assignment: { task, item: 'task' } }]);
  }

  unassign(taskId: string): void {
    this.#tasks.delete(taskId);
    this.#send([{ action: 'REMOVE', assignment: { task: { id: taskId }, item: 'task' } }]);
  }

  /** Forgets the task without telling the agent, as when it was removed while the agent was away. */
  unassignSilently(taskId: string): void {
    this.#tasks.delete(taskId);
  }

  /** Sends a message that does not follow the last one. */
  skipRevision(): void {
    this.#revision += 1;
  }

  subscribe(message: WireSubscription): void {
    this.session?.subscriptions?.onMessage(message);
  }

  /** The newest acknowledged status of a task. */
  last(taskId: string): WireStatus | undefined {
    return this.reports.findLast((report) => report.taskId === taskId)?.status;
  }

  states(taskId: string): string[] {
    return this.reports.flatMap(({ taskId: id, status }) => (id === taskId ? String(status.state) : []));
  }

  #send(changes: Change[]): void {
    const handlers = this.session?.assignments;
    const from = String(this.#revision);
    this.#revision += 1;
    handlers?.onMessage({
      type: 'INCREMENTAL',
      applies_to: from,
      results_in: String(this.#revision),
      changes,
    });
  }

  #client(address: string): DispatcherClient {
    const manager = this.manager(address);
    let own: LiveSession | undefined;
    const answers = async (): Promise<LiveSession> => {
      if (manager.isSilent) await delay(this.#clock, 3_600_000);
      await delay(this.#clock, 1);
      if (!manager.isAlive) throw new ShoalError('unavailable', 'connection refused');
      if (own === undefined || own.isOver) throw new ShoalError('not-found', 'no such session');
      return own;
    };
    return {
      address,
      session: (description, handlers) => {
        let isCancelled = false;
        this.#clock.after(1, () => {
          if (isCancelled || manager.isSilent) return;
          if (!manager.isAlive) {
            handlers.onEnd(new ShoalError('unavailable', 'connection refused'));
          } else if (this.leader !== address || manager.isTakingOver) {
            handlers.onEnd(
              new ShoalError('not-leader', 'not the leader', { details: { leader: this.leader } }),
            );
          } else {
            this.descriptions.push(description);
            own = this.#register(manager, handlers);
            this.#welcome(own);
          }
        });
        return {
          cancel: () => {
            isCancelled = true;
            if (own !== undefined) own.isOver = true;
            if (this.session === own) this.session = undefined;
          },
        };
      },
      heartbeat: async (_sessionId, timeoutMs) => {
        await Promise.race([answers(), this.#timeout(timeoutMs)]);
        this.beats += 1;
        return this.heartbeatMs;
      },
      updateTaskStatus: async (_sessionId, updates: StatusUpdate[]) => {
        await answers();
        if (this.refusesReports) throw new ShoalError('no-quorum', 'no quorum');
        for (const { task_id: taskId, status } of updates) this.reports.push({ taskId, status });
      },
      assignments: (_sessionId, handlers) => this.#assignments(own, handlers),
      listenSubscriptions: (handlers) => {
        if (own !== undefined) own.subscriptions = handlers;
        return { cancel: () => {} };
      },
      publishLogs: () => this.#upload(),
      close: () => {},
    };
  }

  #register(manager: FakeManager, handlers: StreamHandlers<WireSessionMessage>): LiveSession {
    this.#serial += 1;
    const session: LiveSession = {
      manager,
      id: `session-${this.#serial}`,
      handlers,
      assignments: undefined,
      subscriptions: undefined,
      isOver: false,
    };
    this.session = session;
    return session;
  }

  #welcome(session: LiveSession): void {
    session.handlers.onMessage({
      session_id: session.id,
      managers: this.managers.map(({ address }) => ({
        peer: { node_id: address, addr: address },
        weight: '1',
      })),
    });
  }

  #assignments(own: LiveSession | undefined, handlers: StreamHandlers<WireAssignments>): Stream {
    if (own !== undefined) own.assignments = handlers;
    this.#clock.after(1, () => {
      if (own === undefined || own.isOver || own.assignments !== handlers) return;
      this.#revision += 1;
      handlers.onMessage({
        type: 'COMPLETE',
        results_in: String(this.#revision),
        changes: [...this.#tasks.values()],
      });
    });
    return { cancel: () => {} };
  }

  #upload(): LogUpload {
    return {
      send: async (message) => {
        await delay(this.#clock, 1);
        this.logLines.push(...(message.messages ?? []));
        if (message.close === true) this.closedSubscriptions.push(message.subscription_id ?? '');
      },
      close: async () => {},
    };
  }

  async #timeout(timeoutMs: number): Promise<never> {
    await delay(this.#clock, timeoutMs);
    throw new ShoalError('timeout', 'deadline exceeded');
  }
}

function keyOf({ assignment }: Change): string {
  return `payload ${assignment?.secret?.id ?? assignment?.config?.id ?? ''}`;
}
