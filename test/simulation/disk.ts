/**
 * A disk in memory that fails the way disks do: a crash loses what was not flushed (or keeps a torn part
 * of it), bits flip, space runs out half-way through a write.
 */
import type { AppendFile, Disk } from '../../manager/raft/contract.ts';
import { ShoalError } from '../../proto/errors.ts';
import type { Clock } from '../../proto/ports.ts';

export interface SimulatedDiskOptions {
  /** With a clock, every flush takes `flushMs` of its time; without, a flush is done at once. */
  readonly clock?: Clock;
  readonly flushMs?: number;
  /** Draws whether an append is durable on the spot; without, none is. */
  readonly isQuick?: () => boolean;
  /** Draws, in [0, 1), how much of an unflushed append a crash leaves behind; without, nothing of it. */
  readonly tear?: () => number;
}

/** A Disk in memory. It outlives the member that uses it: crash(), then open it again. */
export class SimulatedDisk implements Disk {
  readonly #files = new Map<string, Uint8Array>();
  readonly #options: SimulatedDiskOptions;
  /** Appends that were handed over but are not durable yet. */
  readonly #unflushed = new Set<{ readonly name: string; readonly data: Uint8Array }>();
  /** How much of a file's growing buffer is in use. */
  readonly #ends = new WeakMap<ArrayBufferLike, number>();
  #epoch = 0;
  #capacityBytes = Number.POSITIVE_INFINITY;
  #flushes = 0;
  #slowMs = 0;
  /** Where the last append that was flushed begins, of each file. */
  readonly #lastStarts = new Map<string, number>();

  constructor(options: SimulatedDiskOptions = {}) {
    this.#options = options;
  }

  /** How many appends and replacements became durable. */
  get flushes(): number {
    return this.#flushes;
  }

  get usedBytes(): number {
    let usedBytes = 0;
    for (const data of this.#files.values()) usedBytes += data.length;
    return usedBytes;
  }

  /** From now on the files may hold `capacityBytes` together; more is refused as a full disk refuses it. */
  limit(capacityBytes: number): void {
    this.#capacityBytes = capacityBytes;
  }

  /** From now on each flush takes `slowMs` longer. */
  slow(slowMs: number): void {
    this.#slowMs = slowMs;
  }

  get isSlow(): boolean {
    return this.#slowMs > 0;
  }

  /** Where the last flushed append to `name` begins: a log that is damaged before it cannot be told to be whole. */
  lastStartOf(name: string): number {
    return this.#lastStarts.get(name) ?? 0;
  }

  /** The machine dies: what was not flushed is gone, or torn; handles from before answer nothing but errors. */
  crash(): void {
    this.#epoch += 1;
    for (const { name, data } of this.#unflushed) {
      const keptBytes = Math.floor((this.#options.tear?.() ?? 0) * data.length);
      this.#extend(name, data.subarray(0, keptBytes));
    }
    this.#unflushed.clear();
  }

  /** Flips one bit of what stands on the disk. */
  flipBit(name: string, byteOffset: number, bit = 0): void {
    const data = this.contents(name).slice();
    data[byteOffset] = (data[byteOffset] ?? 0) ^ (1 << bit);
    this.#files.set(name, data);
  }

  /** The bytes of `name` as they would be read. */
  contents(name: string): Uint8Array {
    const data = this.#files.get(name);
    if (data === undefined) throw new Error(`${name}: no such file on the simulated disk`);
    return data;
  }

  /** Puts a file there, as if it had been written long ago. */
  place(name: string, data: Uint8Array): void {
    this.#files.set(name, data.slice());
  }

  async list(): Promise<readonly string[]> {
    return [...this.#files.keys()].sort();
  }

  async read(name: string): Promise<Uint8Array> {
    return this.contents(name).slice();
  }

  async create(name: string): Promise<AppendFile> {
    this.#files.set(name, new Uint8Array());
    this.#lastStarts.delete(name);
    return this.#handle(name);
  }

  async reopen(name: string, keepBytes: number): Promise<AppendFile> {
    this.#files.set(name, this.contents(name).slice(0, keepBytes));
    if (this.lastStartOf(name) >= keepBytes) this.#lastStarts.set(name, 0);
    return this.#handle(name);
  }

  async replace(name: string, data: Uint8Array | readonly Uint8Array[]): Promise<void> {
    const epoch = this.#epoch;
    const copy = data instanceof Uint8Array ? data.slice() : new Uint8Array(Buffer.concat(data));
    if (this.usedBytes + copy.length > this.#capacityBytes) throw diskFull(name);
    await this.#flushTime();
    if (epoch !== this.#epoch) throw crashed();
    this.#files.set(name, copy);
    this.#flushes += 1;
  }

  async remove(name: string): Promise<void> {
    this.#files.delete(name);
    this.#lastStarts.delete(name);
  }

  #handle(name: string): AppendFile {
    const epoch = this.#epoch;
    let isClosed = false;
    let isBusy = false;
    const written = (data: Uint8Array): void => {
      this.#lastStarts.set(name, this.#files.get(name)?.length ?? 0);
      this.#extend(name, data);
      this.#flushes += 1;
    };
    const append = (data: Uint8Array): Promise<void> | undefined => {
      if (epoch !== this.#epoch) return Promise.reject(crashed());
      if (isClosed) return Promise.reject(new Error(`append to ${name} after close`));
      if (isBusy) return Promise.reject(new Error(`two appends to ${name} at the same time`));
      const roomBytes = this.#capacityBytes - this.usedBytes;
      if (data.length > roomBytes) {
        this.#extend(name, data.slice(0, Math.max(0, roomBytes)));
        return Promise.reject(diskFull(name));
      }
      if (this.#slowMs === 0 && this.#options.isQuick?.() === true) {
        written(data.slice());
        return undefined;
      }
      return appendLater(data.slice());
    };
    const appendLater = async (data: Uint8Array): Promise<void> => {
      isBusy = true;
      const write = { name, data };
      this.#unflushed.add(write);
      await this.#flushTime();
      if (epoch !== this.#epoch) throw crashed();
      this.#unflushed.delete(write);
      written(data);
      isBusy = false;
    };
    return {
      append,
      close: async () => {
        isClosed = true;
      },
    };
  }

  #extend(name: string, data: Uint8Array): void {
    const existing = this.#files.get(name);
    if (existing === undefined) return;
    const length = existing.length + data.length;
    // What stands behind a view's end is nobody's: the view that reaches furthest may grow into it.
    const isLast = this.#ends.get(existing.buffer) === existing.length;
    const hasRoom = isLast && existing.byteOffset === 0 && existing.buffer.byteLength >= length;
    const buffer = hasRoom ? existing.buffer : new ArrayBuffer(2 * length);
    const whole = new Uint8Array(buffer, 0, length);
    if (!hasRoom) whole.set(existing);
    whole.set(data, existing.length);
    this.#ends.set(buffer, length);
    this.#files.set(name, whole);
  }

  #flushTime(): Promise<void> {
    const { clock, flushMs = 0 } = this.#options;
    if (clock === undefined) return Promise.resolve();
    return new Promise((resolve) => {
      clock.after(flushMs + this.#slowMs, resolve);
    });
  }
}

function diskFull(name: string): ShoalError {
  return new ShoalError('disk-full', `no space left for ${name} on the simulated disk`);
}

function crashed(): Error {
  return new Error('the simulated machine crashed');
}
