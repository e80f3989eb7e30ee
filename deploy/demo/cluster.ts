/** The demo's five daemons: started, asked, killed and taken down. */
import { execFileSync, spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import colors from 'picocolors';
import { ApiClient } from '../../cli/client.ts';
import type { ListedTask } from '../../cli/commands/tasks.ts';
import { clearRunFolder } from '../../cli/run-folder.ts';
import type { ClusterNode, Service } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import { type DemoEngine, demoFolder, repositoryRoot, stopOwnEngine, until } from './machine.ts';

export const daemonNames = ['manager-1', 'manager-2', 'manager-3', 'worker-1', 'worker-2'] as const;
export type DaemonName = (typeof daemonNames)[number];

const program = (name: string): string => join(repositoryRoot, 'dist', 'cli', `${name}.js`);
const folderOf = (name: DaemonName): string => join(demoFolder, name);
const socketOf = (name: DaemonName): string => join(folderOf(name), 'shoal.sock');

/** What is seen of the cluster at one moment. */
export interface Picture {
  readonly nodes: readonly ClusterNode[];
  readonly services: readonly Service[];
  readonly tasks: readonly ListedTask[];
}

/** Processes whose command line names a daemon's data directory: robust against pids used again. */
function pidsOf(name: DaemonName): number[] {
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').includes(folderOf(name));
      } catch {
        return false; // it ended while we looked
      }
    })
    .map(Number);
}

function isManager(name: DaemonName): boolean {
  return name.startsWith('manager');
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address ? address.port : 0));
    });
  });
}

export class Cluster {
  readonly engine: DemoEngine;
  private readonly ports = new Map<DaemonName, number>();
  doorPort = 0;

  constructor(engine: DemoEngine) {
    this.engine = engine;
  }

  async start(): Promise<void> {
    this.doorPort = await freePort();
    for (const name of daemonNames) this.ports.set(name, await freePort());
    await Promise.all(daemonNames.map((name) => this.startDaemon(name)));
  }

  /** Starts one daemon, also one that was killed, on its old data. */
  async startDaemon(name: DaemonName): Promise<void> {
    mkdirSync(folderOf(name), { recursive: true });
    const log = openSync(join(folderOf(name), 'log'), 'a');
    const address = `127.0.0.1:${this.ports.get(name)}`;
    const flags = {
      '--data-dir': folderOf(name),
      '--host': `unix://${socketOf(name)}`,
      '--listen-addr': address,
      '--advertise-addr': address,
      '--engine': this.engine.flag,
      '--data-plane': 'off',
      '--metrics-addr': '127.0.0.1:0',
      '--name': name,
    };
    const child = spawn(process.execPath, [program('shoald'), ...Object.entries(flags).flat()], {
      stdio: ['ignore', log, log],
      detached: true,
    });
    child.unref();
    closeSync(log);
    const answers = async (): Promise<boolean> => {
      if (child.exitCode !== null)
        throw new ShoalError('internal', `${name} ended; its log is ${folderOf(name)}/log`);
      return this.client(name)
        .get('/info')
        .then(
          () => true,
          () => false,
        );
    };
    await until(`${name} (its log is ${folderOf(name)}/log)`, 20_000, answers);
  }

  /** Kills a daemon as kill -9 does. Its containers are the engine's and stay. */
  async kill(name: DaemonName): Promise<void> {
    for (const pid of pidsOf(name)) process.kill(pid, 'SIGKILL');
    await until(`${name} to end`, 5_000, () => pidsOf(name).length === 0);
  }

  client(name: DaemonName): ApiClient {
    return new ApiClient({ kind: 'unix', path: socketOf(name) });
  }

  address(name: DaemonName): string {
    return `127.0.0.1:${this.ports.get(name)}`;
  }

  /** Runs the shoal command against one of the daemons and answers what it printed. */
  shoal(name: DaemonName, ...args: string[]): string {
    return execFileSync(process.execPath, [program('shoal'), ...args], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        ...process.env,
        SHOAL_HOST: `unix://${socketOf(name)}`,
        NO_COLOR: '1',
        DEMO_PORT: String(this.doorPort),
      },
    });
  }

  /** The cluster as a manager that answers sees it. */
  async picture(): Promise<Picture> {
    for (const name of this.managersUp()) {
      try {
        const client = this.client(name);
        const [nodes, services, tasks] = await Promise.all([
          client.get<ClusterNode[]>('/nodes'),
          client.get<Service[]>('/services'),
          client.get<ListedTask[]>('/tasks'),
        ]);
        return { nodes, services, tasks };
      } catch {
        // the next one may answer
      }
    }
    throw new ShoalError('no-quorum', 'no manager answers');
  }

  managersUp(): DaemonName[] {
    return daemonNames.filter((name) => isManager(name) && pidsOf(name).length > 0);
  }

  /** A manager that is up, for commands. */
  anyManager(): DaemonName {
    const name = this.managersUp()[0];
    if (!name) throw new ShoalError('no-quorum', 'no manager is up');
    return name;
  }

  /** The tail of each daemon's log, for when the demo fails. */
  async explain(): Promise<string> {
    const tails = daemonNames.flatMap((name) => {
      const path = join(folderOf(name), 'log');
      if (!existsSync(path)) return [];
      const lines = readFileSync(path, 'utf8').trimEnd().split('\n').slice(-5);
      return [colors.bold(path), ...lines];
    });
    return tails.join('\n');
  }

  /** Notes what has to be taken down later. */
  async keep(): Promise<void> {
    writeFileSync(
      join(demoFolder, 'kept.json'),
      JSON.stringify({ engine: this.engine.flag, own: this.engine.own }),
    );
  }

  whatToTry(): string {
    const shoal = `npx shoal -H unix://${socketOf(this.anyManager())}`;
    return [
      '',
      colors.bold('It is still up. Try:'),
      `  ${shoal} node ls`,
      `  ${shoal} service ps app_web`,
      `  ${shoal} service scale app_web=12`,
      `  ${shoal} service logs app_worker`,
      ...(this.engine.kind === 'docker'
        ? [
            `  docker -H unix://${socketOf(this.anyManager())} service ls      ${colors.dim('the stock docker command works too')}`,
            `  curl http://127.0.0.1:${this.doorPort}/`,
          ]
        : []),
      `  npm run demo -- --down      ${colors.dim('takes it down')}`,
    ].join('\n');
  }

  /** Ends daemons and containers, and removes networks, images, engine and files. */
  async takeDown(): Promise<void> {
    await takeDownDaemons();
    await this.engine.release();
    rmSync(demoFolder, { recursive: true, force: true });
  }

  /** Takes down what an earlier demo left, because it was kept or killed. */
  static async takeDownLeftovers(): Promise<void> {
    if (!existsSync(demoFolder)) return;
    await takeDownDaemons();
    await stopOwnEngine();
    rmSync(demoFolder, { recursive: true, force: true });
  }
}

/**
 * The stack is removed, every node leaves its cluster, and its daemon ends. The workers leave at once, the managers
 * one after the other: each is let go by those that stay.
 */
async function takeDownDaemons(): Promise<void> {
  const up = daemonNames.filter((name) => pidsOf(name).length > 0);
  const clientOf = (name: DaemonName): ApiClient => new ApiClient({ kind: 'unix', path: socketOf(name) });
  const leave = async (name: DaemonName): Promise<void> => {
    await clientOf(name)
      .post('/swarm/leave', undefined, { force: 'true' })
      .catch(() => undefined);
  };
  const [managers, workers] = [up.filter(isManager), up.filter((name) => !isManager(name))];
  if (managers[0])
    await clientOf(managers[0])
      .delete('/stacks/app')
      .catch(() => undefined);
  await Promise.all(workers.map(leave));
  for (const name of managers) await leave(name);
  for (const name of up) for (const pid of pidsOf(name)) process.kill(pid, 'SIGTERM');
  await until('the daemons to end', 15_000, () => up.every((name) => pidsOf(name).length === 0));
  for (const name of daemonNames) clearRunFolder(folderOf(name));
}
