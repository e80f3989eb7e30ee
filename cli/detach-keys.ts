/** The keys that leave a command's terminal to itself, as docker names them: `ctrl-p,ctrl-q`. */
import { Transform, type TransformCallback } from 'node:stream';
import { UsageError } from './usage.ts';

const usual = 'ctrl-p,ctrl-q';
const controls = '@abcdefghijklmnopqrstuvwxyz[\\]^_';

/** Bytes of keys: single characters, and `ctrl-` with a letter or one of @ [ \ ] ^ _, with commas between. */
export function parseDetachKeys(text: string): Buffer {
  const bytes = (text === '' ? usual : text).split(',').map((key) => {
    const control = /^ctrl-(.)$/.exec(key)?.[1];
    const at = control === undefined ? -1 : controls.indexOf(control.toLowerCase());
    if (at >= 0) return at;
    if (/^[\x20-\x7e]$/.test(key)) return key.charCodeAt(0);
    throw new UsageError(
      `invalid detach keys (${text}): write characters and ctrl-LETTER with commas between, such as ${usual}`,
    );
  });
  return Buffer.from(bytes);
}

/** Passes on what is typed, without `keys`; when all of them are typed in a row it calls `onDetach`, once. */
export class DetachFilter extends Transform {
  readonly #keys: Buffer;
  readonly #onDetach: () => void;
  #matched = 0;

  constructor(keys: Buffer, onDetach: () => void) {
    super();
    this.#keys = keys;
    this.#onDetach = onDetach;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    const passed: number[] = [];
    for (const byte of chunk) {
      if (byte !== this.#keys[this.#matched] && this.#matched > 0) {
        passed.push(...this.#keys.subarray(0, this.#matched));
        this.#matched = 0;
      }
      if (byte !== this.#keys[this.#matched]) passed.push(byte);
      else if (++this.#matched === this.#keys.length) {
        this.#matched = 0;
        this.#onDetach();
        break;
      }
    }
    done(null, Buffer.from(passed));
  }

  override _flush(done: TransformCallback): void {
    done(null, this.#keys.subarray(0, this.#matched));
  }
}
