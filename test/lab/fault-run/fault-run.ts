/**
 * A run of real faults: five hosts in the lab, three managers and two workers, each with its own engine and disk;
 * clients and an operator at work, faults all the while. Then everything is put right, and it has to come to rest as
 * asked, with every history linearizable and nothing lost that was acknowledged.
 */
import type { Config, Service } from '../../../proto/docker.ts';
import { idle } from '../asking.ts';
import { clientOf, containersOn, isReady, nodesSeenBy, runningTasks, tasksOf } from '../cluster.ts';
import { Lab, type LabHost, waitFor } from '../lab.ts';
import { Daemons } from './daemons.ts';
import { HostDisks } from './disks.ts';
import { Load } from './load.ts';
import { Nemesis } from './nemesis.ts';

const hosts = 5;
const managers = 3;
const service = 'web';
const convergenceMs = 180_000;
const answerMs = 30_000;
const noAnswer = new Error(`no answer in ${answerMs} ms`);

export interface FaultRunOptions {
  readonly labName: string;
  readonly faultsMs: number;
  readonly clients: number;
  readonly gapMs: number;
  readonly lastsMs: number;
  readonly tell: (words: string) => void;
}

export interface FaultRunReport {
  readonly seconds: number;
  /** What was wrong, in words; empty when all held. */
  readonly violations: readonly string[];
  readonly faults: Readonly<Record<string, number>>;
  readonly operations: number;
  readonly acknowledged: number;
  readonly requests: Load['counts'];
  /** Managers that refused their damaged log and joined anew, with what they said. */
  readonly rejoined: readonly string[];
  /** Faults that could not be done or put right at once. */
  readonly troubles: readonly string[];
  readonly convergedAfterMs: number | undefined;
}

/** Runs it from an empty machine to an empty machine. */
export async function runFaults(options: FaultRunOptions): Promise<FaultRunReport> {
  const { tell } = options;
  const lab = await Lab.up(hosts, options.labName);
  const disks = new HostDisks(lab);
  const daemons = new Daemons(lab);
  try {
    for (const host of lab.hosts) await disks.add(host, host === lab.host(managers));
    await form(lab, daemons);
    const first = lab.host(1);
    await first.shoal(
      'service',
      'create',
      '--detach',
      '--name',
      service,
      '--replicas',
      '4',
      '--restart-delay',
      '500ms',
      ...idle,
    );
    await waitFor(
      'the first tasks to run',
      60_000,
      async () => (await runningTasks(first, service)).length === 4,
    );
    tell(`the cluster stands; clocks ${daemons.canStepClocks ? 'can' : 'cannot'} be stepped`);
    const nemesis = new Nemesis({ ...options, lab, disks, daemons, managers });
    const managersOf = (): LabHost[] => lab.hosts.slice(0, managers);
    const load = new Load(managersOf);
    const watch = new Watch(() => nemesis.calm.filter((host) => managersOf().includes(host)), tell);
    const began = performance.now();
    await load.start(options.clients);
    watch.start();
    nemesis.start();
    await pause(options.faultsMs);
    tell('everything is put right');
    await nemesis.stop();
    const healed = performance.now();
    await load.stop();
    await watch.stop();
    const violations = [...watch.violations];
    const unfit = await converged(lab).then(
      () => undefined,
      (error: Error) => error.message,
    );
    if (unfit !== undefined) violations.push(unfit);
    const convergedAfterMs = unfit === undefined ? Math.round(performance.now() - healed) : undefined;
    violations.push(...(await lostOrWrong(lab, load)));
    return {
      seconds: Math.round((healed - began) / 1000),
      violations,
      faults: nemesis.counts,
      operations: load.operations,
      acknowledged: load.acknowledged,
      requests: load.counts,
      rejoined: daemons.rejoined,
      troubles: nemesis.troubles,
      convergedAfterMs,
    };
  } finally {
    await lab.down().finally(() => disks.close());
  }
}

async function form(lab: Lab, daemons: Daemons): Promise<void> {
  await Promise.all(lab.hosts.map((host) => daemons.start(host)));
  const [first, ...others] = lab.hosts;
  await first!.shoal('swarm', 'init', '--advertise-addr', first!.address);
  for (const [at, host] of others.entries()) {
    const { stdout: token } = await first!.shoal(
      'swarm',
      'join-token',
      '-q',
      at + 1 < managers ? 'manager' : 'worker',
    );
    await host.shoal('swarm', 'join', '--token', token.trim(), `${first!.address}:2377`);
  }
  await waitFor('all nodes to be ready', 60_000, async () => {
    const nodes = await nodesSeenBy(first!);
    return nodes.filter(isReady).length === hosts;
  });
}

/** Every manager answers for itself what the clients' objects are; one that lost something shows here. */
async function lostOrWrong(lab: Lab, load: Load): Promise<string[]> {
  const found = await Promise.all(
    lab.hosts.slice(0, managers).map(async (host) => {
      const configs = await within(answerMs, clientOf(host).get<Config[]>('/configs')).catch(
        (error: Error) => error,
      );
      if (configs instanceof Error) return [`${host.name} tells nothing in the end: ${configs.message}`];
      const names = new Set(configs.map(({ Spec }) => Spec.Name));
      return load.faults(names).map((fault) => `on ${host.name}: ${fault}`);
    }),
  );
  return found.flat();
}

/** Every node is ready, every slot has one task that runs and one container, and nothing more is anywhere. */
async function converged(lab: Lab): Promise<void> {
  const witness = lab.host(1);
  await waitFor('everything to run as asked', convergenceMs, async () => {
    const nodes = await within(answerMs, nodesSeenBy(witness));
    const unfit = nodes.filter((node) => !isReady(node) || node.Status.Message);
    const names = unfit.map(
      (node) => `${node.Description.Hostname} is ${node.Status.State} ${node.Status.Message ?? ''}`,
    );
    if (names.length > 0) throw new Error(names.join(', '));
    const { Spec } = await clientOf(witness).get<Service>(`/services/${service}`);
    const replicas = Spec.Mode.Replicated?.Replicas ?? 0;
    const running = await runningTasks(witness, service);
    const slots = new Set(running.map((task) => task.Slot));
    const known = running.map((task) => task.Status.ContainerStatus?.ContainerID ?? '').sort();
    const there = (await Promise.all(lab.hosts.map(containersOn))).flat().sort();
    if (slots.size === replicas && known.join() === there.join()) return true;
    throw new Error(
      `${replicas} wanted, ${running.length} run in ${slots.size} slots, ${there.length} containers`,
    );
  });
}

/** The operator, who scales and updates the service, and someone who looks that no slot has two tasks. */
class Watch {
  readonly violations: string[] = [];
  readonly #hosts: () => readonly LabHost[];
  readonly #tell: (words: string) => void;
  #isOver = false;
  #running: Promise<unknown>[] = [];

  constructor(hosts: () => readonly LabHost[], tell: (words: string) => void) {
    this.#hosts = hosts;
    this.#tell = tell;
  }

  start(): void {
    this.#running = [this.#operate(), this.#look()];
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#running);
  }

  async #operate(): Promise<void> {
    for (let turn = 1; !this.#isOver; turn += 1) {
      for (let left = 8_000; left > 0 && !this.#isOver; left -= 250) await pause(250);
      const host = this.#hosts()[0];
      if (host === undefined || this.#isOver) continue;
      const change =
        turn % 3 === 0
          ? ['--env-add', `TURN=${turn}`]
          : ['--replicas', String(2 + Math.floor(Math.random() * 5))];
      const said = await host.shoal('service', 'update', '--detach', ...change, service).then(
        () => 'done',
        (error: Error) => error.message.split('\n').at(-2) ?? error.message,
      );
      this.#tell(`operator at ${host.name}: ${change.join(' ')}: ${said}`);
    }
  }

  async #look(): Promise<void> {
    while (!this.#isOver) {
      await pause(1_500);
      for (const host of this.#hosts()) {
        const tasks = await within(answerMs, tasksOf(host, service)).catch((error: Error) => {
          // A host that was well all the while owes an answer, if only a refusal.
          if (error === noAnswer && this.#hosts().includes(host)) this.#tell(`${host.name} does not answer`);
          return [];
        });
        const ends = ['complete', 'shutdown', 'failed', 'rejected', 'remove', 'orphaned'];
        const wanted = tasks.filter(
          (task) => task.DesiredState === 'running' && !ends.includes(task.Status.State),
        );
        const slots = new Map<number | undefined, string[]>();
        for (const { Slot, ID } of wanted) slots.set(Slot, [...(slots.get(Slot) ?? []), ID]);
        for (const [slot, ids] of slots) {
          if (ids.length < 2) continue;
          const words = `slot ${slot} has the tasks ${ids.join(', ')}, as ${host.name} shows`;
          this.#tell(words);
          this.violations.push(words);
        }
      }
    }
  }
}

function within<T>(boundMs: number, work: Promise<T>): Promise<T> {
  return Promise.race([work, pause(boundMs).then(() => Promise.reject(noAnswer))]);
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
