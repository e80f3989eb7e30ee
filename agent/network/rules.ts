/**
 * The rules of one node, apart from all else of its data plane: a change of endpoints has to stand in the kernel soon,
 * whatever the engine and the interfaces are busy with. In: the desired state. Out: ports held, rules replaced in one
 * transaction; what is not allowed for someone else holds its port. One change at a time; while it is known what stands
 * there, only what changed is worked out, and otherwise the kernel is asked.
 */
import type { Desired } from './desired.ts';
import { HeldPorts, portKey } from './held-ports.ts';
import type { Kernel } from './kernel.ts';
import { parseRuleset, rulesetCommands } from './nftables.ts';
import { ruleChanges } from './reconcile.ts';
import { type RulesetOptions, rulesetOf } from './ruleset.ts';

/** What `nft` prints of all that stands there, in the form in which rules are made here. */
export const listRuleset: readonly string[] = ['-nn', '-s', 'list', 'ruleset'];

export class Rules {
  readonly #kernel: Kernel;
  readonly #options: () => RulesetOptions;
  readonly #ports = new HeldPorts();
  /** The state whose rules stand in the kernel; undefined: not known. */
  #standing: Desired | undefined;
  #refused: ReadonlyMap<string, string> = new Map();
  #last: Promise<unknown> = Promise.resolve();

  constructor(kernel: Kernel, options: () => RulesetOptions) {
    this.#kernel = kernel;
    this.#options = options;
  }

  /** The state whose rules stand in the kernel; undefined: not known. */
  get standing(): Desired | undefined {
    return this.#standing;
  }

  /** Published ports that are someone else's on this host, as `tcp/8080`, and why. */
  get refusedPorts(): ReadonlyMap<string, string> {
    return this.#refused;
  }

  /**
   * Makes the rules those of what `desired` answers when it is this change's turn. `isAsked`: whether the kernel is
   * asked what stands there, whatever is known. Resolves with the state. Rejects with 'unavailable'.
   */
  become(desired: () => Desired, isAsked: boolean): Promise<Desired> {
    const turn = this.#last.then(() => this.#become(desired(), isAsked));
    this.#last = turn.catch(() => {});
    return turn;
  }

  /** Tries the ports again that are someone else's. Whether one is free now: the rules are to be made anew then. */
  retryPorts(): Promise<boolean> {
    const turn = this.#last.then(() => this.#ports.retry());
    this.#last = turn.catch(() => {});
    return turn;
  }

  async #become(desired: Desired, isAsked: boolean): Promise<Desired> {
    this.#refused = new Map(await this.#ports.hold(desired.services.flatMap(({ ports }) => ports)));
    const allowed = this.allowed(desired);
    const standing = isAsked ? undefined : this.#standing;
    const options = this.#options();
    const commands =
      standing === undefined
        ? rulesetCommands(
            parseRuleset(await this.#kernel.run('nft', listRuleset)),
            rulesetOf(allowed, options),
          )
        : ruleChanges(standing, allowed, options);
    this.#standing = undefined;
    await this.#kernel.nft(commands);
    this.#standing = allowed;
    return desired;
  }

  /** `desired` without the ports that are someone else's. */
  allowed(desired: Desired): Desired {
    const isRefused = (port: Parameters<typeof portKey>[0]) => this.#refused.has(portKey(port));
    if (this.#refused.size === 0) return desired;
    const services = desired.services.map((service) =>
      service.ports.some(isRefused)
        ? { ...service, ports: service.ports.filter((port) => !isRefused(port)) }
        : service,
    );
    return { ...desired, services };
  }

  /** The rules stay; the ports are let go of. */
  async stop(): Promise<void> {
    await this.#last;
    this.#ports.stop();
  }
}
