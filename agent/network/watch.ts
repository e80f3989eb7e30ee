/**
 * The data plane's ear: one stream of shoal.v1.Endpoints/Watch with the manager that the session is with. In: the
 * session's connections. Out: updates and questions to the data plane, its reports and answers to the manager. A stream that ends while the
 * session stands is opened again.
 */
import type { Clock, Log, Timer } from '../../proto/ports.ts';
import { type DispatcherClient, type EndpointsStream, reasonOfEnd } from '../dispatcher-client.ts';
import type { DataPlane } from './data-plane.ts';

/** Who is told of endpoints. */
export type EndpointsListener = Pick<DataPlane, 'connect' | 'follow' | 'answer'>;

const retryMs = 1_000;

export class EndpointsWatch {
  readonly #dataPlane: EndpointsListener;
  readonly #clock: Clock;
  readonly #log: Log;
  #stream: EndpointsStream | undefined;
  #retry: Timer | undefined;

  constructor(dataPlane: EndpointsListener, clock: Clock, log: Log) {
    this.#dataPlane = dataPlane;
    this.#clock = clock;
    this.#log = log;
  }

  connect(client: DispatcherClient): void {
    this.disconnect();
    const stream = client.watchEndpoints?.({
      onMessage: (update) => {
        if (update.question) void this.#dataPlane.answer(update.question);
        else this.#dataPlane.follow(update);
      },
      onEnd: (error) => {
        this.#log.info({ reason: reasonOfEnd(error) }, 'the watch of endpoints ended');
        this.disconnect();
        this.#retry = this.#clock.after(retryMs, () => this.connect(client));
      },
    });
    this.#stream = stream;
    if (stream !== undefined) this.#dataPlane.connect((report) => stream.report(report));
  }

  disconnect(): void {
    this.#retry?.cancel();
    this.#retry = undefined;
    this.#stream?.cancel();
    this.#stream = undefined;
    this.#dataPlane.connect(undefined);
  }
}
