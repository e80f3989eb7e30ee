/**
 * One round of a node's data plane after the other: the engine's bridges, the rules, then interfaces, routes and settings
 * towards what is desired, and what is known of the kernel in between, so that a round that follows a change of endpoints
 * alone asks nobody. In: what is desired, and each reason to look anew. Out: the kernel as it is to be, or why it is not.
 * When a round comes is not its matter, nor what is made of its problems.
 */
import { isShoalError, messageOf } from '../../proto/errors.ts';
import type { Clock, Log } from '../../proto/ports.ts';
import { applyOperations, readActual, readBesideRules } from './apply.ts';
import type { Desired, DesiredNetwork } from './desired.ts';
import { mendEngineChains } from './engine-chains.ts';
import type { Kernel } from './kernel.ts';
import type { Keyring } from './keyring.ts';
import { linksOf } from './links.ts';
import { PriorSettings } from './prior-settings.ts';
import type { Problem } from './ready-networks.ts';
import {
  type Actual,
  hasNoOther,
  hostSettingsOf,
  type PlanOptions,
  planBesideRules,
  settingsOf,
  withOrphans,
} from './reconcile.ts';
import { Remnants, wordsOfRefusal } from './remnants.ts';
import type { Rules } from './rules.ts';
import { tunnelsOf } from './tunnel.ts';

/** What is known is looked at anew after that, whatever happens. */
export const periodMs = 30_000;
/** Chains that the engine needs for one network are fewer. */
const maxMended = 8;

/** The engine's networks, one for each of ours. */
export interface EngineNetworks {
  /** Makes sure of the engine's network for `network`; resolves with its name. */
  ensureOverlay(network: DesiredNetwork): Promise<string>;
  /**
   * Removes the engine's networks of ours that are not among `ids` and that no container uses. Resolves with the bridges
   * of those that it has then.
   */
  pruneOverlays(ids: ReadonlySet<string>): Promise<ReadonlySet<string>>;
}

type BesideRules = Omit<Actual, 'ruleset'>;

export interface RoundOptions {
  readonly kernel: Kernel;
  readonly networks: EngineNetworks;
  readonly clock: Clock;
  readonly log: Log;
  /** Where it is noted how the host was, and what its engine remembers. */
  readonly folder: string;
}

/** What a round has to do with beside the kernel. */
export interface RoundParts {
  readonly rules: Pick<Rules, 'allowed'>;
  readonly keyring: Keyring | undefined;
  readonly planOptions: () => PlanOptions;
}

/** What a round is to bring about. */
export interface RoundTask {
  readonly desired: Desired;
  /** Makes the rules those of the newest state. `isAsked`: whether the kernel is asked what stands there. */
  readonly becomeRules: (isAsked: boolean) => Promise<void>;
  /** Nothing follows it: what was changed for the networks is undone, whatever the engine still has. */
  readonly isLast: boolean;
}

export class Round {
  readonly #options: RoundOptions;
  readonly #parts: RoundParts;
  readonly #prior: PriorSettings;
  readonly #remnants: Remnants;
  /** Network id → the engine's name for it. */
  readonly #engineNames = new Map<string, string>();
  /** What the kernel holds beside rules, as far as is known; undefined: it has to be looked at. */
  #assumed: BesideRules | undefined;
  /** Rises with each reason to look anew, for one may come while a round is under way. */
  #doubts = 0;
  /** Bridges of the engine's networks of ours; undefined: it has not said. */
  #engineBridges: ReadonlySet<string> | undefined;
  /** Bridges that were there at the last look. */
  #present: ReadonlySet<string> = new Set();
  /** The engine may have been started anew, or something failed. */
  #areRulesDoubted = true;
  #rulesLookedAtMs = Number.NEGATIVE_INFINITY;
  #lookedAtMs = Number.NEGATIVE_INFINITY;

  constructor(options: RoundOptions, parts: RoundParts) {
    this.#options = options;
    this.#parts = parts;
    this.#prior = new PriorSettings(options.folder);
    this.#remnants = new Remnants(options);
  }

  /** Takes up what an earlier life noted of the host. */
  async load(): Promise<void> {
    await this.#prior.load();
    await this.#remnants.load();
  }

  /** Nothing follows: resolves with what the host is left with all the same, in words. */
  leave(): Promise<string[]> {
    return this.#remnants.leave();
  }

  /** Network id → the engine's name for it, of those that it has. */
  get engineNames(): ReadonlyMap<string, string> {
    return this.#engineNames;
  }

  /** Bridges that were there at the last look. */
  get present(): ReadonlySet<string> {
    return this.#present;
  }

  /** What is known of interfaces and bridges may not be so any more. */
  doubt(): void {
    this.#assumed = undefined;
    this.#doubts += 1;
  }

  /** What is known of rules may not be so any more. */
  doubtRules(): void {
    this.#areRulesDoubted = true;
  }

  /** One round; resolves with what could not be done. Rounds must not overlap. */
  async run({ desired, becomeRules, isLast }: RoundTask): Promise<Problem[]> {
    const { kernel, clock } = this.#options;
    const doubts = this.#doubts;
    const problems: Problem[] = [];
    const attempt = async (what: () => Promise<void>): Promise<void> => {
      try {
        await what();
      } catch (error) {
        problems.push({ message: messageOf(error) });
      }
    };
    const isDue = (lastMs: number) => clock.monotonicMs() - lastMs >= periodMs;
    const areRulesAsked = this.#areRulesDoubted || isDue(this.#rulesLookedAtMs);
    if (areRulesAsked) this.#rulesLookedAtMs = clock.monotonicMs();
    this.#areRulesDoubted = false;
    if (isDue(this.#lookedAtMs)) this.#assumed = undefined;
    if (this.#assumed === undefined) {
      this.#lookedAtMs = clock.monotonicMs();
      this.#engineBridges = undefined;
      await attempt(async () => {
        const paths = hostSettingsOf(desired).keys();
        await this.#prior.noteBefore(paths, (unknown) => kernel.settings(unknown));
        await this.#bridges(desired, problems);
      });
    }
    await attempt(() => becomeRules(areRulesAsked));
    await attempt(() => this.#besideRules(desired, doubts, isLast));
    return problems;
  }

  /** What stands here now, rules included. */
  async look(desired: Desired): Promise<Actual> {
    const found = await readActual(this.#options.kernel, desired, this.#prior.values);
    return withOrphans(found, desired, this.#engineBridges);
  }

  /** Makes what the engine says that it lacks of the host's firewall. Whether there was something: it may be asked again. */
  mendEngine(words: string): Promise<boolean> {
    return mendEngineChains(this.#options.kernel, words, this.#options.log);
  }

  async #besideRules(desired: Desired, doubts: number, isLast: boolean): Promise<void> {
    const { kernel, log } = this.#options;
    const { rules, keyring, planOptions } = this.#parts;
    const allowed = rules.allowed(desired);
    const found = this.#assumed ?? (await readBesideRules(kernel, desired, this.#prior.values));
    const isEngineDone = isLast || hasNoOther(this.#engineBridges, desired);
    const priorSettings = isEngineDone ? this.#prior.values : new Map<string, string>();
    const actual = { ...withOrphans(found, desired, this.#engineBridges), priorSettings };
    this.#present = actual.bridges;
    const operations = planBesideRules(allowed, actual, planOptions());
    this.#assumed = undefined;
    await applyOperations(kernel, operations, keyring);
    if (isEngineDone) await this.#prior.keepOnly(hostSettingsOf(desired));
    if (operations.length > 0) log.debug({ operations: operations.length }, 'data plane reconciled');
    if (doubts === this.#doubts) this.#assumed = this.#resultOf(allowed, actual);
  }

  async #bridges(desired: Desired, problems: Problem[]): Promise<void> {
    const { networks } = this.#options;
    const ids = new Set(desired.networks.map(({ id }) => id));
    for (const id of this.#engineNames.keys()) if (!ids.has(id)) this.#engineNames.delete(id);
    for (const network of desired.networks) {
      try {
        this.#engineNames.set(network.id, await this.#ensured(network));
      } catch (error) {
        const isRefused = !isShoalError(error, 'unavailable');
        problems.push({ networkId: network.id, message: wordsOfRefusal(network.name, error), isRefused });
      }
    }
    this.#engineBridges = await networks.pruneOverlays(ids);
  }

  /** The engine's network for `network`; what the engine lacks for it is made, one thing after the other. */
  async #ensured(network: DesiredNetwork): Promise<string> {
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await this.#options.networks.ensureOverlay(network);
      } catch (error) {
        if (attempt === maxMended || !(await this.#remnants.mend(error))) throw error;
      }
    }
  }

  /** What the kernel holds after a plan for `desired` was executed on `actual` without a fault. */
  #resultOf(allowed: Desired, actual: BesideRules): BesideRules {
    const options = this.#parts.planOptions();
    return {
      ...actual,
      bridges: new Set([...actual.bridges].filter((bridge) => !actual.orphans?.has(bridge))),
      holders: new Set(allowed.networks.length === 0 ? [] : actual.holders),
      links: linksOf(allowed, actual.bridges, options),
      tunnels: tunnelsOf(allowed, options.keys ?? []),
      settings: settingsOf(allowed, actual.bridges),
      hairpins: new Map([...actual.hairpins].map(([port]) => [port, true])),
      priorSettings: this.#prior.values,
      firewalls: {},
    };
  }
}
