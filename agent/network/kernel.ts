/**
 * The kernel's network: the sole place that changes nftables, interfaces, routes, settings and iptables of the host. In:
 * commands that others decided on. Out: what is there, as the tools print it. It decides nothing and keeps nothing.
 * Errors: 'unavailable' with the tool's own words, and the first of the commands.
 */
import { spawn } from 'node:child_process';
import { messageOf, ShoalError } from '../../proto/errors.ts';

export type Tool =
  | 'nft'
  | 'ip'
  | 'bridge'
  | 'iptables'
  | 'ip6tables'
  | 'iptables-restore'
  | 'ip6tables-restore'
  | 'wg'
  | 'wireguard-go'
  | 'sh';

export interface KernelOptions {
  /** Put before every command, e.g. to enter another network namespace. */
  readonly prefix?: readonly string[];
}

const maxOutputBytes = 256 * 1024 * 1024;
const shownCharacters = 300;
/** Between files that are read at once. */
const endOfFile = '== end ==';

export class Kernel {
  readonly #prefix: readonly string[];
  readonly #changes = new Map<Tool, number>();

  constructor(options: KernelOptions = {}) {
    this.#prefix = options.prefix ?? [];
  }

  /** How often each tool was run that changes rules: with something to read. */
  get changes(): ReadonlyMap<Tool, number> {
    return this.#changes;
  }

  /**
   * Tells each line that `tool` prints while it goes on, and once that it ended, with why. The answer ends it, after which
   * nothing more is told. It does not outlive this process for long: it ends with the next line that nobody reads.
   */
  follow(
    tool: Tool,
    parameters: readonly string[],
    onLine: (line: string) => void,
    onEnd: (reason: string) => void,
  ): () => void {
    const [program = '', ...rest] = [...this.#prefix, tool, ...parameters];
    const child = spawn(program, rest, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, LC_ALL: 'C' },
    });
    let isOver = false;
    let errors = '';
    let begun = '';
    const end = (reason: string): void => {
      if (isOver) return;
      isOver = true;
      onEnd(`${tool}: ${reason}`);
    };
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      const lines = `${begun}${chunk}`.split('\n');
      begun = lines.pop() ?? '';
      if (!isOver) for (const line of lines) onLine(line);
    });
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      errors = `${errors}${chunk}`.slice(0, shownCharacters);
    });
    child.on('error', (error) => end(isMissing(error) ? 'the program is not installed' : messageOf(error)));
    child.on('close', (code) => end(`${errors.trim()} (exit ${code})`));
    return () => {
      isOver = true;
      child.kill();
    };
  }

  /** What `tool` prints. `input`: its standard input. */
  run(tool: Tool, parameters: readonly string[], input = ''): Promise<string> {
    const [program = '', ...rest] = [...this.#prefix, tool, ...parameters];
    if (input !== '') this.#changes.set(tool, (this.#changes.get(tool) ?? 0) + 1);
    return new Promise((resolve, reject) => {
      const child = spawn(program, rest, {
        stdio: ['pipe', 'pipe', 'pipe'],
        env: { ...process.env, LC_ALL: 'C' },
      });
      const output: Buffer[] = [];
      const errors: Buffer[] = [];
      let size = 0;
      const refuse = (reason: string) => reject(new ShoalError('unavailable', `${tool}: ${reason}`));
      child.on('error', (error) =>
        refuse(isMissing(error) ? 'the program is not installed' : messageOf(error)),
      );
      child.stdin.on('error', () => {}); // It ended before it read everything: its exit code tells.
      child.stdout.on('data', (chunk: Buffer) => {
        size += chunk.length;
        if (size <= maxOutputBytes) output.push(chunk);
      });
      child.stderr.on('data', (chunk: Buffer) => errors.push(chunk));
      child.on('close', (code) => {
        if (code === 0) resolve(Buffer.concat(output).toString());
        else refuse(`${Buffer.concat(errors).toString().trim().slice(0, shownCharacters)} (exit ${code})`);
      });
      child.stdin.end(input);
    });
  }

  /** Runs `commands` as one transaction of nftables. */
  async nft(commands: readonly string[]): Promise<void> {
    if (commands.length > 0) await this.run('nft', ['-f', '-'], `${commands.join('\n')}\n`);
  }

  /** Runs them in order; one that fails does not keep the rest from running, and is told at the end. */
  async ip(commands: readonly string[]): Promise<void> {
    if (commands.length > 0) await this.run('ip', ['-force', '-batch', '-'], `${commands.join('\n')}\n`);
  }

  /** As `ip`. */
  async bridge(commands: readonly string[]): Promise<void> {
    if (commands.length > 0) await this.run('bridge', ['-force', '-batch', '-'], `${commands.join('\n')}\n`);
  }

  /** Values of kernel settings by their path under /proc/sys; those that are not there are left out. */
  async settings(paths: readonly string[]): Promise<Map<string, string>> {
    if (paths.length === 0) return new Map();
    const script = paths.map((path) => `[ -e /proc/sys/${path} ] && echo "${path} $(cat /proc/sys/${path})"`);
    const output = await this.run('sh', ['-s'], `${script.join('\n')}\ntrue\n`);
    const lines = output.split('\n').filter((line) => line.includes(' '));
    return new Map(
      lines.map((line) => [line.slice(0, line.indexOf(' ')), line.slice(line.indexOf(' ') + 1)]),
    );
  }

  /** Files of /proc/PID/net by name; undefined when there is no such process, or it is not to be seen from here. */
  async processFiles(pid: number, names: readonly string[]): Promise<Map<string, string> | undefined> {
    const folder = `/proc/${Math.trunc(pid)}/net`;
    const script = names.map((name) => `cat ${folder}/${name} 2>/dev/null; echo; echo ${endOfFile}`);
    const output = await this.run('sh', ['-s'], `[ -d ${folder} ] || exit 0\n${script.join('\n')}\n`);
    if (output === '') return undefined;
    const texts = output.split(`\n${endOfFile}\n`);
    return new Map(names.map((name, index) => [name, texts[index] ?? '']));
  }

  async set(settings: ReadonlyMap<string, string>): Promise<void> {
    if (settings.size === 0) return;
    const script = [...settings].map(([path, value]) => `echo ${value} > /proc/sys/${path}`);
    await this.run('sh', ['-e', '-s'], `${script.join('\n')}\n`);
  }
}

function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'ENOENT';
}
