import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import fc from 'fast-check';
import { FrameSplitter } from '../../cli/frames.ts';

/** Keeps what it is given, and takes no more until it is let. */
class Slow extends Writable {
  readonly taken: Buffer[] = [];
  #let: (() => void) | undefined;

  constructor() {
    super({ highWaterMark: 1 });
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.taken.push(chunk);
    this.#let = done;
  }

  /** Whether there was something to let go. */
  go(): boolean {
    const done = this.#let;
    this.#let = undefined;
    done?.();
    return done !== undefined;
  }

  get text(): string {
    return Buffer.concat(this.taken).toString();
  }
}

function frame(stream: number, text: string): Buffer {
  const payload = Buffer.from(text);
  const head = Buffer.alloc(8);
  head.writeUInt8(stream, 0);
  head.writeUInt32BE(payload.length, 4);
  return Buffer.concat([head, payload]);
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

describe("Docker's frames", () => {
  it('are taken apart however they are cut', async () => {
    const frames = fc.array(fc.tuple(fc.constantFrom(1, 2, 3), fc.string({ maxLength: 40 })), {
      maxLength: 8,
    });
    const cuts = fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 10 });
    await fc.assert(
      fc.asyncProperty(frames, cuts, async (all, lengths) => {
        const [stdout, stderr] = [new Slow(), new Slow()];
        const splitter = new FrameSplitter(stdout, stderr);
        let isFinished = false;
        splitter.once('finish', () => {
          isFinished = true;
        });
        const bytes = Buffer.concat(all.map(([stream, text]) => frame(stream, text)));
        for (let at = 0, cut = 0; at < bytes.length; cut += 1) {
          const length = lengths[cut % lengths.length]!;
          splitter.write(bytes.subarray(at, at + length));
          at += length;
        }
        splitter.end();
        while (!isFinished) {
          stdout.go();
          stderr.go();
          await turn();
        }
        const of = (wanted: number) =>
          all.flatMap(([stream, text]) => (stream === wanted ? [text] : [])).join('');
        assert.deepEqual([stdout.text, stderr.text], [of(1), of(2)]);
      }),
    );
  });

  it('are held up by who takes them', async () => {
    const [stdout, stderr] = [new Slow(), new Slow()];
    const splitter = new FrameSplitter(stdout, stderr);
    assert.equal(splitter.write(frame(1, 'one')), false);
    splitter.write(frame(1, 'two'));
    await turn();
    assert.equal(stdout.text, 'one');
    assert.ok(stdout.go());
    await turn();
    assert.equal(stdout.text, 'onetwo');
  });

  it('go on when nobody takes them any more', async () => {
    const [stdout, stderr] = [new Slow(), new Slow()];
    const splitter = new FrameSplitter(stdout, stderr);
    splitter.write(frame(1, 'one'));
    splitter.write(frame(2, 'two'));
    stdout.destroy();
    await turn();
    await turn();
    assert.equal(stderr.text, 'two');
  });
});
