/** When the engines of a lab started and ended the containers of a service, so that nothing in between is missed. */
import type { ServiceWhy } from '../../manager/api/why.ts';
import { clientOf } from './cluster.ts';
import type { LabHost } from './lab.ts';

interface Lifetime {
  readonly service: string;
  readonly taskId: string;
  readonly host: LabHost;
  /** ms since the epoch. */
  readonly startedMs: number;
  /** Infinite while it runs. */
  readonly endedMs: number;
}

const serviceLabel = 'com.docker.swarm.service.name';
const taskLabel = 'com.docker.swarm.task.id';

export class Lifetimes {
  readonly #hosts: readonly LabHost[];
  /** Also of containers that have been removed since they were looked at. */
  readonly #known = new Map<string, Lifetime>();

  constructor(hosts: readonly LabHost[]) {
    this.#hosts = hosts;
  }

  /** The present, in ms since the epoch, as all engines of this machine see it. */
  async now(): Promise<number> {
    await this.#look();
    return Date.now();
  }

  /** Begins anew: what has been removed is no more of interest. */
  forget(): void {
    this.#known.clear();
  }

  /** The fewest and the most containers of a service that ran at a time, from `sinceMs` (or the first one) until now. */
  async concurrency(service: string, sinceMs?: number): Promise<{ fewest: number; most: number }> {
    await this.#look();
    return this.#countedAt(service, sinceMs, (one) => one.endedMs);
  }

  /**
   * The most containers of a service that ran at a time and were wanted, by what a manager tells: one that was told to
   * stop, because the next one serves, takes its time for it, and what comes next does not wait for that.
   */
  async mostWanted(manager: LabHost, service: string, sinceMs: number): Promise<number> {
    await this.#look();
    const { Tasks } = await clientOf(manager).get<ServiceWhy>(`/services/${service}/why`);
    const toldMs = new Map<string, number>();
    for (const { ID, Timeline } of Tasks) {
      const told = Timeline.find(
        ({ DesiredState }) => DesiredState === 'shutdown' || DesiredState === 'remove',
      );
      toldMs.set(ID, told ? Date.parse(told.At) : Number.POSITIVE_INFINITY);
    }
    const until = (one: Lifetime) => {
      const told = toldMs.get(one.taskId);
      // What the managers have forgotten had ended before.
      return Math.min(one.endedMs, told ?? one.endedMs);
    };
    return this.#countedAt(service, sinceMs, until).most;
  }

  /** How many there were at each moment at which one came or went. */
  #countedAt(
    service: string,
    sinceMs: number | undefined,
    until: (one: Lifetime) => number,
  ): { fewest: number; most: number } {
    const all = [...this.#known.values()].filter((one) => one.service === service);
    const from = sinceMs ?? Math.min(...all.map((one) => one.startedMs));
    const moments = all.flatMap((one) => [one.startedMs, until(one)]).filter(Number.isFinite);
    const counts = [from, ...moments.filter((at) => at > from)].map(
      (at) => all.filter((one) => one.startedMs <= at && at < until(one)).length,
    );
    return { fewest: Math.min(...counts), most: Math.max(...counts) };
  }

  /** Names of services whose containers run on a host, one for each container, sorted. */
  async runningOn(host: LabHost): Promise<string[]> {
    await this.#look();
    return [...this.#known.values()]
      .filter((one) => one.host === host && one.endedMs === Number.POSITIVE_INFINITY)
      .map((one) => one.service)
      .sort();
  }

  async #look(): Promise<void> {
    await Promise.all(this.#hosts.map((host) => this.#lookAt(host)));
  }

  async #lookAt(host: LabHost): Promise<void> {
    const { stdout: ids } = await host.engine('ps', '-aq', '--no-trunc', '--filter', `label=${serviceLabel}`);
    const there = ids.split('\n').filter(Boolean);
    for (const [id, one] of this.#known) {
      // Removed while it ran: it ended at some moment before this one.
      if (one.host === host && !there.includes(id) && !Number.isFinite(one.endedMs))
        this.#known.set(id, { ...one, endedMs: Date.now() });
    }
    for (const id of there) {
      const format = `{{index .Config.Labels "${serviceLabel}"}} {{index .Config.Labels "${taskLabel}"}} {{.State.Running}} {{.State.StartedAt}} {{.State.FinishedAt}}`;
      const found = await host.engine('inspect', '--format', format, id).catch(() => undefined);
      const [service = '', taskId = '', running, started = '', ended = ''] =
        found?.stdout.trim().split(' ') ?? [];
      const startedMs = Date.parse(started);
      if (!found || !(startedMs > 0)) continue;
      const endedMs = running === 'true' ? Number.POSITIVE_INFINITY : Date.parse(ended);
      this.#known.set(id, { service, taskId, host, startedMs, endedMs });
    }
  }
}
