/**
 * The daemons of a fault run: each with a clock of its own that can be stepped, where libfaketime is installed (the
 * kernel has one wall clock for all), and brought back as an operator would: a manager whose log is refused as damaged
 * joins anew, and its old node is taken out.
 */
import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { nodesSeenBy } from '../cluster.ts';
import { type Lab, type LabHost, waitFor } from '../lab.ts';

/** libfaketime; undefined where it is not installed. */
export const library = ['x86_64-linux-gnu', 'aarch64-linux-gnu']
  .map((triplet) => `/usr/lib/${triplet}/faketime/libfaketime.so.1`)
  .find((path) => existsSync(path));

/** How far the wall clock of the host's daemon is off, in libfaketime's words. */
export function clockFile(host: LabHost): string {
  return join(host.dataDir, '..', 'clock');
}

/** The environment of a daemon whose wall clock is off by what the host's clock file says. */
export function ownClock(host: LabHost): string[] {
  return [
    `LD_PRELOAD=${library}`,
    `FAKETIME_TIMESTAMP_FILE=${clockFile(host)}`,
    'FAKETIME_NO_CACHE=1',
    'FAKETIME_DONT_FAKE_MONOTONIC=1',
  ];
}

export class Daemons {
  /** Why a manager had to join anew, for each time that one had to. */
  readonly rejoined: string[] = [];
  readonly #lab: Lab;

  constructor(lab: Lab) {
    this.#lab = lab;
  }

  get canStepClocks(): boolean {
    return library !== undefined;
  }

  /** Starts the host's daemon; one that refuses its log is made to join anew. */
  async start(host: LabHost): Promise<void> {
    const from = existsSync(host.logPath) ? statSync(host.logPath).size : 0;
    try {
      await this.#launch(host);
    } catch (error) {
      const words = readFileSync(host.logPath, 'utf8').slice(from);
      const damage = /[^\n]*(is damaged|missing or damaged)[^\n]*/.exec(words)?.[0];
      if (damage === undefined) throw error;
      this.rejoined.push(`${host.name}: ${damage.slice(0, 300)}`);
      await this.#joinAnew(host);
    }
  }

  async #launch(host: LabHost): Promise<void> {
    if (!this.canStepClocks) return host.startShoald();
    writeFileSync(clockFile(host), '+0s');
    await host.startShoald({ environment: ownClock(host) });
  }

  async #joinAnew(host: LabHost): Promise<void> {
    await host.killShoald();
    const witness = this.#lab.hosts.find((other) => other !== host)!;
    for (const name of readdirSync(host.dataDir))
      rmSync(join(host.dataDir, name), { recursive: true, force: true });
    await this.#launch(host);
    const old = (await nodesSeenBy(witness)).filter((node) => node.Description.Hostname === host.name);
    const { stdout: token } = await witness.shoal('swarm', 'join-token', '-q', 'manager');
    await host.shoal('swarm', 'join', '--token', token.trim(), `${witness.address}:2377`);
    for (const { ID } of old) {
      await waitFor(`the old node of ${host.name} to be taken out`, 60_000, async () => {
        await witness.shoal('node', 'demote', ID).catch(() => {});
        await witness.shoal('node', 'rm', '--force', ID);
        return true;
      });
    }
  }
}
