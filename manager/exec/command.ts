/** Commands in tasks, in plain terms: what the API asks of ExecBoard. */
import type { ShoalError } from '../../proto/errors.ts';
import type { ExecCommand } from '../../proto/exec-command.ts';
import type { NodeId, TaskId } from '../../proto/ids.ts';

/** A running task and where it is. */
export interface ExecTask {
  readonly id: TaskId;
  readonly nodeId: NodeId;
  /** For messages. */
  readonly nodeName: string;
}

export interface ExecFacts {
  readonly task: ExecTask;
  readonly command: ExecCommand;
  readonly containerId: string;
  /** It was started and has not been seen to end. */
  readonly isRunning: boolean;
  /** Undefined until it has ended. */
  readonly exitCode: number | undefined;
  /** Why the way to it broke off; empty when it did not. */
  readonly problem: string;
}

/** Where a command's output goes: the engine's own stream, in Docker's frames unless there is a terminal. */
export interface ExecOutput {
  /** Resolves when more can be taken. */
  write(bytes: Uint8Array): Promise<void>;
  end(error: ShoalError | undefined): void;
}

/** A command that was started. */
export interface ExecHandle {
  /** Resolves when it has ended, or goes on without this connection; rejects when the way to it broke off. */
  readonly over: Promise<void>;
  /** Resolves when more can be taken. */
  input(bytes: Uint8Array): Promise<void>;
  endInput(): void;
  /** The client is gone. Nothing is sent any more; the command is left to itself. */
  close(): void;
}

/** Commands in tasks of the cluster, wherever they run. */
export interface TaskCommands {
  has(id: string): boolean;
  make(task: ExecTask, command: ExecCommand): Promise<string>;
  start(id: string, output: ExecOutput, options: { readonly detach: boolean }): Promise<ExecHandle>;
  resize(id: string, height: number, width: number): Promise<void>;
  facts(id: string): ExecFacts;
}
