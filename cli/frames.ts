/**
 * Docker's frames taken apart: 8 bytes of head (stream, three zeros, length), then the payload, however they are cut. It takes
 * no more than those who read have taken, and keeps nothing but an unfinished head.
 */
import { Writable } from 'node:stream';
import { drained } from '../proto/rpc-stream.ts';

const headBytes = 8;
/** What the managers have to say of it: told once, at the end, and not here. */
const systemStream = 3;

export class FrameSplitter extends Writable {
  readonly #stdout: Writable;
  readonly #stderr: Writable;
  #head: Buffer = Buffer.alloc(0);
  /** Of the frame that is under way. */
  #stream = 0;
  #leftBytes = 0;

  constructor(stdout: Writable, stderr: Writable) {
    super({ highWaterMark: 1 });
    this.#stdout = stdout;
    this.#stderr = stderr;
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    const full = new Set<Writable>();
    for (let at = 0; at < chunk.length; ) {
      if (this.#leftBytes === 0) {
        const wanted = headBytes - this.#head.length;
        this.#head = Buffer.concat([this.#head, chunk.subarray(at, at + wanted)]);
        at += wanted;
        if (this.#head.length < headBytes) break;
        this.#stream = this.#head[0]!;
        this.#leftBytes = this.#head.readUInt32BE(4);
        this.#head = Buffer.alloc(0);
        continue;
      }
      const payload = chunk.subarray(at, at + this.#leftBytes);
      at += payload.length;
      this.#leftBytes -= payload.length;
      if (this.#stream === systemStream) continue;
      const target = this.#stream === 1 ? this.#stdout : this.#stderr;
      if (!target.destroyed && !target.write(payload)) full.add(target);
    }
    if (full.size === 0) done();
    else void Promise.all([...full].map((target) => drained(target))).then(() => done());
  }
}
