/**
 * Runs commands in this node's tasks for managers. In: summons from the manager that the session is with. Out: a stream to
 * the manager that each names, the command's own bytes on it. It enters only containers of tasks that this node was
 * assigned and has started. What a manager that hangs up leaves behind goes on, as an engine leaves it.
 */
import type { Duplex } from 'node:stream';
import { messageOf, ShoalError } from '../proto/errors.ts';
import type { ExecMake__Output as ExecMake } from '../proto/generated/shoal/v1/ExecMake.ts';
import type { ExecOrder__Output as ExecOrder } from '../proto/generated/shoal/v1/ExecOrder.ts';
import { type Clock, delay, type Log, type Timer } from '../proto/ports.ts';
import { drained } from '../proto/rpc-stream.ts';
import { type DispatcherClient, reasonOfEnd, type Stream } from './dispatcher-client.ts';
import type { EngineExecs } from './engine/engine.ts';
import { type DialExec, type ExecCarriage, failureReport } from './exec-client.ts';
import type { WireTask } from './wire.ts';

const listenAgainMs = 1_000;
/** An engine that has just started a command refuses its terminal's size for a moment. */
const resizeAttempts = 5;
const resizeAgainMs = 20;

export interface ExecRunnerOptions {
  readonly execs: EngineExecs;
  readonly dial: DialExec;
  readonly clock: Clock;
  readonly log: Log;
  /** Tasks of this node, with their containers once these have been started. */
  readonly tasks: () => { readonly task: WireTask; readonly containerId: string | undefined }[];
}

export class ExecRunner {
  readonly #options: ExecRunnerOptions;
  readonly #carriages = new Set<ExecCarriage>();
  #stream: Stream | undefined;
  #retry: Timer | undefined;

  constructor(options: ExecRunnerOptions) {
    this.#options = options;
  }

  /** Listens for summons at this manager. Commands under way are not concerned. */
  connect(client: DispatcherClient): void {
    this.disconnect();
    this.#stream = client.listenExecs?.({
      onMessage: ({ exec_id: id, address }) => {
        if (id && address) void this.#carry(id, address);
      },
      onEnd: (error) => {
        this.disconnect();
        // A manager of an older version never asks.
        if (error?.code === 'not-supported') return;
        this.#options.log.debug({ reason: reasonOfEnd(error) }, 'no commands are heard of');
        this.#retry = this.#options.clock.after(listenAgainMs, () => this.connect(client));
      },
    });
  }

  disconnect(): void {
    this.#retry?.cancel();
    this.#retry = undefined;
    this.#stream?.cancel();
    this.#stream = undefined;
  }

  /** Leaves every command to itself. */
  stop(): void {
    this.disconnect();
    for (const carriage of [...this.#carriages]) carriage.close();
  }

  async #carry(id: string, address: string): Promise<void> {
    let carriage: ExecCarriage;
    try {
      carriage = this.#options.dial(address);
    } catch (error) {
      this.#options.log.warn({ manager: address, reason: messageOf(error) }, 'a command could not be taken');
      return;
    }
    this.#carriages.add(carriage);
    const command = new RunningCommand(this.#options, carriage);
    try {
      await carriage.send({ hello: id });
      for await (const order of carriage) await command.obey(order);
    } catch (error) {
      this.#options.log.debug({ manager: address, reason: messageOf(error) }, 'a command was broken off');
    } finally {
      command.leave();
      this.#carriages.delete(carriage);
      carriage.close();
    }
  }
}

/** One command and its connection. */
class RunningCommand {
  readonly #options: ExecRunnerOptions;
  readonly #carriage: ExecCarriage;
  #execId = '';
  #isTerminal = false;
  #stream: Duplex | undefined;

  constructor(options: ExecRunnerOptions, carriage: ExecCarriage) {
    this.#options = options;
    this.#carriage = carriage;
  }

  /** Does what a manager asks; what fails is told, and ends the command's connection. */
  async obey(order: ExecOrder): Promise<void> {
    try {
      await this.#obey(order);
    } catch (error) {
      await this.#carriage.send(failureReport(error));
      this.#carriage.close();
    }
  }

  /** The manager is gone. */
  leave(): void {
    this.#stream?.destroy();
  }

  async #obey(order: ExecOrder): Promise<void> {
    switch (order.order) {
      case 'make':
        return this.#make(order.make ?? {});
      case 'start':
        return this.#start(order.start?.detach === true);
      case 'input':
        return this.#input(order.input ?? Buffer.alloc(0));
      case 'input_end':
        this.#stream?.end();
        return;
      case 'size':
        return this.#resize(order.size?.height ?? 0, order.size?.width ?? 0);
      default:
        return;
    }
  }

  async #make(make: ExecMake): Promise<void> {
    const found = this.#options.tasks().find(({ task }) => task.id === make.task_id);
    if (found?.containerId === undefined)
      throw new ShoalError('conflict', `task ${make.task_id} has no running container on this node`);
    const { containerId } = found;
    this.#isTerminal = make.tty === true;
    this.#execId = await this.#options.execs.make(containerId, {
      command: make.command ?? [],
      env: make.env ?? [],
      user: make.user ?? '',
      workingDir: make.working_dir ?? '',
      tty: this.#isTerminal,
      stdin: make.stdin === true,
      stdout: make.stdout === true,
      stderr: make.stderr === true,
      detachKeys: make.detach_keys ?? '',
      privileged: make.privileged === true,
    });
    await this.#carriage.send({ made: { container_id: containerId } });
  }

  async #start(isDetached: boolean): Promise<void> {
    const { execs } = this.#options;
    if (isDetached) {
      await execs.startDetached(this.#execId);
      await this.#carriage.send({ started: {} });
      await this.#carriage.send({ over: { is_running: true } });
      return;
    }
    const stream = await execs.start(this.#execId, this.#isTerminal);
    // Its end, too, is an end of its output.
    stream.on('error', () => stream.destroy());
    this.#stream = stream;
    await this.#carriage.send({ started: {} });
    void this.#tell(stream);
  }

  async #tell(stream: Duplex): Promise<void> {
    try {
      for await (const chunk of stream.iterator({ destroyOnReturn: false })) {
        await this.#carriage.send({ output: chunk as Buffer });
      }
    } catch {
      // Broken off: how the command is says the engine.
    }
    try {
      const { isRunning, exitCode } = await this.#options.execs.inspect(this.#execId);
      await this.#carriage.send({ over: { is_running: isRunning, exit_code: exitCode } });
    } catch (error) {
      await this.#carriage.send(failureReport(error));
    }
  }

  async #input(bytes: Buffer): Promise<void> {
    const stream = this.#stream;
    if (stream === undefined || stream.destroyed || stream.writableEnded || stream.write(bytes)) return;
    await drained(stream);
  }

  async #resize(height: number, width: number): Promise<void> {
    if (height === 0 || width === 0) return;
    for (let attempt = 1; attempt <= resizeAttempts; attempt += 1) {
      try {
        return await this.#options.execs.resize(this.#execId, height, width);
      } catch (error) {
        this.#options.log.debug({ reason: messageOf(error) }, 'a terminal keeps its size');
        await delay(this.#options.clock, resizeAgainMs);
      }
    }
  }
}
