/**
 * Hears when somebody else changes what the kernel holds for our networks: flushes the firewall, loads it anew, takes
 * interfaces or routes away. In: what `nft monitor` and `ip monitor` print. Out: the word that it is to be looked at. Of
 * changes that come one after the other each look waits twice as long as the one before, up to the data plane's own
 * period: a host whose firewall changes all the time costs no more than without. What has no event (settings, neighbours,
 * the iptables of old kernels) is for the period to find.
 */
import type { Clock, Log, Timer } from '../../proto/ports.ts';
import type { Kernel } from './kernel.ts';

/** One command of a person is several changes. */
const gatherMs = 100;
const firstWaitMs = 1_000;
const lastWaitMs = 30_000;
const firstRetryMs = 1_000;
const lastRetryMs = 60_000;
/** The kernel keeps so many characters of a program's name. */
const nameLength = 15;

const generation = /^# new generation \d+ by process \d+ \((.*)\)$/;
const deletedLink = /^Deleted \d+: (?:vx\d+|shwg\d|shoal\d+)[:@]/;
const changedVxlan = /^\d+: vx\d+[:@].* <([^>]*)>(.*)$/;
const deletedAddress = /^Deleted (?:local )?(?!fe80:|multicast|broadcast)\S+ dev shoal\d+ /;

/** Who changed rules, as the kernel knows the program, when `line` of `nft monitor` says it; else undefined. */
export function changerOf(line: string): string | undefined {
  return generation.exec(line)?.[1];
}

/** Whether `line` of `ip -o monitor link route` tells of something of ours that went, or no longer does what it is for. */
export function isLoss(line: string): boolean {
  if (deletedLink.test(line) || deletedAddress.test(line)) return true;
  const [, flags = '', rest = ''] = changedVxlan.exec(line) ?? [];
  return flags !== '' && (!flags.split(',').includes('UP') || !/ master shoal\d+ /.test(rest));
}

export interface KernelWatchOptions {
  readonly kernel: Kernel;
  readonly clock: Clock;
  readonly log: Log;
  /** Somebody else may have changed what is ours. */
  readonly onChange: () => void;
}

export class KernelWatch {
  readonly #options: KernelWatchOptions;
  readonly #ends = new Set<() => void>();
  readonly #retries = new Set<Timer>();
  /** Changes of rules since the last look, by the program's name; ours among them. */
  #changes = new Map<string, number>();
  #ownBefore: ReadonlyMap<string, number> = new Map();
  #hasLost = false;
  #timer: Timer | undefined;
  #lookedAtMs = Number.NEGATIVE_INFINITY;
  #waitMs = 0;
  #isStopped = false;

  constructor(options: KernelWatchOptions) {
    this.#options = options;
  }

  start(): void {
    this.#follow('nft', ['monitor'], (line) => {
      const name = changerOf(line);
      if (name === undefined) return;
      this.#changes.set(name, (this.#changes.get(name) ?? 0) + 1);
      this.#soon();
    });
    this.#follow('ip', ['-o', 'monitor', 'link', 'route'], (line) => {
      if (!isLoss(line)) return;
      this.#hasLost = true;
      this.#soon();
    });
  }

  stop(): void {
    this.#isStopped = true;
    this.#timer?.cancel();
    for (const retry of this.#retries) retry.cancel();
    for (const end of [...this.#ends]) end();
  }

  #follow(tool: 'nft' | 'ip', parameters: readonly string[], onLine: (line: string) => void): void {
    const { kernel, clock, log } = this.#options;
    let retryMs = firstRetryMs;
    const begin = (): void => {
      const begunAtMs = clock.monotonicMs();
      const end = kernel.follow(tool, parameters, onLine, (reason) => {
        this.#ends.delete(end);
        if (this.#isStopped) return;
        log.debug({ reason }, 'changes of the kernel’s network are not heard of for a moment');
        if (clock.monotonicMs() - begunAtMs > lastRetryMs) retryMs = firstRetryMs;
        const retry = clock.after(retryMs, () => {
          this.#retries.delete(retry);
          begin();
          // What happened meanwhile was not heard.
          this.#hasLost = true;
          this.#soon();
        });
        this.#retries.add(retry);
        retryMs = Math.min(retryMs * 2, lastRetryMs);
      });
      this.#ends.add(end);
    };
    begin();
  }

  #soon(): void {
    if (this.#timer !== undefined || this.#isStopped) return;
    const sinceMs = this.#options.clock.monotonicMs() - this.#lookedAtMs;
    this.#timer = this.#options.clock.after(Math.max(gatherMs, this.#waitMs - sinceMs), () => {
      this.#timer = undefined;
      if (this.#isForeign()) this.#look();
    });
  }

  /** More changes than we made ourselves: each of our runs is one, or several, which costs a look too many. */
  #isForeign(): boolean {
    const own = new Map(
      [...this.#options.kernel.changes].map(([tool, count]) => [tool.slice(0, nameLength), count]),
    );
    const isForeign =
      this.#hasLost ||
      [...this.#changes].some(
        ([name, count]) => count > (own.get(name) ?? 0) - (this.#ownBefore.get(name) ?? 0),
      );
    this.#ownBefore = own;
    this.#changes = new Map();
    this.#hasLost = false;
    return isForeign;
  }

  #look(): void {
    const now = this.#options.clock.monotonicMs();
    const isQuick = now - this.#lookedAtMs < 2 * this.#waitMs;
    this.#waitMs = isQuick ? Math.min(this.#waitMs * 2, lastWaitMs) : firstWaitMs;
    this.#lookedAtMs = now;
    this.#options.onChange();
  }
}
