/**
 * When an image is pulled. Docker's rule is: always try, and use what is there when that fails. Kept, with
 * three bounds so that thirty replicas do not try thirty times and a registry that does not answer does not
 * hold up a task whose image is there already:
 *
 * - a reference with a digest (or an image id) that is present is not pulled: it cannot have changed;
 * - pulls of one reference are shared while they run, and their outcome holds for a minute;
 * - with the image present, the registry has three seconds to begin answering.
 */
import { isShoalError, messageOf, ShoalError } from '../../proto/errors.ts';
import type { Clock } from '../../proto/ports.ts';

const rememberPullMs = 60_000;
const firstAnswerMs = 3_000;

/** What Images needs of an engine. */
export interface ImageStore {
  /** Whether the engine has the image. */
  has(image: string): Promise<boolean>;
  /** Pulls it; calls `onProgress` when the registry answers. */
  fetch(
    image: string,
    registryAuth: string | undefined,
    signal: AbortSignal,
    onProgress: () => void,
  ): Promise<void>;
}

/** `image` with `:latest` when it names neither a tag nor a digest; an image id stays as it is. */
export function withTag(image: string): string {
  if (isImageId(image) || image.includes('@')) return image;
  const lastPart = image.slice(image.lastIndexOf('/') + 1);
  return lastPart.includes(':') ? image : `${image}:latest`;
}

function isImageId(image: string): boolean {
  return /^(sha256:)?[0-9a-f]{64}$/.test(image);
}

export class Images {
  readonly #store: ImageStore;
  readonly #clock: Clock;
  readonly #underWay = new Map<string, Promise<void>>();
  readonly #looking = new Map<string, Promise<boolean>>();
  readonly #triedAtMs = new Map<string, number>();

  constructor(store: ImageStore, clock: Clock) {
    this.#store = store;
    this.#clock = clock;
  }

  /**
   * Resolves when the engine has `image`. Throws `not-found` ("No such image: …", with the registry's reason)
   * when it is not there and can't be pulled, `unavailable` when the engine does not answer.
   */
  async ensure(image: string, registryAuth: string | undefined, signal: AbortSignal): Promise<void> {
    const reference = withTag(image);
    const isPresent = await this.#look(reference);
    if (isPresent && (reference.includes('@') || isImageId(reference) || this.#wasTried(reference))) return;
    if (!isPresent && isImageId(reference)) throw new ShoalError('not-found', `No such image: ${image}`);
    let pull = this.#underWay.get(reference);
    if (pull === undefined) {
      pull = this.#pull(reference, registryAuth, isPresent).finally(() => this.#underWay.delete(reference));
      this.#underWay.set(reference, pull);
    }
    await untilAborted(pull, signal);
  }

  /** Tasks that come together ask the engine once. */
  #look(reference: string): Promise<boolean> {
    let looking = this.#looking.get(reference);
    if (looking === undefined) {
      looking = this.#store.has(reference).finally(() => this.#looking.delete(reference));
      this.#looking.set(reference, looking);
    }
    return looking;
  }

  #wasTried(reference: string): boolean {
    const triedAtMs = this.#triedAtMs.get(reference);
    return triedAtMs !== undefined && this.#clock.monotonicMs() - triedAtMs < rememberPullMs;
  }

  /** Not ended by one task's change of mind: others may wait for the same image. */
  async #pull(reference: string, registryAuth: string | undefined, isPresent: boolean): Promise<void> {
    const abort = new AbortController();
    const timer = isPresent
      ? this.#clock.after(firstAnswerMs, () => abort.abort(new Error('the registry does not answer')))
      : undefined;
    try {
      await this.#store.fetch(reference, registryAuth, abort.signal, () => timer?.cancel());
    } catch (error) {
      if (isShoalError(error, 'unavailable')) throw error;
      if (!isPresent && !(await this.#store.has(reference))) {
        throw new ShoalError('not-found', `No such image: ${reference} (${messageOf(error)})`, {
          cause: error,
        });
      }
    } finally {
      timer?.cancel();
    }
    this.#triedAtMs.set(reference, this.#clock.monotonicMs());
  }
}

function untilAborted(work: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = (): void => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}
