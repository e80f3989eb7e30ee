/**
 * Drives one task: asks transition.ts what to do next and does it, one action at a time. In: what managers want,
 * what happens to the container. Out: containers, and a status for every change. It decides nothing itself, and
 * while the engine does not answer it waits: a task is never lost because the engine is.
 */
import { isShoalError, messageOf } from '../proto/errors.ts';
import type { Clock, Log, Timer } from '../proto/ports.ts';
import { parseRotation, rotateLabel } from '../proto/rotation.ts';
import { isTerminal, taskStateRank } from '../proto/task-state.ts';
import {
  containerOf,
  containerRequest,
  type NodeForTasks,
  stopGraceMs,
  taskIdLabel,
} from './engine/container-spec.ts';
import { createdContainer } from './engine/created-container.ts';
import type { ContainerRequest, ContainerState, Engine } from './engine/engine.ts';
import type { Gate } from './gate.ts';
import { HealthWatch } from './health-watch.ts';
import type { Networks } from './network/network.ts';
import { filesNamedBy, type Payloads, planFiles, type TaskFiles } from './secrets.ts';
import { Steps } from './steps.ts';
import { type Action, type ContainerView, transition, type Wanted } from './transition.ts';
import { type AgentStatus, desiredOf, type WireTask } from './wire.ts';

const firstRetryMs = 250;
const lastRetryMs = 5_000;
const unavailablePrefix = 'engine unavailable: ';
const networkPrefix = 'waiting for its network: ';
const isWaiting = (words: string) => [unavailablePrefix, networkPrefix].some((one) => words.startsWith(one));
/** A container that publishes ports needs several things of the engine's that somebody may have removed. */
const maxMended = 4;

/** What every task of a node shares. */
export interface TaskSurroundings {
  readonly engine: Engine;
  readonly clock: Clock;
  readonly log: Log;
  readonly node: () => NodeForTasks;
  readonly networks: Networks;
  readonly files: TaskFiles;
  readonly payloads: Payloads;
  /** Bounds how many containers are made and started at once. */
  readonly gate: Gate;
}

export interface TaskListener {
  /** The task's status is another one. */
  onStatus(status: AgentStatus): void;
  /** The task has this container, or it has been started or ended. */
  onContainer(containerId: string): void;
  /** Nothing is left of a task that was removed from the node. */
  onForgotten(): void;
}

export class TaskDriver {
  readonly id: string;
  readonly #around: TaskSurroundings;
  readonly #listener: TaskListener;
  #task: WireTask;
  #status: AgentStatus;
  #wanted: Wanted;
  #view: ContainerView;
  #isBusy = false;
  #isStale = false;
  #isForgotten = false;
  /** Set while the engine does not answer this task; the loop waits for it. */
  #retry: Timer | undefined;
  #retryMs = firstRetryMs;
  readonly #health: HealthWatch;
  readonly #steps: Steps;
  /** Ends a preparation that is no longer wanted. */
  #preparing: AbortController | undefined;
  /** A start that failed for a network that went away is prepared anew once. */
  #wasPreparedAnew = false;
  /** How often a start that failed for something that was removed from the engine's firewall was tried again. */
  #mended = 0;
  /** Its secrets or configs are other versions than those that were written. */
  #isRotated = false;

  constructor(
    task: WireTask,
    status: AgentStatus,
    view: ContainerView,
    around: TaskSurroundings,
    listener: TaskListener,
  ) {
    this.id = task.id ?? '';
    this.#task = task;
    this.#status = status;
    this.#wanted = desiredOf(task);
    this.#view = 'absent';
    this.#around = around;
    this.#listener = listener;
    this.#steps = new Steps(around.clock, (words) => this.#tell(words));
    this.#health = new HealthWatch(around.engine.execs, around.clock, () => this.#lookAgain());
    if (view !== 'absent') {
      around.networks.adopt(task);
      this.#see(view);
    }
  }

  get status(): AgentStatus {
    return this.#status;
  }

  get task(): WireTask {
    return this.#task;
  }

  /** The id of the task's container once it has been started: before, an engine has no log of it to follow. */
  get startedContainerId(): string | undefined {
    const view = this.#view;
    if (typeof view === 'object') return view.phase === 'created' ? undefined : view.id;
    return taskStateRank[this.#status.state] >= taskStateRank.running
      ? this.#status.container?.id
      : undefined;
  }

  /** The id of the task's container; undefined while it has none. */
  get containerId(): string | undefined {
    return typeof this.#view === 'object' ? this.#view.id : this.#status.container?.id;
  }

  /** Begins, or goes on. */
  start(): void {
    this.#poke();
  }

  /** The managers sent the task again. */
  update(task: WireTask): void {
    if (filesNamedBy(task) !== filesNamedBy(this.#task)) this.#isRotated = true;
    this.#task = task;
    const desired = desiredOf(task);
    // It never goes back: a new leader that waits for the endpoint's withdrawal may not say yet what the old one said.
    const isBehind = this.#wanted === 'gone' || (this.#wanted === 'shutdown' && desired !== 'shutdown');
    if (!isBehind) this.#want(desired);
    if (this.#isRotated) this.#poke();
  }

  /** The task is no longer assigned to this node: its container is stopped and removed. */
  remove(): void {
    this.#want('gone');
  }

  /** The managers have been silent for too long: the task is stopped, and stays so whatever they say later. */
  isolate(): void {
    if (this.#wanted !== 'gone' && this.#wanted !== 'shutdown') this.#want('isolated');
  }

  /** Something happened to the task's container. */
  onContainerChange(action: 'start' | 'die' | 'oom' | 'destroy' | 'health_status'): void {
    // A start is always this task's own doing, and looked at when it is done.
    if (action !== 'start') this.#lookAgain();
  }

  #lookAgain(): void {
    this.#isStale = true;
    this.#poke();
  }

  /** The engine stopped answering. Statuses stay as they are and say so. */
  onEngineLost(reason: string): void {
    if (this.#isBusy) return;
    if (this.#status.container !== undefined) this.#noteUnavailable(reason);
    if (typeof this.#view === 'object') this.#view = 'unknown';
  }

  /**
   * What the engine had of this task when it was last asked for all. A task that has looked for itself since, or
   * that is at work, looks again instead: its own knowledge is newer.
   */
  onEngineBack(view: ContainerState | 'absent'): void {
    this.#retry?.cancel();
    this.#retry = undefined;
    this.#retryMs = firstRetryMs;
    if (!this.#isBusy && this.#view === 'unknown') this.#see(view);
    else this.#isStale = true;
    this.#poke();
  }

  /** Stops driving; the container is left as it is. */
  abandon(): void {
    this.#isForgotten = true;
    this.#retry?.cancel();
    this.#health.stop();
    this.#preparing?.abort(new Error('the daemon is stopping'));
  }

  #want(wanted: Wanted): void {
    if (wanted === this.#wanted) return;
    if (this.#wanted === 'isolated' && (wanted === 'ready' || wanted === 'running')) return;
    this.#wanted = wanted;
    if (wanted === 'shutdown' || wanted === 'gone' || wanted === 'isolated') {
      this.#preparing?.abort(new Error('the task is no longer wanted'));
    }
    this.#poke();
  }

  #poke(): void {
    if (this.#isBusy || this.#isForgotten || this.#retry !== undefined) return;
    this.#isBusy = true;
    void this.#run();
  }

  async #run(): Promise<void> {
    try {
      while (!this.#isForgotten) {
        if (this.#isStale) await this.#look();
        if (this.#isRotated) await this.#rotate();
        const action = transition(this.#status, this.#wanted, this.#view);
        if (action.kind === 'rest' && !this.#isStale) break;
        await this.#carryOut(action);
      }
      this.#isBusy = false;
      if (this.#view !== 'unknown') this.#clearUnavailable();
      this.#watchHealth();
    } catch (error) {
      this.#isBusy = false;
      if (!this.#isForgotten) this.#waitForEngine(error);
    }
  }

  /** Throws only what is worth trying again: that the engine did not answer, or refused a stop or a removal. */
  async #carryOut(action: Action): Promise<void> {
    switch (action.kind) {
      case 'rest':
        return;
      case 'advance':
        this.#advance(action.state, action.message, action.err ?? '');
        return;
      case 'prepare':
        await this.#prepare();
        return;
      case 'start':
        await this.#start();
        return;
      case 'stop':
        await this.#stop();
        return;
      case 'remove':
        await this.#ignoreMissing((id) => this.#around.engine.remove(id));
        this.#view = 'absent';
        return;
      case 'forget':
        await this.#forget();
    }
  }

  /** One that is to go in good order takes first who stands before its door: its end would turn them away. */
  async #stop(): Promise<void> {
    const view = this.#view;
    const isInOrder = this.#wanted === 'shutdown' || this.#wanted === 'gone';
    if (isInOrder && typeof view === 'object' && view.health !== 'unhealthy') {
      await this.#around.networks.backlogTaken(this.id, view.pid);
    }
    await this.#ignoreMissing((id) => this.#around.engine.stop(id, stopGraceMs(this.#task)));
    await this.#look();
  }

  async #prepare(): Promise<void> {
    const abort = new AbortController();
    this.#preparing = abort;
    try {
      const request = await this.#request(abort.signal);
      if (abort.signal.aborted) return;
      const made = this.#around.gate.run(() => this.#create(request, abort.signal));
      await this.#steps.during('waiting for the engine to make its container', made);
    } catch (error) {
      if (isShoalError(error, 'unavailable')) throw error;
      if (abort.signal.aborted) return;
      this.#advance('rejected', this.#status.message, messageOf(error));
    } finally {
      this.#preparing = undefined;
    }
  }

  /** Everything a container needs, made side by side. */
  async #request(signal: AbortSignal): Promise<ContainerRequest> {
    const { engine, networks, files, payloads } = this.#around;
    const node = this.#around.node();
    const { image = '', pull_options: pull } = containerOf(this.#task);
    const registryAuth = pull?.registry_auth || undefined;
    const planned = planFiles(this.#task, node, payloads);
    const work = [
      this.#steps.during('joining its networks', networks.attach(this.#task)),
      this.#steps.during('writing its secrets and configs', files.write(this.id, planned)),
      this.#steps.during(`pulling image ${image}`, engine.pull(image, registryAuth, signal)),
    ] as const;
    // A file or network that comes after the task was given up would stay: none is left under way.
    await Promise.allSettled(work);
    const [attachment, mounts] = await Promise.all(work);
    return containerRequest(this.#task, node, attachment, mounts);
  }

  /** Says more of the way to running, while that lasts. */
  #tell(message: string): void {
    const { state } = this.#status;
    const isUnderWay = state === 'preparing' || state === 'starting';
    if (this.#isForgotten || !isUnderWay || this.#status.message === message) return;
    this.#setStatus({ ...this.#status, message });
  }

  /** Says that the health check has yet to pass, with its last output, and looks again. */
  #watchHealth(): void {
    const view = this.#view;
    if (this.#status.state !== 'starting' || typeof view !== 'object' || view.health !== 'starting') return;
    const output = view.healthOutput === '' ? '' : ` (last output: ${view.healthOutput})`;
    this.#tell(`waiting for the health check to pass${output}`);
    this.#health.watch(view, containerOf(this.#task).healthcheck);
  }

  async #create(request: ContainerRequest, signal: AbortSignal): Promise<void> {
    const { engine, networks } = this.#around;
    for (let attempt = 1; !signal.aborted; attempt += 1) {
      try {
        const { id } = await engine.create(request);
        this.#see(createdContainer(id, request));
        this.#advance('ready', 'prepared', '');
        return;
      } catch (error) {
        if (attempt > 2) throw error;
        if (isShoalError(error, 'already-exists')) {
          if (await this.#adoptNamesake(error)) return;
        } else if (isMissingNetwork(error)) {
          networks.forget();
          await networks.attach(this.#task);
        } else {
          throw error;
        }
      }
    }
  }

  /**
   * The name is taken: by what this task's earlier attempt left when the daemon was killed. One that was only
   * created may be half made and goes; one that was started is the task's container. Whether it was adopted.
   */
  async #adoptNamesake(conflict: unknown): Promise<boolean> {
    const { engine } = this.#around;
    const [found] = await engine.list({ [taskIdLabel]: this.id });
    if (found === undefined) throw conflict;
    if (found.phase === 'created' || found.phase === 'dead') {
      await engine.remove(found.id);
      return false;
    }
    this.#see(found);
    return true;
  }

  async #start(): Promise<void> {
    const view = this.#view;
    if (typeof view !== 'object') return;
    try {
      const started = this.#around.gate.run(() => this.#around.engine.start(view.id));
      await this.#steps.during('waiting for the engine to start its container', started);
      await this.#look();
    } catch (error) {
      if (isShoalError(error, 'unavailable')) throw error;
      if (isMissingNetwork(error) && !this.#wasPreparedAnew) {
        this.#wasPreparedAnew = true;
        this.#around.networks.forget();
        await this.#ignoreMissing((id) => this.#around.engine.remove(id));
        this.#view = 'absent';
        await this.#prepare();
        return;
      }
      if (this.#mended < maxMended && (await this.#around.networks.mend(messageOf(error)))) {
        this.#mended += 1;
        return;
      }
      this.#advance('failed', this.#status.message, `starting container failed: ${messageOf(error)}`);
    }
  }

  /** Writes the new versions into the files that the container has, and tells it by the signal that its service names. */
  async #rotate(): Promise<void> {
    const view = this.#view;
    if (view === 'unknown') return;
    this.#isRotated = false;
    if (view === 'absent' || (view.phase !== 'created' && view.phase !== 'running')) return;
    const { engine, files, node, payloads } = this.#around;
    const rotation = parseRotation(this.#task.service_annotations?.labels?.[rotateLabel] ?? '');
    try {
      await files.rewrite(this.id, planFiles(this.#task, node(), payloads));
      if (view.phase === 'running' && rotation?.kind === 'signal') {
        await engine.signal(view.id, rotation.signal);
        this.#setStatus({ ...this.#status, message: `files renewed, ${rotation.signal} sent` });
      }
    } catch (error) {
      if (isShoalError(error, 'unavailable')) {
        this.#isRotated = true;
        throw error;
      }
      this.#setStatus({ ...this.#status, err: `its files could not be renewed: ${messageOf(error)}` });
    }
  }

  async #forget(): Promise<void> {
    await this.#around.files.remove(this.id);
    this.#around.networks.release(this.id);
    this.#health.stop();
    this.#isForgotten = true;
    this.#listener.onForgotten();
  }

  async #ignoreMissing(work: (containerId: string) => Promise<void>): Promise<void> {
    const id = this.containerId;
    if (id === undefined) return;
    try {
      await work(id);
    } catch (error) {
      if (!isShoalError(error, 'not-found')) throw error;
    }
  }

  /** Asks the engine for the container as it is now. */
  async #look(): Promise<void> {
    const id = this.containerId;
    this.#isStale = false;
    if (id === undefined) return;
    try {
      this.#see(await this.#around.engine.inspect(id));
    } catch (error) {
      if (!isShoalError(error, 'not-found')) throw error;
      this.#view = 'absent';
    }
  }

  #see(found: ContainerView): void {
    const before = this.#view;
    const view = typeof found === 'object' ? this.#health.seen(found) : found;
    this.#view = view;
    if (typeof view !== 'object') return;
    if (typeof before !== 'object' || before.id !== view.id || before.phase !== view.phase) {
      this.#listener.onContainer(view.id);
    }
    const ports = view.ports.length > 0 ? view.ports : this.#status.ports;
    this.#status = {
      ...this.#status,
      container: { id: view.id, pid: view.pid, exitCode: view.exitCode },
      ...(ports === undefined ? {} : { ports }),
    };
    // A container that was started proves that its task was, whatever was last written down.
    if (view.phase !== 'created' && taskStateRank[this.#status.state] < taskStateRank.starting) {
      this.#status = { ...this.#status, state: 'starting', message: 'starting', err: '' };
    }
  }

  #advance(state: AgentStatus['state'], message: string, err: string): void {
    const status = this.#status;
    if (taskStateRank[state] < taskStateRank[status.state]) return;
    // While the engine is away, what was said of that goes on to be why nothing happens.
    const isStillAway = this.#view === 'unknown' && !isTerminal(state) && isWaiting(status.err);
    this.#setStatus({ ...status, state, message, err: isStillAway ? err || status.err : err });
  }

  #setStatus(status: AgentStatus): void {
    this.#status = { ...status, atMs: this.#around.clock.now() };
    this.#listener.onStatus(this.#status);
  }

  #waitForEngine(error: unknown): void {
    this.#around.log.warn(
      { task: this.id, reason: messageOf(error) },
      'task waits for the engine or a network',
    );
    if (isShoalError(error, 'unavailable')) {
      const prefix = error.details.network === undefined ? unavailablePrefix : networkPrefix;
      this.#noteUnavailable(messageOf(error), prefix);
    }
    this.#isStale = true;
    this.#retry = this.#around.clock.after(this.#retryMs, () => {
      this.#retry = undefined;
      this.#poke();
    });
    this.#retryMs = Math.min(this.#retryMs * 2, lastRetryMs);
  }

  #noteUnavailable(reason: string, prefix = unavailablePrefix): void {
    const err = `${prefix}${reason}`;
    // Of an engine that is away the first reason stands.
    const isToldOf =
      prefix === unavailablePrefix ? this.#status.err.startsWith(prefix) : this.#status.err === err;
    if (isTerminal(this.#status.state) || isToldOf) return;
    this.#setStatus({ ...this.#status, err });
  }

  #clearUnavailable(): void {
    if (!isWaiting(this.#status.err)) return;
    this.#setStatus({ ...this.#status, err: '' });
  }
}

function isMissingNetwork(error: unknown): boolean {
  return isShoalError(error) && /network .*not found/i.test(error.message);
}
