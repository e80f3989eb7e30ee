/**
 * Commands in simulated containers. A few words are understood: `echo WORDS` prints them, `cat` prints its input until
 * that ends, `exit N` ends with N, anything else is not found (127). It never touches a disk.
 */
import { Duplex } from 'node:stream';
import { ShoalError } from '../../proto/errors.ts';
import type { ExecCommand } from '../../proto/exec-command.ts';
import type { EngineExecs } from './engine.ts';

interface Exec {
  readonly request: ExecCommand;
  stream: Command | undefined;
  isRunning: boolean;
  exitCode: number;
}

export class SimulatedExecs implements EngineExecs {
  /** Sizes that commands were told, oldest first. */
  readonly sizes: { readonly height: number; readonly width: number }[] = [];
  readonly #isRunning: (containerId: string) => Promise<boolean>;
  readonly #execs = new Map<string, Exec>();

  /** `isRunning` throws for a container that is not there. */
  constructor(isRunning: (containerId: string) => Promise<boolean>) {
    this.#isRunning = isRunning;
  }

  /** How many commands were made. */
  get count(): number {
    return this.#execs.size;
  }

  async make(containerId: string, request: ExecCommand): Promise<string> {
    if (!(await this.#isRunning(containerId)))
      throw new ShoalError('already-exists', `Container ${containerId} is not running`);
    const id = `exec-${this.#execs.size + 1}`;
    this.#execs.set(id, { request, stream: undefined, isRunning: false, exitCode: 0 });
    return id;
  }

  async start(execId: string): Promise<Duplex> {
    const exec = this.#exec(execId);
    exec.isRunning = true;
    exec.stream = new Command(exec.request, (exitCode) => {
      exec.isRunning = false;
      exec.exitCode = exitCode;
    });
    return exec.stream;
  }

  async startDetached(execId: string): Promise<void> {
    (await this.start(execId)).resume();
  }

  async resize(execId: string, height: number, width: number): Promise<void> {
    if (!this.#exec(execId).isRunning) throw new ShoalError('invalid-argument', `${execId} does not run`);
    this.sizes.push({ height, width });
  }

  async inspect(execId: string): Promise<{ isRunning: boolean; exitCode: number }> {
    const { isRunning, exitCode } = this.#exec(execId);
    return { isRunning, exitCode };
  }

  #exec(id: string): Exec {
    const exec = this.#execs.get(id);
    if (exec === undefined) throw new ShoalError('not-found', `No such exec instance: ${id}`);
    return exec;
  }
}

/** A command's two ends. Without a terminal its output is in Docker's frames. */
class Command extends Duplex {
  readonly #request: ExecCommand;
  readonly #onEnd: (exitCode: number) => void;

  constructor(request: ExecCommand, onEnd: (exitCode: number) => void) {
    super({ allowHalfOpen: true });
    this.#request = request;
    this.#onEnd = onEnd;
    const [program = '', ...words] = request.command;
    if (program === 'cat' && request.stdin) return;
    if (program === 'echo') this.#print(`${words.join(' ')}\n`);
    const statuses: Record<string, number> = { echo: 0, cat: 0, exit: Number(words[0] ?? 0) };
    this.#finish(statuses[program] ?? 127);
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    if (this.#request.command[0] === 'cat') this.#print(chunk);
    done();
  }

  override _final(done: () => void): void {
    if (this.#request.command[0] === 'cat' && this.#request.stdin) this.#finish(0);
    done();
  }

  #print(data: string | Buffer): void {
    const bytes = Buffer.from(data);
    const head = Buffer.alloc(8);
    head.writeUInt8(1, 0);
    head.writeUInt32BE(bytes.length, 4);
    this.push(this.#request.tty ? bytes : Buffer.concat([head, bytes]));
  }

  #finish(exitCode: number): void {
    this.#onEnd(exitCode);
    this.push(null);
  }
}
