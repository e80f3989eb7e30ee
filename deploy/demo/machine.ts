/** What the demo needs of this machine: an engine (one that runs, or one started for the demo) and an image. */
import { execFileSync, spawn } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { realClock } from '../../cli/runtime.ts';
import { ShoalError } from '../../proto/errors.ts';
import { delay } from '../../proto/ports.ts';
import type { Stage } from './stage.ts';

export const repositoryRoot = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
/** Everything that the demo writes is below it. */
export const demoFolder = process.env.SHOAL_DEMO_FOLDER ?? '/tmp/shoal-demo';
export const imageName = 'shoal-demo';

export interface DemoEngine {
  readonly kind: 'docker' | 'simulated';
  /** Value of shoald's --engine. */
  readonly flag: string;
  /** Whether it was started for the demo. */
  readonly own: boolean;
  /** Ends what was started for the demo, and removes the images that it built. */
  release(): Promise<void>;
}

/** Engines that live in the daemons' memory: nothing is needed and nothing is left. */
export function simulatedEngine(): DemoEngine {
  return { kind: 'simulated', flag: 'simulated', own: false, release: async () => {} };
}

/** Waits until `probe` holds; rejects after `boundMs` with what was waited for. */
export async function until(
  what: string,
  boundMs: number,
  probe: () => Promise<boolean> | boolean,
): Promise<void> {
  const end = realClock.monotonicMs() + boundMs;
  for (;;) {
    if (await probe()) return;
    if (realClock.monotonicMs() > end)
      throw new ShoalError('timeout', `waited ${boundMs / 1000} s for ${what}`);
    await delay(realClock, 50);
  }
}

/** An engine that takes longer is taken for hung. */
const engineTimeoutMs = 60_000;

function docker(socket: string, ...args: string[]): string {
  return execFileSync('docker', ['-H', `unix://${socket}`, ...args], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: engineTimeoutMs,
    env: { ...process.env, DOCKER_BUILDKIT: '0' },
  });
}

function answers(socket: string): boolean {
  try {
    docker(socket, 'version', '--format', '{{.Server.Version}}');
    return true;
  } catch {
    return false;
  }
}

/** The engine of this machine, with the demo's images built on it. */
export async function findEngine(stage: Stage): Promise<DemoEngine> {
  const standard = '/var/run/docker.sock';
  const own = answers(standard) ? undefined : await startEngine(stage);
  const socket = own?.socket ?? standard;
  await stage.step('build the demo’s images (busybox and one page)', async () => buildImages(socket));
  return {
    kind: 'docker',
    flag: `unix://${socket}`,
    own: own !== undefined,
    release: async () => {
      try {
        removeContainers(socket);
      } catch (error) {
        // An engine of the demo's own takes its containers with it, even when it hangs.
        if (!own) throw error;
      }
      for (const tag of ['1', '2']) removeImage(socket, `${imageName}:${tag}`);
      await own?.stop();
    },
  };
}

/** Containers and networks of daemons that the demo killed for good: nobody is left who would end them. */
function removeContainers(socket: string): void {
  const filters = ['1', '2'].flatMap((tag) => ['--filter', `ancestor=${imageName}:${tag}`]);
  const containers = docker(socket, 'ps', '-aq', ...filters)
    .split('\n')
    .filter(Boolean);
  if (containers.length > 0) docker(socket, 'rm', '-f', ...containers);
  const networks = docker(
    socket,
    'network',
    'ls',
    '-q',
    '--filter',
    'label=shoal.network.id',
    '--filter',
    'name=^app_',
  );
  for (const network of networks.split('\n').filter(Boolean)) docker(socket, 'network', 'rm', network);
}

function removeImage(socket: string, image: string): void {
  try {
    docker(socket, 'image', 'rm', '-f', image);
  } catch {
    // it was never built, or someone else uses it
  }
}

function buildImages(socket: string): string {
  const context = join(demoFolder, 'image');
  mkdirSync(join(context, 'bin'), { recursive: true });
  mkdirSync(join(context, 'www'), { recursive: true });
  const busybox = ['/bin/busybox', '/usr/bin/busybox'].find((path) => existsSync(path));
  if (!busybox)
    throw new ShoalError(
      'failed-precondition',
      'busybox is missing. Type: sudo apt-get install busybox-static',
    );
  cpSync(busybox, join(context, 'bin', 'busybox'), { dereference: true });
  for (const applet of ['sh', 'httpd', 'wget', 'sleep', 'echo', 'cat', 'hostname']) {
    rmSync(join(context, 'bin', applet), { force: true });
    symlinkSync('busybox', join(context, 'bin', applet));
  }
  cpSync(join(repositoryRoot, 'deploy', 'demo', 'Dockerfile'), join(context, 'Dockerfile'));
  for (const version of ['1', '2']) {
    writeFileSync(join(context, 'www', 'index.html'), `Shoal demo, version ${version}\n`);
    docker(socket, 'build', '-q', '-t', `${imageName}:${version}`, context);
  }
  return `${imageName}:1 and :2`;
}

interface OwnEngine {
  readonly socket: string;
  stop(): Promise<void>;
}

const engineFolder = join(demoFolder, 'engine');
const pidFile = join(engineFolder, 'pid');
/** What of the network there was before the engine, so that what came with it can be taken away. */
const beforeFile = join(demoFolder, 'before.json');

interface NetworkState {
  readonly links: string[];
  readonly tables: string[];
  readonly forwarding: string;
}

function networkState(): NetworkState {
  const lines = (command: string, ...args: string[]): string[] => {
    try {
      return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
        .split('\n')
        .filter(Boolean);
    } catch {
      return [];
    }
  };
  return {
    links: lines('ip', '-br', 'link').map((line) => line.split(/[\s@]/)[0]!),
    tables: lines('nft', 'list', 'tables'),
    forwarding: readFileSync('/proc/sys/net/ipv4/ip_forward', 'utf8'),
  };
}

/** Starts an engine for the demo alone: none runs. Its traces are taken away when it stops. */
async function startEngine(stage: Stage): Promise<OwnEngine> {
  if (process.getuid?.() !== 0) {
    throw new ShoalError(
      'permission-denied',
      'no Docker Engine answers at /var/run/docker.sock, and starting one needs root.\nType: sudo npm run demo\nOr, without root and without an engine: npm run demo -- --simulate',
    );
  }
  const socket = join(engineFolder, 'docker.sock');
  await stage.step('start a Docker Engine, for none runs here', async () => {
    mkdirSync(engineFolder, { recursive: true });
    writeFileSync(beforeFile, JSON.stringify(networkState()));
    const log = openSync(join(engineFolder, 'log'), 'a');
    const folders = ['--data-root', join(engineFolder, 'data'), '--exec-root', join(engineFolder, 'exec')];
    const args = ['-H', `unix://${socket}`, ...folders, '--pidfile', pidFile];
    spawn('dockerd', args, { stdio: ['ignore', log, log], detached: true }).unref();
    await until(`the engine (its log is ${join(engineFolder, 'log')})`, 30_000, () => answers(socket));
  });
  return { socket, stop: stopOwnEngine };
}

/** Whether the process runs; one that has ended and was not yet waited for does not. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

/** Ends what an engine that hung left: its own processes, known by its folder, and their mounts. */
function killEngineProcesses(): void {
  for (const entry of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      if (readFileSync(`/proc/${entry}/cmdline`, 'utf8').includes(engineFolder))
        process.kill(Number(entry), 'SIGKILL');
    } catch {
      // it ended by itself
    }
  }
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((path) => path.startsWith(`${demoFolder}/`));
  for (const path of mounts.reverse()) run('umount', '-l', path);
}

/** Runs a command whose failing means that there was nothing to do. */
function run(command: string, ...args: string[]): void {
  try {
    execFileSync(command, args, { stdio: 'ignore' });
  } catch {
    // it went by itself
  }
}

/** Ends the engine that was started for the demo, if one was, and what came with it. */
export async function stopOwnEngine(): Promise<void> {
  if (!existsSync(pidFile) || !existsSync(beforeFile)) return;
  const pid = Number(readFileSync(pidFile, 'utf8'));
  const before = JSON.parse(readFileSync(beforeFile, 'utf8')) as NetworkState;
  if (isAlive(pid)) process.kill(pid, 'SIGTERM');
  await until('the engine to stop', 20_000, () => !isAlive(pid)).catch(() => undefined);
  killEngineProcesses();
  const after = networkState();
  for (const link of after.links) if (!before.links.includes(link)) run('ip', 'link', 'del', link);
  for (const table of after.tables)
    if (!before.tables.includes(table)) run('nft', 'delete', ...table.split(' '));
  writeFileSync('/proc/sys/net/ipv4/ip_forward', before.forwarding);
}
