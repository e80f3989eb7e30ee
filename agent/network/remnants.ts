/**
 * Remnants of networks that an engine was killed over: it remembers the bridge of one and not the network, shows it nowhere,
 * lets nobody remove it, and refuses every network with that bridge or its subnet. It takes up what it remembers when it
 * starts, except where an interface of the bridge's name is no bridge. So such an interface takes the bridge's place until
 * the engine was started anew; then it makes way for the network. What it remembers stays in its own files whatever is
 * done, so it is noted on disk, and told to whoever makes the node leave. In: the engine's refusals. It touches no bridge
 * that a network of the engine has.
 */
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { isShoalError, messageOf } from '../../proto/errors.ts';
import type { Clock, Log } from '../../proto/ports.ts';
import { mendEngineChains } from './engine-chains.ts';
import type { Kernel } from './kernel.ts';
import { holderAlias } from './links.ts';
import { remnantDetail } from './plan.ts';

/** Nothing says that the engine was started anew; to try and find that it was not costs an interface made and removed. */
const tryAgainMs = 30_000;
/** A kind of interface that a node with networks between hosts has, on a port where nobody listens: it is never up. */
const unusedPort = '9';
const isInTheWay = /existing interface (shoal\d+) is not a bridge/;

export class Remnants {
  readonly #kernel: Kernel;
  readonly #clock: Clock;
  readonly #log: Log;
  /** Bridge → when the interface took its place; what an earlier life put there is not among them. */
  readonly #heldSince = new Map<string, number>();
  /** Bridges that the engine was found to remember since the node joined. */
  #known: readonly string[] = [];
  readonly #folder: string;

  /** `folder`: where they are noted, <data-dir>/agent. */
  constructor(options: {
    readonly kernel: Kernel;
    readonly clock: Clock;
    readonly log: Log;
    readonly folder: string;
  }) {
    this.#kernel = options.kernel;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#folder = options.folder;
  }

  /** Takes up what the last life noted. Throws when the file is there and can't be read. */
  async load(): Promise<void> {
    try {
      this.#known = JSON.parse(await readFile(this.#file, 'utf8')) as string[];
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }

  /** The node leaves: forgets them, and resolves with what the host is left with, in words. */
  async leave(): Promise<string[]> {
    const left = this.#known.map(
      (bridge) =>
        `the engine was once killed while it made a network, and makes its bridge ${bridge} again each time it starts; "ip link delete ${bridge}" takes it away until then`,
    );
    this.#known = [];
    await rm(this.#file, { force: true });
    return left;
  }

  /** Does what can be done about a refusal, be it for a remnant or for want of a chain. Whether the engine may be asked again at once. */
  async mend(refusal: unknown): Promise<boolean> {
    const remnant = isShoalError(refusal) ? refusal.details?.[remnantDetail] : undefined;
    if (remnant !== undefined) {
      await this.#hold(remnant);
      return false;
    }
    const [, held] = isInTheWay.exec(messageOf(refusal)) ?? [];
    if (held !== undefined) return this.#makeWay(held);
    return mendEngineChains(this.#kernel, messageOf(refusal), this.#log);
  }

  get #file(): string {
    return join(this.#folder, 'engine-remnants.json');
  }

  async #note(bridge: string): Promise<void> {
    if (this.#known.includes(bridge)) return;
    this.#known = [...this.#known, bridge];
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    await writeFile(`${this.#file}.new`, JSON.stringify(this.#known), { mode: 0o600 });
    await rename(`${this.#file}.new`, this.#file);
  }

  async #hold(bridge: string): Promise<void> {
    await this.#note(bridge);
    this.#heldSince.set(bridge, this.#clock.monotonicMs());
    await this.#kernel.run('ip', ['link', 'delete', bridge]).catch(() => {}); // It may be gone already.
    const id = bridge.replace(/\D/g, '');
    await this.#kernel.run('ip', ['link', 'add', bridge, 'type', 'vxlan', 'id', id, 'dstport', unusedPort]);
    await this.#kernel.run('ip', ['link', 'set', bridge, 'alias', holderAlias]);
    this.#log.warn(
      { bridge },
      'the engine remembers the bridge of a network that it does not have: it is kept from taking it up at its next start',
    );
  }

  async #makeWay(bridge: string): Promise<boolean> {
    const sinceMs = this.#heldSince.get(bridge);
    if (sinceMs !== undefined && this.#clock.monotonicMs() - sinceMs < tryAgainMs) return false;
    const listing = await this.#kernel.run('ip', ['-details', 'link', 'show', bridge]);
    if (!listing.includes(`alias ${holderAlias}`)) return false;
    await this.#kernel.run('ip', ['link', 'delete', bridge]);
    return true;
  }
}

/** `refusal` of the network of that name, in words for whoever looks after the node. */
export function wordsOfRefusal(name: string, refusal: unknown): string {
  const words = messageOf(refusal);
  const isRemnant = isShoalError(refusal) && refusal.details?.[remnantDetail] !== undefined;
  return isRemnant || isInTheWay.test(words)
    ? `network ${name}: the engine was killed while it made a network, remembers its bridge and has not got it: start the engine anew, the network is made then (${words})`
    : `network ${name}: ${words}`;
}
