/**
 * The data plane of a node that can't have one between hosts: published ports are answered by a TCP proxy of the agent. In:
 * updates of shoal.v1.Endpoints/Watch. Out: the proxy's targets, the revision that they are of, and what can't be done,
 * reported to the managers. What it was told last is kept on disk. It touches nothing of the kernel.
 */
import { messageOf } from '../../proto/errors.ts';
import type { EndpointsAnswer } from '../../proto/generated/shoal/v1/EndpointsAnswer.ts';
import type { EndpointsQuestion } from '../../proto/generated/shoal/v1/EndpointsQuestion.ts';
import type { EndpointsUpdate } from '../../proto/generated/shoal/v1/EndpointsUpdate.ts';
import type { Clock, Log, Timer } from '../../proto/ports.ts';
import type { DataPlaneFigures, SendReport } from './data-plane.ts';
import { type Desired, nothingDesired, withUpdate } from './desired.ts';
import type { KernelFigures } from './figures.ts';
import { LastState } from './last-state.ts';
import { Pace } from './pace.ts';
import { proxiedPorts, proxyProblems, type ServiceProblem } from './proxied.ts';
import { TcpProxy } from './tcp-proxy.ts';

/** How often it looks whether a port that something else held is free. */
const periodMs = 30_000;

export interface ProxyPlaneOptions {
  readonly clock: Clock;
  readonly log: Log;
  /** Where the last state is kept; see LastState. */
  readonly folder: string;
  readonly nodeId: () => string;
  /** Hears how long each update took from its arrival until it held. */
  readonly onProgrammed?: ((tookMs: number) => void) | undefined;
}

export class ProxyPlane {
  readonly #options: ProxyPlaneOptions;
  readonly #proxy: TcpProxy;
  readonly #last: LastState;
  readonly #pace: Pace;
  #desired: Desired = nothingDesired;
  #problems: readonly ServiceProblem[] = [];
  #revision = '';
  #send: SendReport | undefined;
  #turn: Promise<void> = Promise.resolve();
  #isTurnAwaited = false;
  #isLookedAt = false;
  #timer: Timer | undefined;
  #isStopped = false;

  constructor(options: ProxyPlaneOptions) {
    this.#options = options;
    this.#proxy = new TcpProxy(options.clock);
    this.#last = new LastState(options);
    this.#pace = new Pace(options.clock, (tookMs) => options.onProgrammed?.(tookMs));
  }

  /** Takes up the state of the last life. */
  async start(): Promise<void> {
    this.#desired = (await this.#last.read()) ?? nothingDesired;
    await this.#follow();
    this.#lookAgain();
  }

  /** Connections that it passes on end with it. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#timer?.cancel();
    await this.#turn;
    this.#proxy.stop();
    await this.#last.flush();
  }

  async leave(): Promise<void> {
    await this.stop();
    await this.#last.forget();
  }

  /** From now on reports go to `send`; the first one at once. Undefined: no manager listens. */
  connect(send: SendReport | undefined): void {
    this.#send = send;
    this.#report();
  }

  /** What a manager says. */
  follow(update: EndpointsUpdate): void {
    this.#desired = withUpdate(this.#desired, update);
    this.#pace.told(this.#desired.revision, update.complete === true);
    void this.#follow();
  }

  /** Its targets are published by the engine, whatever its networks are. */
  onEngine(): void {}

  answer({ id = '' }: EndpointsQuestion): Promise<void> {
    this.#report({
      question_id: id,
      error:
        'it has no networks between hosts: published ports are answered by a TCP proxy of shoald, nothing of them is in its kernel',
      revision: this.#revision,
    });
    return Promise.resolve();
  }

  figures(): DataPlaneFigures {
    const { services, revision } = this.#desired;
    const ports = proxiedPorts(this.#desired, this.#options.nodeId());
    const targets = [...ports.values()].flatMap((port) => port.targets);
    return {
      networks: 0,
      services: services.length,
      endpoints: new Set(targets.map(({ taskId }) => taskId)).size,
      problems: this.#problems.length,
      revision: Number(this.#revision || revision || 0),
      lagMs: this.#pace.lagMs(),
    };
  }

  /** What it counted itself: the kernel has no part in it. */
  kernelFigures(): Promise<KernelFigures> {
    const { passedOn, refused } = this.#proxy.figures;
    return Promise.resolve({
      connections: { virtual_address: 0, published_port: passedOn },
      drops: { stranger: 0, unencrypted: 0, isolated: 0, refused },
      tracked: 0,
      trackedMax: 0,
    });
  }

  /** The proxy becomes as is desired when its turn has come: one change at a time, the newest state each. */
  #follow(): Promise<void> {
    if (this.#isTurnAwaited) return this.#turn;
    this.#isTurnAwaited = true;
    this.#turn = this.#turn.then(async () => {
      this.#isTurnAwaited = false;
      if (this.#isStopped) return;
      try {
        await this.#become(this.#desired);
      } catch (error) {
        this.#options.log.error(
          { reason: messageOf(error) },
          'published ports are not as the managers want them',
        );
      }
    });
    return this.#turn;
  }

  async #become(desired: Desired): Promise<void> {
    const nodeId = this.#options.nodeId();
    const refused = await this.#proxy.become(proxiedPorts(desired, nodeId));
    const ofPorts = desired.services.flatMap(({ id, ports }) =>
      ports.flatMap(({ protocol, publishedPort }) => {
        const message = protocol === 'tcp' ? refused.get(publishedPort) : undefined;
        return message === undefined ? [] : [{ serviceId: id, message }];
      }),
    );
    this.#problems = [...ofPorts, ...proxyProblems(desired, nodeId)];
    this.#isLookedAt = true;
    this.#revision = desired.revision;
    this.#pace.held(desired.revision);
    this.#last.keep(desired);
    this.#report();
  }

  #lookAgain(): void {
    this.#timer = this.#options.clock.after(periodMs, () => {
      if (this.#problems.length > 0) void this.#follow();
      this.#lookAgain();
    });
  }

  #report(answer?: EndpointsAnswer): void {
    this.#send?.({
      ...(answer === undefined ? {} : { answer }),
      revision: this.#revision,
      problems_known: this.#isLookedAt,
      problems: [
        ...this.#problems.map(({ serviceId, message }) => ({ service_id: serviceId, message })),
        ...(this.#last.problem === undefined ? [] : [{ message: this.#last.problem }]),
      ],
    });
  }
}
