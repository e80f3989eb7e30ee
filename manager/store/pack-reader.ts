/**
 * Reads MessagePack a value at a time, so that a long map or array need not be taken whole. It finds out first how far
 * the values reach: msgpackr looks far ahead for strings, in vain when it is not asked for what it found. Pure.
 */
import type { Unpackr } from 'msgpackr';

export class PackReader {
  private readonly bytes: Buffer;
  private readonly unpackr: Unpackr;
  private at = 0;

  constructor(data: Uint8Array, unpackr: Unpackr) {
    this.bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    this.unpackr = unpackr;
  }

  /** How many pairs of values follow. Throws when no map is here. */
  mapHead(): number {
    return this.head(0x80, 0xde);
  }

  /** How many values follow. Throws when no array is here. */
  arrayHead(): number {
    return this.head(0x90, 0xdc);
  }

  value(): unknown {
    return this.values(1)[0];
  }

  /** The next `count` values, at least one. Throws when there are fewer, or one is damaged. */
  values(count: number): unknown[] {
    const end = endOf(this.bytes, this.at, count);
    if (end > this.bytes.length) throw new RangeError(`the bytes end within a value at byte ${this.at}`);
    const values = this.unpackr.unpackMultiple(this.bytes.subarray(this.at, end)) as unknown[];
    this.at = end;
    return values;
  }

  /** Throws when there is more. */
  requireEnd(): void {
    if (this.at !== this.bytes.length) throw new RangeError(`something follows at byte ${this.at}`);
  }

  /** `short`: the type of up to 15, in one byte with the length; `long`: that of a 16-bit length, then of a 32-bit one. */
  private head(short: number, long: number): number {
    const type = this.bytes.readUInt8(this.at);
    this.at += 1;
    if ((type & 0xf0) === short) return type & 0x0f;
    if (type !== long && type !== long + 1)
      throw new RangeError(`byte ${this.at - 1}: unexpected type ${type}`);
    const width = type === long ? 2 : 4;
    const length = this.bytes.readUIntBE(this.at, width);
    this.at += width;
    return length;
  }
}

/** Where `count` values that begin at `at` end; past the end of `bytes` when they are cut short. */
function endOf(bytes: Buffer, at: number, count: number): number {
  let left = count;
  let position = at;
  while (left > 0 && position < bytes.length) {
    const type = bytes[position]!;
    position += 1;
    left -= 1;
    if (type < 0x80 || type >= 0xe0) continue;
    if (type < 0x90) left += 2 * (type & 0x0f);
    else if (type < 0xa0) left += type & 0x0f;
    else if (type < 0xc0) position += type & 0x1f;
    else {
      const { width, fixed, times } = shapes[type - 0xc0]!;
      if (position + width > bytes.length) return Number.POSITIVE_INFINITY;
      const length = width === 0 ? 0 : bytes.readUIntBE(position, width);
      position += width + fixed;
      if (times === 0) position += length;
      else left += times * length;
    }
  }
  return left > 0 ? Number.POSITIVE_INFINITY : position;
}

/** What follows a type: a length of so many bytes, then bytes; or, times the length, values. */
interface Shape {
  readonly width: number;
  readonly fixed: number;
  readonly times: number;
}

const bytesOf = (width: number, fixed = 0): Shape => ({ width, fixed, times: 0 });

/** From 0xc0 (nil) to 0xdf (map with a length of 32 bits), as MessagePack's specification numbers them. */
const shapes: readonly Shape[] = [
  // nil, never used, false, true
  ...[bytesOf(0), bytesOf(0), bytesOf(0), bytesOf(0)],
  // bytes; extensions, with a type of their own
  ...[bytesOf(1), bytesOf(2), bytesOf(4)],
  ...[bytesOf(1, 1), bytesOf(2, 1), bytesOf(4, 1)],
  // numbers: floats, unsigned, signed
  ...[bytesOf(0, 4), bytesOf(0, 8)],
  ...[bytesOf(0, 1), bytesOf(0, 2), bytesOf(0, 4), bytesOf(0, 8)],
  ...[bytesOf(0, 1), bytesOf(0, 2), bytesOf(0, 4), bytesOf(0, 8)],
  // extensions of 1, 2, 4, 8 and 16 bytes
  ...[bytesOf(0, 2), bytesOf(0, 3), bytesOf(0, 5), bytesOf(0, 9), bytesOf(0, 17)],
  // text
  ...[bytesOf(1), bytesOf(2), bytesOf(4)],
  // arrays, maps
  ...[2, 4].map((width) => ({ width, fixed: 0, times: 1 })),
  ...[2, 4].map((width) => ({ width, fixed: 0, times: 2 })),
];
