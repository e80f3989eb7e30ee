/**
 * Commands in tasks that clients of this manager asked for, whoever leads. In: a client's command, the agent that dials in
 * to carry it out. Out: the command's own bytes both ways, no faster than they are taken, and how it ended. It knows no
 * engine and reads no byte. What it remembers is gone with the manager; commands go on, as an engine leaves them.
 */
import { type ErrorCode, errorTable, isShoalError, ShoalError } from '../../proto/errors.ts';
import type { ExecCommand } from '../../proto/exec-command.ts';
import type { ExecOrder } from '../../proto/generated/shoal/v1/ExecOrder.ts';
import type { ExecReport__Output as ExecReport } from '../../proto/generated/shoal/v1/ExecReport.ts';
import type { NodeId } from '../../proto/ids.ts';
import type { Clock, Random, Timer } from '../../proto/ports.ts';
import type { Sink } from '../../proto/rpc-stream.ts';
import type { ExecFacts, ExecHandle, ExecOutput, ExecTask, TaskCommands } from './command.ts';

/** An agent that was summoned has this long to come and make the command. */
const makeTimeoutMs = 10_000;
/** A command that nobody starts, or asks about after its end, is forgotten. */
const keepMs = 60_000;

export interface ExecBoardOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** Has the node's agent dial this manager; see Summons.summon. */
  readonly summon: (nodeId: NodeId, execId: string) => Promise<void>;
}

/** A promise and how it is settled. */
class Outcome<T> {
  resolve: (value: T) => void = () => {};
  reject: (error: unknown) => void = () => {};
  readonly promise: Promise<T>;

  constructor() {
    this.promise = new Promise<T>((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    // Whether anybody waits for it is theirs to decide.
    this.promise.catch(() => undefined);
  }
}

interface Entry {
  readonly id: string;
  readonly task: ExecTask;
  readonly command: ExecCommand;
  readonly made: Outcome<string>;
  readonly started: Outcome<void>;
  readonly over: Outcome<void>;
  state: 'awaited' | 'made' | 'started' | 'over';
  containerId: string;
  carrier: Sink<ExecOrder> | undefined;
  output: ExecOutput | undefined;
  isRunning: boolean;
  exitCode: number | undefined;
  problem: string;
  timer: Timer | undefined;
}

export class ExecBoard implements TaskCommands {
  private readonly options: ExecBoardOptions;
  private readonly entries = new Map<string, Entry>();

  constructor(options: ExecBoardOptions) {
    this.options = options;
  }

  /** Ends every connection; nothing is told of commands any more. */
  stop(): void {
    const error = new ShoalError('unavailable', 'this manager stops: the command goes on by itself');
    for (const entry of [...this.entries.values()]) this.forget(entry, error);
  }

  /** Whether the command is one of this manager's. */
  has(id: string): boolean {
    return this.entries.has(id);
  }

  /** Makes a command in a task's container, not started yet; answers its id. Throws why it can't be. */
  async make(task: ExecTask, command: ExecCommand): Promise<string> {
    const entry: Entry = {
      id: Buffer.from(this.options.random.bytes(32)).toString('hex'),
      task,
      command,
      made: new Outcome(),
      started: new Outcome(),
      over: new Outcome(),
      state: 'awaited',
      containerId: '',
      carrier: undefined,
      output: undefined,
      isRunning: false,
      exitCode: undefined,
      problem: '',
      timer: undefined,
    };
    this.entries.set(entry.id, entry);
    entry.timer = this.options.clock.after(makeTimeoutMs, () =>
      entry.made.reject(
        new ShoalError('timeout', `node ${task.nodeName} did not answer within ${makeTimeoutMs / 1000} s`),
      ),
    );
    try {
      await this.options.summon(task.nodeId, entry.id);
      entry.containerId = await entry.made.promise;
    } catch (error) {
      this.forget(entry, error);
      throw error;
    }
    this.keep(entry);
    return entry.id;
  }

  /**
   * Starts a command that was made. Its output goes to `output`, which is ended when there is no more. Throws
   * 'conflict' when it has been started before, and what the engine refuses.
   */
  async start(id: string, output: ExecOutput, options: { readonly detach: boolean }): Promise<ExecHandle> {
    const entry = this.get(id);
    if (entry.state !== 'made' || entry.carrier === undefined)
      throw new ShoalError('conflict', `exec ${id} has been started before`);
    entry.timer?.cancel();
    entry.state = 'started';
    entry.output = output;
    const { carrier } = entry;
    await carrier.send({ start: { detach: options.detach } });
    await entry.started.promise;
    return {
      over: entry.over.promise,
      input: (bytes) => carrier.send({ input: Buffer.from(bytes) }),
      endInput: () => void carrier.send({ input_end: {} }).catch(() => undefined),
      close: () => this.leave(entry),
    };
  }

  /** Tells a command the size of its terminal, in characters. */
  async resize(id: string, height: number, width: number): Promise<void> {
    const entry = this.get(id);
    if (entry.state !== 'started' || entry.carrier === undefined)
      throw new ShoalError('conflict', `exec ${id} is not running`);
    await entry.carrier.send({ size: { height, width } });
  }

  /** What is known of a command. */
  facts(id: string): ExecFacts {
    const { task, command, containerId, isRunning, exitCode, problem } = this.get(id);
    return { task, command, containerId, isRunning, exitCode, problem };
  }

  /** Serves one agent's stream until it ends. Throws 'not-found' for a command that it was not summoned for. */
  async carry(nodeId: NodeId, reports: AsyncIterable<ExecReport>, sink: Sink<ExecOrder>): Promise<void> {
    let entry: Entry | undefined;
    try {
      for await (const report of reports) {
        if (entry === undefined) {
          entry = this.admit(nodeId, report, sink);
          await sink.send({ make: makeOrder(entry) });
        } else if (await this.take(entry, report)) break;
      }
      if (entry !== undefined) this.end(entry, brokenOff(entry));
    } catch (error) {
      if (entry === undefined) throw error;
      this.end(entry, isShoalError(error) ? error : brokenOff(entry));
    }
  }

  private admit(nodeId: NodeId, report: ExecReport, sink: Sink<ExecOrder>): Entry {
    const entry = this.entries.get(report.hello ?? '');
    if (entry?.state !== 'awaited' || entry.task.nodeId !== nodeId || entry.carrier !== undefined)
      throw new ShoalError('not-found', 'nobody asked this node for such a command');
    entry.carrier = sink;
    return entry;
  }

  /** Answers whether it was the last report. */
  private async take(entry: Entry, report: ExecReport): Promise<boolean> {
    switch (report.report) {
      case 'made':
        entry.state = 'made';
        entry.made.resolve(report.made?.container_id ?? '');
        return false;
      case 'started':
        entry.isRunning = true;
        entry.started.resolve();
        return false;
      case 'output':
        if (report.output) await entry.output?.write(report.output);
        return false;
      case 'over':
        entry.isRunning = report.over?.is_running === true;
        entry.exitCode = entry.isRunning ? undefined : (report.over?.exit_code ?? 0);
        this.end(entry, undefined);
        return true;
      case 'failure':
        this.end(entry, failureOf(report));
        return true;
      default:
        // Of a newer agent's: what this manager does not know it does not need.
        return false;
    }
  }

  /** Nothing more is heard of the command; the first call counts. */
  private end(entry: Entry, error: ShoalError | undefined): void {
    if (entry.state === 'over') return;
    entry.state = 'over';
    if (error) {
      entry.isRunning = false;
      entry.problem = error.message;
      entry.made.reject(error);
      entry.started.reject(error);
      entry.over.reject(error);
    } else {
      entry.over.resolve();
    }
    entry.output?.end(error);
    entry.carrier?.end();
    this.keep(entry);
  }

  /** The client is gone: the command is left to itself. */
  private leave(entry: Entry): void {
    if (entry.state === 'over') return;
    const isRunning = entry.isRunning;
    this.end(entry, new ShoalError('unavailable', 'the client hung up'));
    entry.isRunning = isRunning;
  }

  private keep(entry: Entry): void {
    entry.timer?.cancel();
    if (!this.entries.has(entry.id)) return;
    entry.timer = this.options.clock.after(keepMs, () =>
      this.forget(entry, new ShoalError('timeout', 'the command was not started in time')),
    );
  }

  private forget(entry: Entry, error: unknown): void {
    this.entries.delete(entry.id);
    this.end(entry, isShoalError(error) ? error : brokenOff(entry));
    entry.timer?.cancel();
  }

  private get(id: string): Entry {
    const entry = this.entries.get(id);
    if (entry === undefined) throw new ShoalError('not-found', `No such exec instance: ${id}`);
    return entry;
  }
}

function makeOrder({ task, command }: Entry): NonNullable<ExecOrder['make']> {
  return {
    task_id: task.id,
    command: [...command.command],
    env: [...command.env],
    user: command.user,
    working_dir: command.workingDir,
    tty: command.tty,
    stdin: command.stdin,
    stdout: command.stdout,
    stderr: command.stderr,
    detach_keys: command.detachKeys,
    privileged: command.privileged,
  };
}

function failureOf({ failure }: ExecReport): ShoalError {
  const code = failure?.code ?? '';
  const known = Object.hasOwn(errorTable, code) ? (code as ErrorCode) : 'internal';
  return new ShoalError(known, failure?.message ?? 'the agent gave no reason');
}

function brokenOff({ task }: Entry): ShoalError {
  return new ShoalError(
    'unavailable',
    `the connection to node ${task.nodeName} broke off: the command may go on there`,
  );
}
