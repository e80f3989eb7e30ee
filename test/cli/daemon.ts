/** A real shoald with simulated containers on loopback, and the client that talks to it. Ended by its pid. */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { clearRunFolder } from '../../cli/run-folder.ts';

const programs = join(dirname(fileURLToPath(import.meta.url)), '..', '..', 'cli');
const startBoundMs = 15_000;
const commandBoundMs = 30_000;

export interface Result {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs one of the two programs to its end; one that does not come to an end is killed, and the test fails. */
export function runProgram(
  name: 'shoal' | 'shoald',
  args: readonly string[],
  options: {
    readonly input?: string;
    readonly env?: Record<string, string>;
    /** Sent once standard error matches. */
    readonly interruptAt?: RegExp;
  } = {},
): Promise<Result> {
  const child = spawn(process.execPath, [join(programs, `${name}.js`), ...args], {
    env: { ...process.env, NO_COLOR: '1', ...options.env },
  });
  let stdout = '';
  let stderr = '';
  let interrupted = false;
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString();
    if (options.interruptAt?.test(stderr) && !interrupted) interrupted = child.kill('SIGINT');
  });
  child.stdin.end(options.input ?? '');
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`${name} ${args.join(' ')} did not end; it said: ${stdout}\n${stderr}`));
    }, commandBoundMs);
    child.on('close', (status) => {
      clearTimeout(timer);
      resolve({ status, stdout, stderr });
    });
  });
}

/** A port of loopback that nobody uses now. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address ? address.port : 0));
    });
  });
}

/** Waits until `probe` answers true; rejects after `boundMs`, with `what`. */
export async function waitFor(
  what: string,
  boundMs: number,
  probe: () => boolean | Promise<boolean>,
): Promise<void> {
  const end = performance.now() + boundMs;
  while (!(await probe())) {
    if (performance.now() > end) throw new Error(`waited ${boundMs} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export class TestDaemon {
  readonly name: string;
  readonly folder: string;
  readonly port: number;
  readonly metricsPort: number;
  private process: ChildProcess | undefined;

  private constructor(name: string, folder: string, port: number, metricsPort: number) {
    this.name = name;
    this.folder = folder;
    this.port = port;
    this.metricsPort = metricsPort;
  }

  /** Makes a folder and starts a daemon in it. */
  static async start(name: string, flags: readonly string[] = []): Promise<TestDaemon> {
    const folder = mkdtempSync(join(tmpdir(), 'shoal-cli-'));
    const daemon = new TestDaemon(name, folder, await freePort(), await freePort());
    await daemon.run(flags);
    return daemon;
  }

  get dataDir(): string {
    return join(this.folder, 'data');
  }

  get socket(): string {
    return join(this.folder, 'shoal.sock');
  }

  get address(): string {
    return `127.0.0.1:${this.port}`;
  }

  /** Everything that it has logged. */
  get log(): string {
    return readFileSync(join(this.folder, 'log'), 'utf8');
  }

  /** The flags it runs with. */
  get flags(): string[] {
    return [
      ...['--data-dir', this.dataDir, '--host', `unix://${this.socket}`, '--engine', 'simulated'],
      ...['--listen-addr', this.address, '--advertise-addr', this.address, '--name', this.name],
      ...['--metrics-addr', `127.0.0.1:${this.metricsPort}`, '--log-level', 'debug'],
    ];
  }

  /** Starts the program (again) and waits for its socket to be served. */
  async run(flags: readonly string[] = []): Promise<void> {
    const log = openSync(join(this.folder, 'log'), 'a');
    const child = spawn(process.execPath, [join(programs, 'shoald.js'), ...this.flags, ...flags], {
      stdio: ['ignore', 'ignore', log],
    });
    closeSync(log);
    this.process = child;
    await waitFor(`${this.name} to serve its API`, startBoundMs, async () => {
      if (child.exitCode !== null) throw new Error(`shoald ended: ${this.log}`);
      return existsSync(this.socket) && (await this.shoal('version')).status === 0;
    });
  }

  /** Ends the process and waits for that. */
  async end(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    const child = this.process;
    this.process = undefined;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill(signal);
    await ended;
  }

  /** Ends the process and removes its folder. */
  async destroy(): Promise<void> {
    await this.end('SIGKILL');
    clearRunFolder(this.dataDir);
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** The client, pointed at this daemon. */
  shoal(...args: string[]): Promise<Result> {
    return runProgram('shoal', ['-H', `unix://${this.socket}`, ...args]);
  }

  /** The same, interrupted as by Ctrl-C once it has told what `at` matches. */
  shoalUntil(at: RegExp, ...args: string[]): Promise<Result> {
    return runProgram('shoal', ['-H', `unix://${this.socket}`, ...args], { interruptAt: at });
  }

  /** The same, with something on standard input. */
  shoalWith(input: string, ...args: string[]): Promise<Result> {
    return runProgram('shoal', ['-H', `unix://${this.socket}`, ...args], { input });
  }

  /** Standard output, without space around it, of a command that has to succeed. */
  async out(...args: string[]): Promise<string> {
    const { status, stdout, stderr } = await this.shoal(...args);
    if (status !== 0) throw new Error(`shoal ${args.join(' ')} ended with ${status}: ${stdout}\n${stderr}`);
    return stdout.trim();
  }
}
