/**
 * The rules of one node, apart from all else of its data plane: a change of endpoints has to stand in the kernel soon,
 * whatever the engine and the interfaces are busy with. In: the desired state. Out: ports held, rules replaced in one
 * transaction, and a proxy for the ports that rules can't do; what is not allowed for someone else holds its port. One
 * change at a time; while it is known what stands there, only what changed is worked out, and otherwise the kernel is asked.
 */
import type { Clock } from '../../proto/ports.ts';
import type { Desired, PublishedPort } from './desired.ts';
import { dnsPort } from './dns.ts';
import { type KernelFigures, readFigures } from './figures.ts';
import { HeldPorts, portKey } from './held-ports.ts';
import type { Kernel } from './kernel.ts';
import { parseRuleset, rulesetCommands } from './nftables.ts';
import { bothFamilies, isProxied, type ListeningPort, proxiedPortsOfMesh } from './proxied.ts';
import { ruleChanges } from './reconcile.ts';
import { type RulesetOptions, rulesetOf } from './ruleset.ts';
import { TcpProxy } from './tcp-proxy.ts';

/** What `nft` prints of all that stands there, in the form in which rules are made here. */
export const listRuleset: readonly string[] = ['-nn', '-s', 'list', 'ruleset'];

export class Rules {
  readonly #kernel: Kernel;
  readonly #options: () => RulesetOptions;
  readonly #ports = new HeldPorts();
  readonly #proxy: TcpProxy;
  /** The state whose rules stand in the kernel; undefined: not known. */
  #standing: Desired | undefined;
  #refused: ReadonlyMap<string, string> = new Map();
  #last: Promise<unknown> = Promise.resolve();

  constructor(kernel: Kernel, clock: Clock, options: () => RulesetOptions) {
    this.#kernel = kernel;
    this.#proxy = new TcpProxy(clock, bothFamilies);
    this.#options = options;
  }

  /** The state whose rules stand in the kernel; undefined: not known. */
  get standing(): Desired | undefined {
    return this.#standing;
  }

  /** The published ports that the proxy answers. */
  get proxied(): ReadonlyMap<number, ListeningPort> {
    return this.#proxy.listening;
  }

  /** What the kernel counted, and the proxy beside it. */
  async figures(): Promise<KernelFigures> {
    const { connections, drops, ...rest } = await readFigures(this.#kernel);
    const { passedOn, refused } = this.#proxy.figures;
    return {
      ...rest,
      connections: { ...connections, published_port: connections.published_port + passedOn },
      drops: { ...drops, refused: drops.refused + refused },
    };
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
    const turn = this.#last.then(async () => {
      const isOneHeld = await this.#ports.retry();
      return (await this.#proxy.retry()) || isOneHeld;
    });
    this.#last = turn.catch(() => {});
    return turn;
  }

  async #become(desired: Desired, isAsked: boolean): Promise<Desired> {
    this.#refused = await this.#hold(desired);
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

  /** Each published port is the proxy's or held for the rules; resolves with those that are someone else's, and why. */
  async #hold(desired: Desired): Promise<Map<string, string>> {
    const isForNames = ({ publishedPort }: Pick<PublishedPort, 'publishedPort'>) =>
      publishedPort === dnsPort && desired.networks.some(({ isIngress }) => !isIngress);
    const forNames = desired.services.flatMap(({ ports }) => ports.filter(isForNames));
    const forRules = desired.services.flatMap((service) =>
      service.ports.filter((port) => !isProxied(service, port) && !isForNames(port)),
    );
    const forProxy = new Map(
      [...proxiedPortsOfMesh(desired)].filter(([publishedPort]) => !isForNames({ publishedPort })),
    );
    // A port that goes from one to the other is free in between.
    this.#ports.keepOnly(forRules);
    const ofProxy = await this.#proxy.take(forProxy);
    const refused = new Map(await this.#ports.hold(forRules));
    for (const port of forNames) refused.set(portKey(port), wordsForNames(port));
    for (const [publishedPort, why] of ofProxy) refused.set(portKey({ publishedPort, protocol: 'tcp' }), why);
    return refused;
  }

  /** Resolves when the proxy has no connection on its way to who takes no more. */
  settled(): Promise<void> {
    return this.#proxy.settled();
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

  /** The rules stay; the ports are let go of, and what the proxy passes on ends. */
  async stop(): Promise<void> {
    await this.#last;
    this.#ports.stop();
    this.#proxy.stop();
  }
}

/** Containers ask a node's own address for names: a rule would send their questions to the service. */
function wordsForNames({ publishedPort, protocol }: PublishedPort): string {
  return `port ${publishedPort}/${protocol} is where this node answers the names of its networks: publish another port`;
}
