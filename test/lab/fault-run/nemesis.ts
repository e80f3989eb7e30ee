/**
 * What goes wrong in the lab while clients work: processes killed and stopped, hosts without power, ways cut, disks
 * that are full or fail, clocks that jump, engines that die, roles that change. Each fault begins, lasts, and is put
 * right; no host has two at a time.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { clientOf, leaderHost, nodesSeenBy } from '../cluster.ts';
import { type Lab, type LabHost, waitFor } from '../lab.ts';
import { clockFile, type Daemons } from './daemons.ts';
import type { HostDisks } from './disks.ts';

/** Puts right again what it began. */
type Undo = () => Promise<void>;

interface Fault {
  readonly weight: number;
  /** Whether it can be done to this host now. */
  readonly fits?: (host: LabHost) => boolean;
  readonly begin: (host: LabHost) => Promise<Undo>;
}

const atATime = 2;

export interface NemesisOptions {
  readonly lab: Lab;
  readonly disks: HostDisks;
  readonly daemons: Daemons;
  /** The first so many hosts are managers from the beginning, and stay it. */
  readonly managers: number;
  /** Between one fault and the next, and how long one lasts, on average. */
  readonly gapMs: number;
  readonly lastsMs: number;
  readonly tell: (words: string) => void;
}

export class Nemesis {
  readonly counts: Record<string, number> = {};
  /** What could not be done or put right, in words. */
  readonly troubles: string[] = [];
  readonly #options: NemesisOptions;
  readonly #busy = new Set<LabHost>();
  readonly #under = new Set<Promise<void>>();
  #isOver = false;
  #running: Promise<void> | undefined;

  constructor(options: NemesisOptions) {
    this.#options = options;
  }

  /** Hosts without a fault. */
  get calm(): LabHost[] {
    return this.#options.lab.hosts.filter((host) => !this.#busy.has(host));
  }

  start(): void {
    this.#running = this.#run();
  }

  /** No new faults; resolves when all are put right. */
  async stop(): Promise<void> {
    this.#isOver = true;
    await this.#running;
    await Promise.all(this.#under);
    await this.#options.lab.script('heal');
  }

  async #run(): Promise<void> {
    const kinds = this.#kinds();
    // Each kind has its turn before one has its second: a short run, too, has many of them.
    let left: [string, Fault][] = [];
    while (!this.#isOver) {
      await pause(this.#options.gapMs * (0.3 + 1.4 * Math.random()));
      if (this.#isOver || this.#under.size >= atATime) continue;
      if (left.length === 0)
        left = shuffled(Object.entries(kinds).flatMap(([name, one]) => Array(one.weight).fill([name, one])));
      const [name, fault] = left.pop()!;
      const host = pick(this.calm.filter((one) => fault.fits?.(one) ?? true));
      if (host === undefined) continue;
      const work = this.#do(name, fault, host).finally(() => {
        this.#under.delete(work);
      });
      this.#under.add(work);
    }
  }

  async #do(name: string, { begin }: Fault, drawn: LabHost): Promise<void> {
    const { tell, lastsMs } = this.#options;
    const host = name.endsWith('leader') ? ((await this.#leader()) ?? drawn) : drawn;
    if (this.#busy.has(host)) return;
    this.#busy.add(host);
    this.counts[name] = (this.counts[name] ?? 0) + 1;
    try {
      tell(`${host.name}: ${name}`);
      const undo = await begin(host);
      for (let left = lastsMs * (0.3 + 1.4 * Math.random()); left > 0 && !this.#isOver; left -= 200) {
        await pause(200);
      }
      await undo();
      tell(`${host.name}: ${name} put right`);
    } catch (error) {
      const words = `${host.name}: ${name}: ${error instanceof Error ? error.message : String(error)}`;
      tell(words);
      this.troubles.push(words);
    } finally {
      this.#busy.delete(host);
    }
  }

  async #leader(): Promise<LabHost | undefined> {
    for (const witness of this.calm) {
      const leader = await leaderHost(this.#options.lab, witness).catch(() => undefined);
      if (leader) return leader;
    }
    return undefined;
  }

  // ------------------------------------------------------------ the faults

  #kinds(): Record<string, Fault> {
    const { lab, disks, daemons, managers } = this.#options;
    const isManager = (host: LabHost): boolean => lab.hosts.indexOf(host) < managers;
    const canStepClocks = daemons.canStepClocks;
    return {
      kill: { weight: 2, begin: (host) => this.#kill(host) },
      'kill leader': { weight: 2, fits: isManager, begin: (host) => this.#kill(host) },
      'orderly stop': { weight: 1, begin: (host) => this.#kill(host, 'SIGTERM') },
      stopped: { weight: 2, begin: (host) => this.#stopProcess(host) },
      'stopped leader': { weight: 1, fits: isManager, begin: (host) => this.#stopProcess(host) },
      'host frozen': { weight: 1, begin: (host) => this.#scripts(host, 'freeze', 'thaw') },
      'power loss': { weight: 2, begin: (host) => this.#powerLoss(host) },
      'cut off': { weight: 2, begin: (host) => this.#scripts(host, 'partition', 'heal') },
      'cut off leader': {
        weight: 1,
        fits: isManager,
        begin: (host) => this.#scripts(host, 'partition', 'heal'),
      },
      'one-way cut': { weight: 2, fits: isManager, begin: (host) => this.#cutOneWay(host) },
      'full disk': {
        weight: 2,
        // A fragile image takes up all its blocks when it is full, and could not fail (or not be mended) afterwards.
        fits: (host) => isManager(host) && !disks.of(host).isFragile,
        begin: async (host) => {
          await disks.of(host).fill();
          return () => disks.of(host).makeRoom();
        },
      },
      'failing disk': {
        weight: 2,
        fits: (host) => isManager(host) && disks.of(host).isFragile,
        begin: (host) => this.#failDisk(host),
      },
      ...(canStepClocks
        ? { 'clock step': { weight: 2, begin: (host: LabHost) => this.#stepClock(host) } }
        : {}),
      'engine killed': { weight: 1, begin: (host) => this.#scripts(host, 'crash', 'start') },
      'role changed': {
        weight: 1,
        fits: (host) => !isManager(host),
        begin: (host) => this.#changeRole(host),
      },
    };
  }

  async #kill(host: LabHost, signal: NodeJS.Signals = 'SIGKILL'): Promise<Undo> {
    await host.killShoald(signal);
    return () => this.#options.daemons.start(host);
  }

  async #stopProcess(host: LabHost): Promise<Undo> {
    const pids = host.shoaldPids();
    // nsenter, which waits for the daemon, stops with it and would not reap it.
    const parents = pids.map(parentOf);
    for (const pid of pids) process.kill(pid, 'SIGSTOP');
    return async () => {
      for (const pid of [...pids, ...parents]) process.kill(pid, 'SIGCONT');
    };
  }

  async #scripts(host: LabHost, begin: string, undo: string): Promise<Undo> {
    const { lab } = this.#options;
    await lab.script(begin, host.name);
    return async () => {
      await lab.script(undo, host.name);
    };
  }

  async #powerLoss(host: LabHost): Promise<Undo> {
    await host.powerOff();
    return async () => {
      await host.powerOn();
      await this.#options.disks.of(host).mount();
      await this.#options.daemons.start(host);
    };
  }

  async #cutOneWay(host: LabHost): Promise<Undo> {
    const { lab } = this.#options;
    const other = pick(lab.hosts.filter((one) => one !== host && existsSync(one.shoalSocket)));
    const [from, to] = Math.random() < 0.5 ? [host, other ?? host] : [other ?? host, host];
    await lab.script('cut', '--oneway', from.name, to.name);
    return async () => {
      await lab.script('heal', host.name);
      if (other) await lab.script('heal', other.name);
    };
  }

  /** The daemon gives up by itself, or never wrote where the disk fails; then the disk is mended. */
  async #failDisk(host: LabHost): Promise<Undo> {
    const { disks, daemons } = this.#options;
    await disks.of(host).fail();
    return async () => {
      await host.killShoald();
      await disks.of(host).repair();
      await daemons.start(host);
    };
  }

  async #stepClock(host: LabHost): Promise<Undo> {
    const seconds = Math.round((Math.random() * 2 - 1) * 40);
    this.#options.tell(`${host.name}: its clock steps by ${seconds} s`);
    writeFileSync(clockFile(host), `${seconds < 0 ? '' : '+'}${seconds}s`);
    return async () => writeFileSync(clockFile(host), '+0s');
  }

  async #changeRole(host: LabHost): Promise<Undo> {
    const role = async (command: 'promote' | 'demote'): Promise<void> => {
      const witness = pick(this.calm.filter((one) => this.#options.lab.hosts.indexOf(one) < 3));
      if (witness === undefined) return;
      const nodes = await nodesSeenBy(witness);
      const node = nodes.find(({ Description }) => Description.Hostname === host.name);
      if (node) await witness.shoal('node', command, node.ID);
    };
    await role('promote').catch((error: Error) => this.#options.tell(`not promoted: ${error.message}`));
    return () =>
      waitFor(`${host.name} to be a worker again`, 60_000, async () => {
        await role('demote');
        const info = await Promise.race([
          clientOf(host).get<{ Swarm: { ControlAvailable: boolean } }>('/info'),
          pause(10_000).then(() => Promise.reject(new Error(`${host.name} does not answer /info`))),
        ]);
        return !info.Swarm.ControlAvailable;
      }).then(() => undefined);
  }
}

function parentOf(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/^PPid:\s*(\d+)/m.exec(status)?.[1]);
}

function pick<T>(list: readonly T[]): T | undefined {
  return list[Math.floor(Math.random() * list.length)];
}

function shuffled<T>(list: readonly T[]): T[] {
  return list
    .map((item) => ({ item, at: Math.random() }))
    .sort((left, right) => left.at - right.at)
    .map(({ item }) => item);
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
