/**
 * The node's tasks. In: assignments from the managers, events from the engine, the journal. Out: one driver for
 * each task, statuses for the reporter, payloads of secrets and configs (in memory only). After a restart it
 * takes up the containers that carry this node's id and reports them as they are; it starts none of them again.
 */
import { messageOf } from '../proto/errors.ts';
import type { Clock, Log } from '../proto/ports.ts';
import { taskStateRank } from '../proto/task-state.ts';
import type { ManagerKind } from './dispatcher-client.ts';
import { type NodeForTasks, nodeIdLabel, taskIdLabel } from './engine/container-spec.ts';
import type { ContainerState, Engine, EngineEvent } from './engine/engine.ts';
import { Gate } from './gate.ts';
import { type Answer, IsolationWatch } from './isolation.ts';
import type { Journal, JournalEntry } from './journal.ts';
import { Networks } from './network/network.ts';
import type { Reporter } from './reporter.ts';
import type { Payloads, TaskFiles } from './secrets.ts';
import { TaskDriver, type TaskSurroundings } from './task.ts';
import {
  type AgentStatus,
  statusOfWire,
  type WireAssignments,
  type WireConfig,
  type WireSecret,
  type WireTask,
} from './wire.ts';

/**
 * Containers made and started at once. The engine is quickest when it has them all (30 at once: 3.8 s, 10 at a
 * time: 3.9 s, 4: 4.1 s, on two cores); the bound is for its memory.
 */
const simultaneousStarts = 40;
const firstLookAgainMs = 250;
const lastLookAgainMs = 5_000;

export interface WorkerOptions {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly log: Log;
  readonly journal: Journal;
  readonly files: TaskFiles;
  readonly reporter: Reporter;
  readonly node: () => NodeForTasks;
  /** Told of every event of the engine, after the tasks. */
  readonly onEngineEvent?: (event: EngineEvent) => void;
}

/** What the engine has of this node's tasks, by task id; undefined while it has not answered. */
type Found = ReadonlyMap<string, ContainerState>;

export class Worker {
  readonly networks: Networks;
  readonly #options: WorkerOptions;
  readonly #log: Log;
  readonly #tasks = new Map<string, TaskDriver>();
  /** Container id → task id, so that an event costs the same however many tasks there are. */
  readonly #taskOf = new Map<string, string>();
  /** Statuses of tasks that the journal knows and that no manager has assigned again yet. */
  readonly #remembered = new Map<string, AgentStatus>();
  readonly #secrets = new Map<string, WireSecret>();
  readonly #configs = new Map<string, WireConfig>();
  readonly #around: TaskSurroundings;
  readonly #stopped = new AbortController();
  readonly #isolation: IsolationWatch;
  readonly #taskListeners = new Set<() => void>();
  #found: Found | undefined;
  /** Undefined until a complete set has arrived. */
  #revision: string | undefined;
  #hasAssignments = false;
  #looking = false;
  /** Something was taken for what an earlier look found. */
  #isToLookAgain = false;

  constructor(options: WorkerOptions) {
    this.#options = options;
    this.#log = options.log;
    this.networks = new Networks(options.engine, options.clock, options.log);
    const payloads: Payloads = {
      secret: (id) => this.#secrets.get(id),
      config: (id) => this.#configs.get(id),
    };
    const { engine, clock, log, files, node } = options;
    const gate = new Gate(simultaneousStarts);
    this.#isolation = new IsolationWatch(clock, (taskId) => {
      log.warn(
        { task: taskId },
        'no manager has been heard for too long: stopping a task that must not run twice',
      );
      this.#tasks.get(taskId)?.isolate();
    });
    this.#around = { engine, clock, log, node, networks: this.networks, files, payloads, gate };
  }

  /**
   * Takes up what the journal knows, when the managers were heard last included, and begins to watch the engine. Tasks that were not started yet wait for the
   * managers: only they have the secrets and the registry's credentials to go on with.
   */
  start(known: readonly JournalEntry[], heard?: Answer): void {
    this.#isolation.resume(heard);
    for (const { task, status } of known) {
      if (taskStateRank[status.state] >= taskStateRank.starting) this.#drive(task, status);
      else this.#remembered.set(task.id ?? '', status);
    }
    this.#options.engine.watch((event) => this.#onEngineEvent(event), this.#stopped.signal);
  }

  /** Stops driving. Containers, networks and files stay as they are. */
  stop(): void {
    this.#stopped.abort();
    this.networks.stop();
    for (const driver of this.#tasks.values()) driver.abandon();
    this.#isolation.stop();
  }

  /** A Docker Swarm's overlay networks are not for this node to take part in; see Networks. */
  managersAre(kind: ManagerKind): void {
    this.networks.managersAre(kind);
  }

  /** Every task's newest status, for a manager that has just been connected to. */
  statuses(): { taskId: string; status: AgentStatus }[] {
    return [...this.#tasks.values()].map((driver) => ({ taskId: driver.id, status: driver.status }));
  }

  /** Tasks of this node, with their containers once these have been started: for logs. */
  tasks(): { task: WireTask; containerId: string | undefined }[] {
    return [...this.#tasks.values()].map(({ task, startedContainerId }) => ({
      task,
      containerId: startedContainerId,
    }));
  }

  /** Calls `listener` whenever a task came or its status changed; the answer takes it off again. */
  onTasks(listener: () => void): () => void {
    this.#taskListeners.add(listener);
    return () => this.#taskListeners.delete(listener);
  }

  /** The managers answered a request sent at `atMs` (monotonic), and expect the next one `periodMs` later. */
  heard(atMs: number, periodMs: number): void {
    this.#isolation.heard(atMs, periodMs);
    if (this.#isolation.isMinded) this.#options.journal.putHeard({ atMs, periodMs });
  }

  /** A new stream of assignments begins with a complete set. */
  restartAssignments(): void {
    this.#revision = undefined;
  }

  /**
   * Applies a message of the assignments' stream. False when it does not follow the last one: the stream must
   * be opened anew.
   */
  apply(message: WireAssignments): boolean {
    const isComplete = message.type !== 'INCREMENTAL';
    if (!isComplete && (this.#revision === undefined || (message.applies_to ?? '') !== this.#revision)) {
      return false;
    }
    this.#revision = message.results_in ?? '';
    const changes = message.changes ?? [];
    if (isComplete) this.#dropAllBut(message);
    // Payloads first: the tasks of the same message use them.
    for (const { assignment, action } of changes) {
      if (assignment?.secret?.id) this.#keep(this.#secrets, assignment.secret, action);
      if (assignment?.config?.id) this.#keep(this.#configs, assignment.config, action);
    }
    for (const { assignment, action } of changes) {
      const task = assignment?.task;
      if (task?.id === undefined) continue;
      if (action === 'REMOVE') this.#tasks.get(task.id)?.remove();
      else this.#assign(task);
    }
    if (isComplete) {
      for (const id of this.#remembered.keys()) if (!this.#tasks.has(id)) this.#options.journal.drop(id);
      this.#remembered.clear();
      this.#hasAssignments = true;
      this.#removeStrangers();
    }
    return true;
  }

  /** Ends every task, removes containers, files and networks; resolves when nothing is left. */
  async leave(): Promise<void> {
    const gone = new Promise<void>((resolve) => {
      const check = (): void => {
        if (this.#tasks.size > 0) return;
        off();
        resolve();
      };
      const off = this.onTasks(check);
      for (const driver of [...this.#tasks.values()]) driver.remove();
      check();
    });
    await gone;
    // What the journal knew and nobody assigned again, or what it did not know.
    const { engine, node } = this.#options;
    for (const { id } of await engine.list({ [nodeIdLabel]: node().id })) await engine.remove(id);
    await this.networks.prune();
  }

  #keep<T extends { id?: string | undefined }>(
    kept: Map<string, T>,
    object: T,
    action: string | undefined,
  ): void {
    if (action === 'REMOVE') kept.delete(object.id ?? '');
    else kept.set(object.id ?? '', object);
  }

  #dropAllBut(message: WireAssignments): void {
    const assigned = new Set<string>();
    for (const { assignment, action } of message.changes ?? []) {
      if (assignment?.task?.id !== undefined && action !== 'REMOVE') assigned.add(assignment.task.id);
    }
    this.#secrets.clear();
    this.#configs.clear();
    for (const driver of [...this.#tasks.values()]) if (!assigned.has(driver.id)) driver.remove();
  }

  #assign(task: WireTask): void {
    const driver = this.#tasks.get(task.id ?? '');
    if (driver !== undefined) {
      driver.update(task);
      this.#options.journal.put({ task, status: driver.status });
      return;
    }
    const remembered = this.#remembered.get(task.id ?? '');
    const told = statusOfWire(task.status);
    const isFurther = remembered !== undefined && taskStateRank[remembered.state] > taskStateRank[told.state];
    this.#drive(task, isFurther ? remembered : told);
  }

  #drive(task: WireTask, status: AgentStatus): void {
    const id = task.id ?? '';
    const { journal, reporter } = this.#options;
    // Before the engine has answered, a task that never got as far as a container has none.
    const mayHaveOne = taskStateRank[status.state] >= taskStateRank.preparing;
    const view = this.#found?.get(id) ?? (this.#found === undefined && mayHaveOne ? 'unknown' : 'absent');
    if (status.container !== undefined) this.#taskOf.set(status.container.id, id);
    const driver: TaskDriver = new TaskDriver(task, status, view, this.#around, {
      onStatus: (changed) => {
        if (this.#stopped.signal.aborted) return;
        journal.put({ task: driver.task, status: changed });
        reporter.report(id, changed);
        this.#tellListeners();
      },
      onContainer: (containerId) => {
        this.#taskOf.set(containerId, id);
        this.#tellListeners();
      },
      onForgotten: () => {
        this.#tasks.delete(id);
        for (const [containerId, taskId] of this.#taskOf) if (taskId === id) this.#taskOf.delete(containerId);
        this.#isolation.forget(id);
        journal.drop(id);
        reporter.forget(id);
        this.#tellListeners();
      },
    });
    this.#tasks.set(id, driver);
    this.#isolation.add(id, task.service_annotations?.labels ?? {});
    journal.put({ task, status: driver.status });
    driver.start();
    this.#tellListeners();
    // It may have changed since it was found, when nobody knew whose it was.
    if (typeof view === 'object') this.#lookOnceMore();
  }

  #tellListeners(): void {
    for (const listener of [...this.#taskListeners]) listener();
  }

  #onEngineEvent(event: EngineEvent): void {
    if (event.kind === 'engine-lost') {
      this.#log.warn({ reason: event.reason }, 'the container engine does not answer');
      this.#found = undefined;
      for (const driver of this.#tasks.values()) driver.onEngineLost(event.reason);
    } else if (event.kind === 'engine-back') {
      void this.#look(firstLookAgainMs);
    } else {
      const taskId = this.#taskOf.get(event.containerId);
      if (taskId !== undefined) this.#tasks.get(taskId)?.onContainerChange(event.action);
    }
    this.#options.onEngineEvent?.(event);
  }

  #lookOnceMore(): void {
    if (this.#isToLookAgain) return;
    this.#isToLookAgain = true;
    void Promise.resolve().then(() => {
      if (!this.#looking) void this.#look(firstLookAgainMs);
    });
  }

  /** Compares all tasks with what the engine has; tried again until it answers. */
  async #look(lookAgainMs: number): Promise<void> {
    if (this.#looking || this.#stopped.signal.aborted) return;
    this.#looking = true;
    this.#isToLookAgain = false;
    try {
      const containers = await this.#options.engine.list({ [nodeIdLabel]: this.#options.node().id });
      const found = new Map(containers.map((state) => [state.labels[taskIdLabel] ?? '', state]));
      this.#found = found;
      for (const driver of [...this.#tasks.values()]) driver.onEngineBack(found.get(driver.id) ?? 'absent');
      this.#removeStrangers();
    } catch (error) {
      this.#log.warn({ reason: messageOf(error) }, 'the containers of this node could not be listed');
      const again = Math.min(lookAgainMs * 2, lastLookAgainMs);
      this.#options.clock.after(lookAgainMs, () => void this.#look(again));
    } finally {
      this.#looking = false;
      if (this.#isToLookAgain) void this.#look(firstLookAgainMs);
    }
  }

  /** Removes containers and files of this node whose tasks no manager knows any more; once both sides are known. */
  #removeStrangers(): void {
    if (!this.#hasAssignments || this.#found === undefined) return;
    const strangers = [...this.#found].filter(([taskId]) => !this.#tasks.has(taskId));
    this.#found = new Map();
    for (const [taskId, { id }] of strangers) {
      this.#log.info({ task: taskId, container: id }, 'removing the container of a task that is gone');
      void this.#options.engine
        .remove(id)
        .catch((error: unknown) =>
          this.#log.warn({ container: id, reason: messageOf(error) }, 'a container could not be removed'),
        );
    }
    void this.#removeStrangeFiles();
    this.networks.pruneSoon();
  }

  async #removeStrangeFiles(): Promise<void> {
    try {
      for (const taskId of await this.#options.files.list()) {
        if (!this.#tasks.has(taskId)) await this.#options.files.remove(taskId);
      }
    } catch (error) {
      this.#log.warn({ reason: messageOf(error) }, 'files of tasks that are gone could not be removed');
    }
  }
}
