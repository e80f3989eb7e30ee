/** The acts of the demo, in order. Each waits for what it promises, and fails when it does not come. */
import { readFileSync } from 'node:fs';
import { get } from 'node:http';
import { join } from 'node:path';
import colors from 'picocolors';
import type { ListedTask } from '../../cli/commands/tasks.ts';
import { realClock } from '../../cli/runtime.ts';
import type { Service } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import type { Timer } from '../../proto/ports.ts';
import { isTerminal } from '../../proto/task-state.ts';
import { type Cluster, type DaemonName, daemonNames, type Picture } from './cluster.ts';
import { imageName, repositoryRoot, until } from './machine.ts';
import type { Stage } from './stage.ts';

const composePath = join(repositoryRoot, 'deploy', 'demo', 'compose.yml');

/** Plays the whole of it. */
export async function play(cluster: Cluster, stage: Stage): Promise<void> {
  const watch = new Watch(cluster);
  try {
    await formCluster(cluster, stage, watch);
    await deploy(cluster, stage, watch);
    await scale(cluster, stage, watch);
    await loseLeader(cluster, stage, watch);
    await loseWorker(cluster, stage, watch);
    await update(cluster, stage, watch);
  } finally {
    watch.stop();
  }
}

/** Looks at the cluster a few times a second, so that pictures can be drawn at any moment. */
class Watch {
  private readonly cluster: Cluster;
  private timer: Timer | undefined;
  private stopped = false;
  latest: Picture | undefined;

  constructor(cluster: Cluster) {
    this.cluster = cluster;
  }

  start(): void {
    const look = async (): Promise<void> => {
      this.latest = await this.cluster.picture().catch(() => this.latest);
      if (!this.stopped) this.timer = realClock.after(100, () => void look());
    };
    void look();
  }

  stop(): void {
    this.stopped = true;
    this.timer?.cancel();
  }

  /** The nodes, each with its tasks as blocks. */
  draw = (): string => {
    const picture = this.latest;
    if (!picture) return '';
    const names = new Map<string, string>(picture.services.map((service) => [service.ID, service.Spec.Name]));
    const rows = [...picture.nodes]
      .sort((a, b) => a.Description.Hostname.localeCompare(b.Description.Hostname))
      .map((node) => {
        const state =
          node.Status.State === 'ready' ? colors.green('ready') : colors.red(node.Status.State.padEnd(5));
        const role = node.ManagerStatus?.Leader
          ? colors.yellow('leader ')
          : node.ManagerStatus
            ? 'manager'
            : 'worker ';
        const tasks = picture.tasks.filter((task) => task.NodeID === node.ID && isShown(task));
        return `  ${(node.Description.Hostname || '(joining)').padEnd(10)} ${role} ${state}  ${drawTasks(tasks, names)}`;
      });
    const waiting = picture.tasks.filter((task) => !task.NodeID && isShown(task));
    if (waiting.length > 0) rows.push(`  ${'waiting'.padEnd(25)}${drawTasks(waiting, names)}`);
    return rows.join('\n');
  };

  /** Resolves once the picture satisfies `holds`. */
  async until(what: string, boundMs: number, holds: (picture: Picture) => boolean): Promise<void> {
    await until(what, boundMs, () => this.latest !== undefined && holds(this.latest));
  }
}

function isShown(task: ListedTask): boolean {
  return task.DesiredState === 'running' || task.DesiredState === 'ready' || !isTerminal(task.Status.State);
}

function drawTasks(tasks: readonly ListedTask[], names: ReadonlyMap<string, string>): string {
  const groups = new Map<string, string[]>();
  const sorted = [...tasks].sort((a, b) => (a.Slot ?? 0) - (b.Slot ?? 0));
  for (const task of sorted) {
    const name = (names.get(task.ServiceID) ?? '?').replace(/^app_/, '');
    groups.set(name, [...(groups.get(name) ?? []), block(task)]);
  }
  return [...groups]
    .sort((a, b) => a[0].localeCompare(b[0]))
    .map(([name, blocks]) => `${colors.dim(name)} ${blocks.join('')}`)
    .join('  ');
}

function block(task: ListedTask): string {
  const isNew = task.Spec.ContainerSpec.Image.startsWith(`${imageName}:2`);
  if (isTerminal(task.Status.State)) return colors.red('×');
  if (task.DesiredState === 'shutdown' || task.DesiredState === 'remove') return colors.dim('▪');
  if (task.Status.State !== 'running') return colors.yellow('□');
  return isNew ? colors.magenta('■') : colors.green('■');
}

function serviceOf(picture: Picture, name: string): Service | undefined {
  return picture.services.find((service) => service.Spec.Name === name);
}

function runningTasks(picture: Picture, name: string): ListedTask[] {
  const service = serviceOf(picture, name);
  const down = new Set(
    picture.nodes.filter((node) => node.Status.State !== 'ready').map((node) => node.ID as string),
  );
  return picture.tasks.filter(
    (task) =>
      task.ServiceID === service?.ID &&
      task.DesiredState === 'running' &&
      task.Status.State === 'running' &&
      !down.has(task.NodeID ?? ''),
  );
}

function allRunning(picture: Picture): boolean {
  return (
    picture.services.length === 3 &&
    picture.services.every(
      (service) => runningTasks(picture, service.Spec.Name).length === service.Spec.Mode.Replicated?.Replicas,
    )
  );
}

async function formCluster(cluster: Cluster, stage: Stage, watch: Watch): Promise<void> {
  stage.title('Shoal', 'Five daemons on this machine become one cluster: three managers, two workers.');
  await stage.step('start five daemons', () => cluster.start());
  await stage.step(
    'shoal swarm init, and join with the tokens it prints',
    async () => {
      cluster.shoal('manager-1', 'swarm', 'init', '--advertise-addr', cluster.address('manager-1'));
      watch.start();
      for (const name of daemonNames.slice(1)) {
        const role = name.startsWith('manager') ? 'manager' : 'worker';
        const token = cluster.shoal('manager-1', 'swarm', 'join-token', '-q', role).trim();
        await cluster
          .client(name)
          .post('/swarm/join', { RemoteAddrs: [cluster.address('manager-1')], JoinToken: token });
      }
      await watch.until('five nodes to be ready and three managers reachable', 20_000, (picture) => {
        const ready = picture.nodes.filter((node) => node.Status.State === 'ready');
        const managers = ready.filter((node) => node.ManagerStatus?.Reachability === 'reachable');
        return ready.length === daemonNames.length && managers.length === 3;
      });
    },
    watch.draw,
  );
}

async function deploy(cluster: Cluster, stage: Stage, watch: Watch): Promise<void> {
  stage.line(`\n${colors.dim(readFileSync(composePath, 'utf8').split('\n')[0]!.replace('# ', ''))}`);
  await stage.step(
    'shoal stack deploy -c compose.yml app',
    async () => {
      cluster.shoal('manager-2', 'stack', 'deploy', '--detach', '-c', composePath, 'app');
      await watch.until('the stack to run', 40_000, allRunning);
      return `${watch.latest?.tasks.filter((task) => task.Status.State === 'running').length} tasks running`;
    },
    watch.draw,
  );
  if (cluster.engine.kind === 'docker') {
    await stage.step(`GET http://127.0.0.1:${cluster.doorPort}/`, () => fetchPage(cluster.doorPort));
    await stage.step('worker finds web by its name', () => workerIsServed(cluster));
  }
}

function fetchPage(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    get({ host: '127.0.0.1', port, path: '/' }, (response) => {
      let text = '';
      response.on('data', (chunk) => {
        text += chunk;
      });
      response.on('end', () => resolve(text.trim()));
    }).on('error', reject);
  });
}

async function workerIsServed(cluster: Cluster): Promise<string> {
  let served = 0;
  await until('a line "served" in the logs of app_worker', 20_000, () => {
    const lines = cluster.shoal('manager-1', 'service', 'logs', '--tail', '20', 'app_worker').split('\n');
    served = lines.filter((line) => line.includes('served')).length;
    return served > 0;
  });
  return 'served';
}

async function scale(cluster: Cluster, stage: Stage, watch: Watch): Promise<void> {
  await stage.step(
    'shoal service scale app_web=10',
    async () => {
      cluster.shoal('manager-3', 'service', 'scale', '--detach', 'app_web=10');
      await watch.until(
        'ten tasks of app_web',
        40_000,
        (picture) => runningTasks(picture, 'app_web').length === 10,
      );
      return '10 of 10 running';
    },
    watch.draw,
  );
}

function leaderName(picture: Picture | undefined): DaemonName | undefined {
  const leader = picture?.nodes.find((node) => node.ManagerStatus?.Leader)?.Description.Hostname;
  return daemonNames.find((name) => name === leader);
}

async function loseLeader(cluster: Cluster, stage: Stage, watch: Watch): Promise<void> {
  const leader = leaderName(watch.latest);
  if (!leader) throw new ShoalError('internal', 'no node is shown as the leader');
  const containers = (picture: Picture | undefined): string =>
    (picture?.tasks ?? [])
      .filter((task) => task.Status.State === 'running')
      .map((task) => task.Status.ContainerStatus?.ContainerID ?? '')
      .sort()
      .join();
  const before = containers(watch.latest);
  let next: DaemonName | undefined;
  await stage.step(
    `kill -9 the leader’s daemon (${leader})`,
    async () => {
      await cluster.kill(leader);
      await watch.until('a new leader', 15_000, (picture) => {
        next = leaderName(picture);
        return next !== undefined && next !== leader;
      });
      return `${next} leads`;
    },
    watch.draw,
  );
  await stage.step(
    `start ${leader} again`,
    async () => {
      await cluster.startDaemon(leader);
      await watch.until('all nodes to be ready again', 20_000, (picture) =>
        picture.nodes.every((node) => node.Status.State === 'ready'),
      );
      await watch.until('every task to run', 30_000, allRunning);
      return containers(watch.latest) === before
        ? 'not one container was touched'
        : 'some tasks had been moved meanwhile';
    },
    watch.draw,
  );
}

async function loseWorker(cluster: Cluster, stage: Stage, watch: Watch): Promise<void> {
  await stage.step(
    'lose worker-2 for good',
    async () => {
      await cluster.kill('worker-2');
      await watch.until('worker-2 to be seen down', 15_000, (picture) =>
        picture.nodes.some(
          (node) => node.Description.Hostname === 'worker-2' && node.Status.State === 'down',
        ),
      );
      await watch.until('its tasks to run elsewhere', 30_000, allRunning);
      return 'its tasks run elsewhere';
    },
    watch.draw,
  );
}

async function update(cluster: Cluster, stage: Stage, watch: Watch): Promise<void> {
  await stage.step(
    `shoal service update --image ${imageName}:2 app_web (three at a time, start first)`,
    async () => {
      cluster.shoal(
        cluster.anyManager(),
        'service',
        'update',
        '--detach',
        '--image',
        `${imageName}:2`,
        'app_web',
      );
      await watch.until('the update to complete', 90_000, (picture) => {
        const state = serviceOf(picture, 'app_web')?.UpdateStatus?.State;
        if (state === 'paused' || state?.startsWith('rollback')) {
          throw new ShoalError('failed-precondition', `the update did not go through: ${state}`);
        }
        const updated = runningTasks(picture, 'app_web').filter((task) =>
          task.Spec.ContainerSpec.Image.startsWith(`${imageName}:2`),
        );
        return state === 'completed' && updated.length === 10;
      });
      return 'all ten replaced';
    },
    watch.draw,
  );
}
