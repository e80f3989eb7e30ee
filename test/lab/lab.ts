/**
 * Several hosts on this machine, each with its own address and its own real Docker Engine, as lab.sh makes
 * them, and our daemons on them. Everything that a test starts here is ended by down().
 */
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process';
import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
export const repositoryRoot = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const script = join(repositoryRoot, 'test', 'lab', 'lab.sh');

/** What a command printed. A command that fails rejects with its standard error in the message. */
export interface Output {
  stdout: string;
  stderr: string;
}

/** Why the lab can't run here, in words; undefined when it can. */
export function labMissing(): string | undefined {
  if (process.getuid?.() !== 0) return 'the lab needs root';
  const paths = `${process.env.PATH}:/usr/sbin:/sbin`.split(':');
  const missing = ['dockerd', 'unshare', 'nsenter', 'ip', 'busybox', 'nft', 'iptables', 'curl'].filter(
    (program) => !paths.some((folder) => existsSync(join(folder, program))),
  );
  return missing.length > 0 ? `the lab needs ${missing.join(', ')}` : undefined;
}

/** Waits until `probe` answers something other than undefined or false; rejects after `boundMs`, with `what`. */
export async function waitFor<T>(
  what: string,
  boundMs: number,
  probe: () => Promise<T | undefined | false> | T | undefined | false,
): Promise<T> {
  const end = performance.now() + boundMs;
  let last: unknown = 'nothing yet';
  for (;;) {
    try {
      const answer = await probe();
      if (answer !== undefined && answer !== false) return answer;
    } catch (error) {
      last = error instanceof Error ? error.message : error;
    }
    if (performance.now() > end) throw new Error(`waited ${boundMs} ms for ${what}; last: ${String(last)}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

export interface ShoaldOptions {
  /** Further flags, after those that the lab sets. */
  readonly flags?: readonly string[];
  /** Further environment of the daemon alone, each NAME=VALUE. */
  readonly environment?: readonly string[];
}

/** One host: h1 has address .11, h2 .12, … */
export class LabHost {
  readonly name: string;
  readonly address: string;
  private readonly lab: Lab;
  private daemon: ChildProcess | undefined;

  constructor(lab: Lab, number: number) {
    this.lab = lab;
    this.name = `h${number}`;
    this.address = `10.77.0.${10 + number}`;
  }

  get dockerSocket(): string {
    return `/run/${this.lab.name}/${this.name}/docker.sock`;
  }

  /** Our daemon's API socket; the lab's folder under /run is seen from outside as well. */
  get shoalSocket(): string {
    return `/run/${this.lab.name}/${this.name}/shoal.sock`;
  }

  get dataDir(): string {
    return `/var/lib/${this.lab.name}/${this.name}/shoal`;
  }

  get logPath(): string {
    return `/var/lib/${this.lab.name}/${this.name}/shoald.log`;
  }

  /** Runs a command inside the host, in all of its namespaces. */
  exec(...command: string[]): Promise<Output> {
    return this.lab.script('exec', this.name, ...command);
  }

  /**
   * A stranger here undoes again and again what the node heals, by `command`, until `look` has seen what it waits for: what
   * a node hears of is mended within moments.
   */
  async whileUndoing(command: string, look: () => Promise<void>): Promise<void> {
    const again = `while :; do ${command}; sleep 0.02; done >/dev/null 2>&1 & echo $!`;
    const pid = (await this.exec('sh', '-c', again)).stdout.trim();
    try {
      await look();
    } finally {
      await this.exec('kill', pid);
    }
  }

  /** shoald with all its flags. */
  private shoaldProgram(options: ShoaldOptions): string[] {
    const flags = [
      ['--data-dir', this.dataDir],
      ['--host', `unix://${this.shoalSocket}`],
      ['--listen-addr', `${this.address}:2377`],
      ['--advertise-addr', `${this.address}:2377`],
      ['--engine', `unix://${this.dockerSocket}`],
      ['--metrics-addr', '127.0.0.1:9323'],
    ].flat();
    return [process.execPath, join(repositoryRoot, 'dist/cli/shoald.js'), ...flags, ...(options.flags ?? [])];
  }

  /** Runs shoald where it is expected to refuse to start; resolves when it ends, with its status and words. */
  async shoaldRefuses(): Promise<{ status: number; words: string }> {
    mkdirSync(this.dataDir, { recursive: true });
    try {
      await run(script, ['exec', this.name, ...this.shoaldProgram({})], {
        env: this.lab.environment,
        timeout: 30_000,
      });
      return { status: 0, words: '' };
    } catch (error) {
      const { code, stdout, stderr } = error as { code?: unknown; stdout?: string; stderr?: string };
      if (typeof code !== 'number') throw error;
      return { status: code, words: `${stdout}${stderr}` };
    } finally {
      await this.killShoald();
    }
  }

  /** Starts shoald on the host and waits until its API answers. */
  async startShoald(options: ShoaldOptions = {}): Promise<void> {
    mkdirSync(this.dataDir, { recursive: true });
    rmSync(this.shoalSocket, { force: true });
    const log = openSync(this.logPath, 'a');
    const set = options.environment ? ['env', ...options.environment] : [];
    this.daemon = spawn(script, ['exec', this.name, ...set, ...this.shoaldProgram(options)], {
      env: this.lab.environment,
      stdio: ['ignore', log, log],
      detached: true,
    });
    this.daemon.unref();
    closeSync(log);
    await waitFor(`shoald on ${this.name} (see ${this.logPath})`, 90_000, () => this.apiAnswers());
  }

  private async apiAnswers(): Promise<boolean> {
    const { stdout } = await run('curl', [
      '-s',
      '-m',
      '2',
      '--unix-socket',
      this.shoalSocket,
      'http://x/_ping',
    ]);
    return stdout === 'OK';
  }

  /** Process ids, as seen from outside, of this host's shoald. */
  shoaldPids(): number[] {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .filter((pid) => {
        try {
          const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
          return words[0] === process.execPath && words.includes(this.dataDir);
        } catch {
          return false;
        }
      })
      .map(Number);
  }

  /** Signals the host's shoald and waits until it is gone. */
  async killShoald(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    for (const pid of this.shoaldPids()) process.kill(pid, signal);
    await waitFor(`shoald on ${this.name} to end`, 20_000, () => this.shoaldPids().length === 0);
  }

  /** The shoal command against this host's daemon. */
  shoal(...args: string[]): Promise<Output> {
    return this.client(process.execPath, [join(repositoryRoot, 'dist/cli/shoal.js'), ...args]);
  }

  /** The shoal command with something to read on its standard input. */
  shoalReading(input: string, ...args: string[]): Promise<Output> {
    return this.client(process.execPath, [join(repositoryRoot, 'dist/cli/shoal.js'), ...args], input);
  }

  /** The stock docker CLI against this host's shoald. */
  docker(...args: string[]): Promise<Output> {
    return this.client('docker', ['-H', `unix://${this.shoalSocket}`, ...args]);
  }

  /** The stock docker CLI against this host's shoald, with something to read on its standard input. */
  dockerReading(input: string | Buffer, ...args: string[]): Promise<Output> {
    return this.client('docker', ['-H', `unix://${this.shoalSocket}`, ...args], input);
  }

  /** The stock docker CLI against this host's engine. */
  engine(...args: string[]): Promise<Output> {
    return this.client('docker', ['-H', `unix://${this.dockerSocket}`, ...args]);
  }

  private client(program: string, args: string[], input: string | Buffer = ''): Promise<Output> {
    const env = { ...process.env, SHOAL_HOST: `unix://${this.shoalSocket}`, NO_COLOR: '1' };
    const running = run(program, args, { env, maxBuffer: 64 * 1024 * 1024, timeout: 120_000 });
    // A program that reads nothing may be gone before this is written.
    running.child.stdin?.on('error', () => {});
    running.child.stdin?.end(input);
    return running;
  }

  /** Power loss: the cable first, so that no goodbye gets out, then every process at once. */
  async powerOff(): Promise<void> {
    await this.lab.script('kill', this.name);
  }

  /** The host boots again, with its data, its engine and (unless told otherwise) nothing else. */
  async powerOn(): Promise<void> {
    await this.lab.script('start', this.name);
  }
}

/** Ends every lab that a file lists (by default the one of SHOAL_LAB_LIST, if any) and that is still there. */
export function endListedLabs(list = process.env.SHOAL_LAB_LIST): void {
  if (!list || !existsSync(list)) return;
  const names = new Set(readFileSync(list, 'utf8').split('\n').filter(Boolean));
  for (const name of names) {
    if (!existsSync(`/run/${name}`)) continue;
    const options = { env: { ...process.env, LAB_NAME: name }, encoding: 'utf8', timeout: 180_000 } as const;
    const { status, stderr } = spawnSync(script, ['down'], options);
    if (status !== 0) console.error(`the lab ${name} could not be ended: ${stderr}`);
  }
}

/** A running lab. One at a time per name. */
export class Lab {
  readonly name: string;
  readonly hosts: LabHost[];
  readonly environment: NodeJS.ProcessEnv;

  private constructor(name: string, count: number, environment: NodeJS.ProcessEnv) {
    this.name = name;
    this.environment = { ...process.env, ...environment, LAB_NAME: name };
    this.hosts = Array.from({ length: count }, (_, index) => new LabHost(this, index + 1));
  }

  /**
   * Boots `count` hosts with engines, and loads a busybox image named `busybox:lab` into each. The engines have
   * `environment` beside this process' own. SHOAL_LAB_SUFFIX keeps two runs on one machine apart; SHOAL_LAB_LIST names a
   * file that is told the lab's name, for endListedLabs().
   */
  static async up(count: number, name = 'shoal-lab', environment: NodeJS.ProcessEnv = {}): Promise<Lab> {
    const lab = new Lab(`${name}${process.env.SHOAL_LAB_SUFFIX ?? ''}`, count, environment);
    const list = process.env.SHOAL_LAB_LIST;
    if (list) appendFileSync(list, `${lab.name}\n`);
    await lab.script('down');
    await lab.script('up', String(count));
    await lab.script('busybox', 'busybox:lab');
    return lab;
  }

  /** lab.sh, for what is started as a process of its own; with `environment`. */
  get scriptPath(): string {
    return script;
  }

  host(number: number): LabHost {
    const host = this.hosts[number - 1];
    if (!host) throw new Error(`the lab has no host ${number}`);
    return host;
  }

  /** Runs one of lab.sh's commands. */
  script(...args: string[]): Promise<Output> {
    return run(script, args, { env: this.environment, maxBuffer: 64 * 1024 * 1024, timeout: 180_000 });
  }

  /** Ends every process of the lab and removes all of it. */
  async down(): Promise<void> {
    await this.script('down');
  }
}
