/**
 * The data plane of one node: keeps the kernel's network, the engine's bridges and the DNS server as the managers
 * say. In: updates of shoal.v1.Endpoints/Watch, events of the engine and of the kernel. Out: the kernel reconciled at
 * start, on each change, on events and every 30 s; the revision it holds and what it could not do, reported to the managers. What it
 * was told last is kept on disk, and stands while no manager answers. When a round comes is decided here, what one does
 * in round.ts, what is to be done in reconcile.ts; kernel.ts is the only one that executes.
 */
import { messageOf, ShoalError } from '../../proto/errors.ts';
import type { EndpointsAnswer } from '../../proto/generated/shoal/v1/EndpointsAnswer.ts';
import type { EndpointsQuestion } from '../../proto/generated/shoal/v1/EndpointsQuestion.ts';
import type { EndpointsReport } from '../../proto/generated/shoal/v1/EndpointsReport.ts';
import type { EndpointsUpdate } from '../../proto/generated/shoal/v1/EndpointsUpdate.ts';
import type { Clock, Log, Timer } from '../../proto/ports.ts';
import type { Attachments } from './attachments.ts';
import { backlogTaken } from './backlog.ts';
import { type Desired, nothingDesired, type ReadyNetwork, withUpdate } from './desired.ts';
import { DnsServer, type NameAnswerer } from './dns.ts';
import type { KernelFigures } from './figures.ts';
import { forgetFlows } from './flows.ts';
import { portKey } from './held-ports.ts';
import type { Kernel } from './kernel.ts';
import { KernelWatch } from './kernel-watch.ts';
import { type EncryptionKind, Keyring } from './keyring.ts';
import { LastState } from './last-state.ts';
import { Pace } from './pace.ts';
import { meshProblems } from './proxied.ts';
import { answerTo } from './questions.ts';
import { type Problem, ReadyNetworks, whyNotReady } from './ready-networks.ts';
import { type PlanOptions, withdrawnAddresses } from './reconcile.ts';
import { type EngineNetworks, periodMs, Round } from './round.ts';
import { Rules } from './rules.ts';
import type { Sight } from './trace.ts';

/** Changes that come close together are one. */
const gatherMs = 30;
/** After a round that failed; twice as long after each further one, for a round costs ten processes. */
const retryMs = 1_000;
/** While a published port is another program's: nothing says when it is let go of. A try costs one bind. */
const portRetryMs = 2_000;

/** Sends a report to the managers. */
export type SendReport = (report: EndpointsReport) => void;

/** How a data plane stands. */
export interface DataPlaneFigures {
  readonly networks: number;
  readonly services: number;
  /** Tasks that rules and names here lead to. */
  readonly endpoints: number;
  readonly problems: number;
  /** Of the last update that the kernel holds; 0: none. */
  readonly revision: number;
  /** How long the oldest update waits that it does not hold yet. */
  readonly lagMs: number;
}

export interface DataPlaneOptions {
  readonly kernel: Kernel;
  readonly networks: EngineNetworks;
  readonly clock: Clock;
  readonly log: Log;
  /** Where the last state is kept: <data-dir>/agent/network.json. */
  readonly folder: string;
  readonly nodeId: () => string;
  /** This node's address that vxlan packets come from; empty: the host's own choice for each peer. */
  readonly local: string;
  /** Hears how long each update took from its arrival until its rules stood. */
  readonly onProgrammed?: ((tookMs: number) => void) | undefined;
  /** How encrypted networks are encrypted, and how often keys are others; absent: they have no way to other hosts here. */
  readonly encryption?: { readonly kind: EncryptionKind; readonly rotateEveryMs: number } | undefined;
  /** The kernel lacks br_netfilter. */
  readonly lacksBridgeFilter?: boolean;
  /** Who answers names; absent: this process. */
  readonly names?: NameAnswerer;
  /** Whether a container of this node, which goes on when the agent stops, is on one of the networks. */
  readonly hasContainers?: (desired: Desired) => Promise<boolean>;
  /** Containers that are no tasks, and the managers' word of them. */
  readonly attachments?: Pick<Attachments, 'requests' | 'answered'>;
}

export class DataPlane {
  readonly #options: DataPlaneOptions;
  readonly #names: NameAnswerer;
  readonly #ready: ReadyNetworks;
  readonly #rules: Rules;
  readonly #pace: Pace;
  readonly #keyring: Keyring | undefined;
  readonly #watch: KernelWatch;
  readonly #round: Round;
  readonly #last: LastState;
  /** Names are answered from the newest state, or that takes too long to be waited for. */
  #known: Promise<void> = Promise.resolve();
  #desired: Desired = nothingDesired;
  #timer: Timer | undefined;
  #portTimer: Timer | undefined;
  #running: Promise<void> | undefined;
  #isAsked = false;
  #isStopped = false;
  /** Rounds that failed in a row, since anything changed. */
  #failures = 0;
  #send: SendReport | undefined;
  #problems: readonly Problem[] = [];
  /** A round has come to its end in this life. */
  #isLookedAt = false;
  /** A change of rules waits for its turn, and will be of the newest state. */
  #isTurnAwaited = false;
  /** The state whose rules stood last. */
  #standing: Desired = nothingDesired;
  /** Revision whose rules stand. */
  #programmed = '';
  #confirmed: Promise<void> = Promise.resolve();

  constructor(options: DataPlaneOptions) {
    this.#options = options;
    this.#last = new LastState(options);
    this.#ready = new ReadyNetworks(
      options.clock,
      (id) => this.#desired.networks.find((network) => network.id === id),
      (id) => whyNotReady(id, this.#desired, this.#problems),
    );
    this.#rules = new Rules(options.kernel, options.clock, () => this.#planOptions());
    this.#pace = new Pace(options.clock, (tookMs) => options.onProgrammed?.(tookMs));
    const { kernel, clock, log, encryption } = options;
    this.#names = options.names ?? new DnsServer({ clock, log });
    const onChange = () => this.#onKeys();
    this.#keyring = encryption && new Keyring({ kernel, clock, log, ...encryption, onChange });
    this.#round = new Round(options, {
      rules: this.#rules,
      keyring: this.#keyring,
      planOptions: () => this.#planOptions(),
    });
    this.#watch = new KernelWatch({ kernel, clock, log, onChange: () => this.#onKernel() });
  }

  /** Takes up the state of the last life, so that what runs goes on running. */
  async start(): Promise<void> {
    this.#desired = (await this.#last.read()) ?? nothingDesired;
    this.#standing = this.#desired;
    await this.#round.load();
    await this.#keyring?.start();
    this.#watch.start();
    this.#known = this.#names.know(this.#desired);
    // Bridges of the last life stand: their names are answered before anything is looked at. What can't be opened yet is
    // for the first round to tell.
    await this.#names.listen(this.#desired);
    this.#soon(0);
  }

  /** The kernel stays as it is: containers go on, and have names as long as there are any. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#timer?.cancel();
    this.#portTimer?.cancel();
    this.#watch.stop();
    this.#keyring?.stop();
    await this.#running;
    if ((await this.#options.hasContainers?.(this.#desired)) ?? true) this.#names.stop();
    else await this.#names.end();
    await this.#rules.stop();
    await this.#last.flush();
    this.#ready.refuse(new ShoalError('unavailable', 'the agent is stopping'));
  }

  /** Takes everything of ours out of the kernel and forgets it. Resolves with what the host is left with, in words. */
  async leave(): Promise<string[]> {
    // What is taken away now is no reason to look.
    this.#isStopped = true;
    this.#timer?.cancel();
    this.#watch.stop();
    await this.#running;
    this.#desired = nothingDesired;
    this.#round.doubt();
    this.#round.doubtRules();
    await this.#reconcile();
    await this.stop();
    await this.#last.forget();
    return this.#round.leave();
  }

  /** From now on reports go to `send`; the first one at once. Undefined: no manager listens. */
  connect(send: SendReport | undefined): void {
    this.#send = send;
    this.#report();
  }

  /** What a manager says. */
  follow(update: EndpointsUpdate): void {
    if (update.has_attachments) this.#options.attachments?.answered(update.attachments ?? []);
    const before = this.#desired;
    this.#desired = withUpdate(before, update);
    this.#pace.told(this.#desired.revision, update.complete === true);
    if (before.networks !== this.#desired.networks) this.#doubt();
    this.#known = this.#names.know(this.#desired, update);
    this.#changeRules();
    this.#soon(gatherMs);
  }

  /** Endpoints come and go at once, whatever else is under way; what else there is to do follows. */
  #changeRules(): void {
    if (this.#isTurnAwaited || this.#isStopped) return;
    this.#isTurnAwaited = true;
    this.#rules
      .become(() => {
        this.#isTurnAwaited = false;
        return this.#desired;
      }, false)
      .then((desired) => this.#confirm(desired))
      // The round that follows asks the kernel, and tells what is wrong.
      .catch(() => {});
  }

  /** The rules of `desired` stand: nothing new goes to what it leaves out. One after the other, as they came to stand. */
  #confirm(desired: Desired): Promise<void> {
    this.#confirmed = this.#confirmed.then(async () => {
      const gone = withdrawnAddresses(this.#standing, desired);
      this.#standing = desired;
      const forgotten = forgetFlows(this.#options.kernel, this.#options.clock, gone).catch((error: unknown) =>
        this.#options.log.debug({ reason: messageOf(error) }, 'no flows were forgotten'),
      );
      await Promise.all([forgotten, this.#known, this.#rules.settled()]);
      this.#programmed = desired.revision;
      this.#pace.held(desired.revision);
      this.#report();
      this.#watchPorts();
    });
    return this.#confirmed;
  }

  /** A port that another program holds is taken soon after it is let go of. */
  #watchPorts(): void {
    if (this.#rules.refusedPorts.size === 0 || this.#portTimer !== undefined || this.#isStopped) return;
    this.#portTimer = this.#options.clock.after(portRetryMs, async () => {
      const isOneFree = await this.#rules.retryPorts();
      this.#portTimer = undefined;
      if (isOneFree) this.#changeRules();
      else this.#watchPorts();
    });
  }

  /** Something of the engine changed: its bridges and the containers' ends are looked at. */
  onEngine(): void {
    this.#doubt();
    this.#soon(gatherMs);
  }

  /** Somebody else may have changed what the kernel holds. */
  #onKernel(): void {
    this.#round.doubtRules();
    this.#doubt();
    this.#soon(0);
  }

  /**
   * The engine's network for a network of the cluster, once packets pass on it. Errors: 'unavailable' when that takes too
   * long, 'failed-precondition' when the engine refuses it; both name the network in their details.
   */
  network(id: string): Promise<ReadyNetwork> {
    return this.#ready.wait(id);
  }

  /** Resolves once the programs of process `pid` have taken the connections that came to them, or took too long to. */
  backlogTaken(pid: number): Promise<void> {
    return backlogTaken(this.#options.kernel, this.#options.clock, pid);
  }

  /** Names are not answered any more. */
  onNamesLost(): void {
    this.#failures = 0;
    this.#soon(gatherMs);
  }

  /** How it stands, by what is known without asking the kernel. */
  figures(): DataPlaneFigures {
    const { networks = [], services = [] } = this.#rules.standing ?? {};
    const serving = services.flatMap(({ endpoints }) => endpoints.filter(({ isDraining }) => !isDraining));
    return {
      networks: networks.length,
      services: services.length,
      endpoints: serving.length,
      problems: this.#problems.length + this.#rules.refusedPorts.size,
      revision: Number(this.#programmed || 0),
      lagMs: this.#pace.lagMs(),
    };
  }

  /** What the kernel counted, and the proxy for ports that rules can't do. */
  kernelFigures(): Promise<KernelFigures> {
    return this.#rules.figures();
  }

  /** What is to be here, and what stands here now. */
  async look(): Promise<Sight> {
    const actual = await this.#round.look(this.#desired);
    const desired = this.#rules.allowed(this.#desired);
    return { desired, actual, options: this.#planOptions(), proxied: this.#rules.proxied };
  }

  /** Answers a manager's question, with a report. */
  async answer(question: EndpointsQuestion): Promise<void> {
    this.#report(await answerTo(question, () => this.look(), this.#options.kernel));
  }

  #doubt(): void {
    this.#round.doubt();
    this.#failures = 0;
  }

  #soon(waitMs: number): void {
    if (this.#isStopped) return;
    if (this.#running !== undefined) {
      this.#isAsked = true;
      return;
    }
    this.#timer?.cancel();
    this.#timer = this.#options.clock.after(waitMs, () => {
      this.#running = this.#reconcile().then((isDone) => {
        this.#running = undefined;
        if (this.#isStopped) return;
        const isAsked = this.#isAsked;
        this.#isAsked = false;
        this.#failures = isDone || isAsked ? 0 : this.#failures + 1;
        const retry = Math.min(retryMs * 2 ** (this.#failures - 1), periodMs);
        this.#soon(isAsked ? gatherMs : isDone ? periodMs : retry);
      });
    });
  }

  /** One round. False when something could not be done: it is tried again soon. */
  async #reconcile(): Promise<boolean> {
    const desired = this.#desired;
    const problems = await this.#round.run({
      desired,
      becomeRules: async (isAsked) => {
        await this.#confirm(await this.#rules.become(() => this.#desired, isAsked));
      },
      isLast: this.#isStopped,
    });
    problems.push(...(await this.#names.listen(desired)).map((message) => ({ message })));
    this.#last.keep(desired);
    if (this.#last.problem !== undefined) problems.push({ message: this.#last.problem });
    this.#settle(desired, problems);
    return problems.length === 0;
  }

  /** Makes what the engine says that it lacks of the host's firewall. Whether there was something: it may be asked again. */
  mendEngine(words: string): Promise<boolean> {
    return this.#round.mendEngine(words);
  }

  #planOptions(): PlanOptions {
    const { nodeId, local, lacksBridgeFilter = false } = this.#options;
    return { nodeId: nodeId(), local, lacksBridgeFilter, keys: this.#keyring?.keys() ?? [] };
  }

  #settle(desired: Desired, problems: readonly Problem[]): void {
    const { log } = this.#options;
    const reasons = problems.map(({ message }) => message);
    if (reasons.length > 0 && reasons.join() !== this.#problems.map(({ message }) => message).join()) {
      log.warn({ reasons }, 'the data plane is not as the managers want it; it is tried again');
    }
    this.#problems = problems;
    this.#isLookedAt = true;
    this.#ready.settle(desired, this.#round.engineNames, this.#round.present);
    // What failed is tried again as a whole, the engine's share included: nothing may be taken for done.
    if (problems.length > 0) {
      this.#round.doubtRules();
      this.#round.doubt();
    }
    this.#report();
  }

  /** Containers that are no tasks need other networks now: the managers are told. */
  onAttachments(): void {
    this.#report();
  }

  /** What the managers are told: whole each time. */
  #report(answer?: EndpointsAnswer): void {
    const attachments = this.#options.attachments?.requests();
    this.#send?.({
      ...(answer === undefined ? {} : { answer }),
      ...(attachments === undefined ? {} : { attachments, attachments_known: true }),
      revision: this.#programmed,
      wireguard_public_key: this.#keyring?.announcement() ?? '',
      problems_known: this.#isLookedAt,
      problems: [
        ...this.#problems.map(({ message, networkId = '' }) => ({ message, network_id: networkId })),
        ...[...this.#rules.refusedPorts].map(([key, message]) => ({
          message,
          service_id: serviceOf(this.#desired, key),
        })),
        ...meshProblems(this.#desired).map(({ serviceId, message }) => ({ message, service_id: serviceId })),
      ],
    });
  }

  /** The peers learn of a key as the kernel does. */
  #onKeys(): void {
    this.#doubt();
    this.#report();
    this.#soon(0);
  }
}

function serviceOf(desired: Desired, key: string): string {
  return desired.services.find(({ ports }) => ports.some((port) => portKey(port) === key))?.id ?? '';
}
