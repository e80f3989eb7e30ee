/** Daemons of this process on ports of this machine, with simulated engines, over real TLS and disks. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SimulatedEngine } from '../../agent/engine/simulated.ts';
import { Daemon } from '../../cli/daemon.ts';
import { realClock, realRandom } from '../../cli/runtime.ts';
import type { ManagedCluster } from '../../manager/api/contract.ts';
import { type Clock, silentLog } from '../../proto/ports.ts';

/** Each daemon has an engine of its own. */
export class Hosts {
  #folder: string | undefined;
  readonly running = new Map<number, Daemon>();
  readonly failures: unknown[] = [];

  get folder(): string {
    this.#folder ??= mkdtempSync(join(tmpdir(), 'shoal-daemons-'));
    return this.#folder;
  }

  async start(port: number, clock: Clock = realClock): Promise<Daemon> {
    const daemon = new Daemon({
      dataDir: this.dataDir(port),
      runDir: join(this.folder, `${port}-run`),
      listenAddress: `127.0.0.1:${port}`,
      advertiseAddress: undefined,
      hostname: `host-${port}`,
      engine: new SimulatedEngine({ clock: realClock, random: realRandom, engineId: `engine-${port}` }),
      clock,
      random: realRandom,
      log: silentLog,
      onFatal: (error) => this.failures.push(error),
    });
    await daemon.start();
    this.running.set(port, daemon);
    return daemon;
  }

  dataDir(port: number): string {
    return join(this.folder, String(port));
  }

  raftFolder(port: number): string {
    return join(this.dataDir(port), 'raft');
  }

  async stop(port: number): Promise<void> {
    const daemon = this.running.get(port);
    this.running.delete(port);
    await daemon?.stop();
  }

  async close(): Promise<void> {
    for (const port of [...this.running.keys()]) await this.stop(port);
    if (this.#folder) rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** The cluster that a manager has; throws where the node is none. */
export function clusterOf(daemon: Daemon): ManagedCluster {
  const membership = daemon.membership();
  if (membership.kind !== 'manager') throw new Error(`it is no manager: ${JSON.stringify(membership)}`);
  return membership.cluster;
}
