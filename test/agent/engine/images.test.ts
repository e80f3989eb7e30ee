import assert from 'node:assert/strict';
import { Images, withTag } from '../../../agent/engine/images.ts';
import { isShoalError, ShoalError } from '../../../proto/errors.ts';
import { delay } from '../../../proto/ports.ts';
import { VirtualClock } from '../../simulation/clock.ts';

const digest = `sha256:${'a'.repeat(64)}`;

class Registry {
  readonly clock = new VirtualClock();
  readonly present = new Set<string>();
  readonly fetched: string[] = [];
  looks = 0;
  /** How long until the first answer, and until all of it came. */
  answerMs = 10;
  lastsMs = 10;
  refusal: ShoalError | undefined;
  readonly images = new Images(
    {
      has: async (image) => {
        this.looks += 1;
        return this.present.has(image);
      },
      fetch: async (image, _auth, signal, onProgress) => {
        this.fetched.push(image);
        await Promise.race([delay(this.clock, this.answerMs), whenAborted(signal)]);
        onProgress();
        if (this.refusal) throw this.refusal;
        await Promise.race([delay(this.clock, this.lastsMs), whenAborted(signal)]);
        this.present.add(image);
      },
    },
    this.clock,
  );

  ensure(image: string, signal = new AbortController().signal): Promise<void> {
    return this.clock.runFor(this.images.ensure(image, undefined, signal), 60_000);
  }
}

function whenAborted(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true });
  });
}

describe('images', () => {
  it('names a tag where none is named', () => {
    assert.equal(withTag('web'), 'web:latest');
    assert.equal(withTag('host:5000/web'), 'host:5000/web:latest');
    assert.equal(withTag('web:1'), 'web:1');
    assert.equal(withTag(`web@${digest}`), `web@${digest}`);
    assert.equal(withTag(digest), digest);
  });

  it('pulls once for all who ask, and not again for a minute', async () => {
    const registry = new Registry();
    await Promise.all(Array.from({ length: 30 }, () => registry.ensure('web:1')));
    await registry.ensure('web:1');
    assert.deepEqual(registry.fetched, ['web:1']);
    assert.equal(registry.looks, 2);
    await registry.clock.run(61_000);
    await registry.ensure('web:1');
    assert.equal(registry.fetched.length, 2);
  });

  it('does not pull what cannot have changed', async () => {
    const registry = new Registry();
    registry.present.add(`web@${digest}`).add(digest);
    await registry.ensure(`web@${digest}`);
    await registry.ensure(digest);
    assert.deepEqual(registry.fetched, []);
  });

  it('uses what is there when the registry refuses, or does not answer within three seconds', async () => {
    const registry = new Registry();
    registry.present.add('web:1').add('web:2');
    registry.refusal = new ShoalError('not-found', 'no such host');
    await registry.ensure('web:1');
    registry.refusal = undefined;
    registry.answerMs = 20_000;
    const beganMs = registry.clock.monotonicMs();
    await registry.ensure('web:2');
    assert.equal(registry.clock.monotonicMs() - beganMs, 3_000);
    await registry.ensure('web:2');
    assert.deepEqual(registry.fetched, ['web:1', 'web:2']);
  });

  it('lets a registry that answers take its time', async () => {
    const registry = new Registry();
    registry.present.add('web:1');
    registry.lastsMs = 30_000;
    const beganMs = registry.clock.monotonicMs();
    await registry.ensure('web:1');
    assert.equal(registry.clock.monotonicMs() - beganMs, 30_010);
  });

  it("says the registry's reason when there is no image, and asks again next time", async () => {
    const registry = new Registry();
    registry.refusal = new ShoalError('not-found', 'pull access denied for web');
    const refused = (error: unknown) =>
      isShoalError(error, 'not-found') &&
      error.message === 'No such image: web:1 (pull access denied for web)';
    await assert.rejects(registry.ensure('web:1'), refused);
    await assert.rejects(registry.ensure('web:1'), refused);
    assert.equal(registry.fetched.length, 2);
    registry.refusal = new ShoalError('unavailable', 'engine gone');
    await assert.rejects(registry.ensure('web:1'), (error) => isShoalError(error, 'unavailable'));
  });

  it('lets one who changed its mind go without ending the pull of the others', async () => {
    const registry = new Registry();
    registry.lastsMs = 1_000;
    const abort = new AbortController();
    const others = registry.images.ensure('web:1', undefined, new AbortController().signal);
    const one = registry.images.ensure('web:1', undefined, abort.signal);
    registry.clock.after(100, () => abort.abort(new Error('no longer wanted')));
    await assert.rejects(registry.clock.runFor(one, 60_000), /no longer wanted/);
    await registry.clock.runFor(others, 60_000);
    assert.deepEqual(registry.fetched, ['web:1']);
  });
});
