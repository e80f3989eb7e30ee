/**
 * A link: frames of bytes, both ways, over one TLS connection of its own on the cluster's port, told from gRPC by its
 * application protocol (ALPN). For what two managers say to each other all the time: a message on a gRPC stream costs
 * several times the processor time of one here.
 *
 * In: frames, a connected socket. Out: frames in order, once each, until the link closes, and why it did. On the wire a
 * frame is its length (4 bytes, little-endian) and its bytes; an empty one is a sign of life, which the accepting side
 * answers with another. It decides nothing, and knows no one's identity.
 */
import type { TLSSocket } from 'node:tls';
import { messageOf } from './errors.ts';
import type { Clock, Timer } from './ports.ts';

/** The application protocol of TLS (ALPN) by which a link is asked for. */
export const linkProtocol = 'shoal-link/1';

const headBytes = 4;
/** The largest frame that is believed; what is longer than 64 MiB is refused before it is read. */
const maxFrameBytes = 80 * 2 ** 20;
/** Up to this size a frame is copied behind its head, to leave in one TLS record. */
const copiedBytes = 64 * 1024;
/** A loop that was busy for long gets this much time to read what lies ready before a silent link is given up. */
const graceMs = 100;
const signOfLife = Buffer.alloc(headBytes);

export interface LinkHandlers {
  /** The other side has been heard for the first time. */
  opened?(): void;
  frame(bytes: Buffer): void;
  /** It takes frames again after write() answered false. */
  drained?(): void;
  /** The other side says no more, but may still listen; without this, that ends the link. */
  ended?(): void;
  /** Called once, last; `problem` in words, and whether it is that nothing listens at the address. */
  closed(problem: string, isRefused: boolean): void;
}

export interface LinkTiming {
  readonly clock: Clock;
  /** A sign of life is asked for after this much silence; the link is given up after `timeoutMs` more. */
  readonly timeMs: number;
  readonly timeoutMs: number;
}

export interface Link {
  /** To be called once, before anything can arrive. */
  start(handlers: LinkHandlers): void;
  /** Sends a frame. false: it will go, but better no more until drained(). Does nothing on a closed link. */
  write(frame: Uint8Array): boolean;
  /** Sends what was written, then closes. */
  end(): void;
  /** Closes at once. */
  destroy(): void;
}

/** A link over `socket`; `side` says who opened it. */
export class SocketLink implements Link {
  readonly #socket: TLSSocket;
  readonly #side: 'opening' | 'accepting';
  readonly #timing: LinkTiming;
  #handlers: LinkHandlers | undefined;
  #timer: Timer | undefined;
  #heardMs: number;
  #isHeard = false;
  #isClosed = false;
  #problem: string | undefined;
  #isRefused = false;
  /** What arrived of a frame that is not whole yet. */
  #pieces: Buffer[] = [];
  #pieceBytes = 0;
  #neededBytes = headBytes;

  constructor(socket: TLSSocket, side: 'opening' | 'accepting', timing: LinkTiming) {
    this.#socket = socket;
    this.#side = side;
    this.#timing = timing;
    this.#heardMs = timing.clock.monotonicMs();
    socket.setNoDelay(true);
  }

  start(handlers: LinkHandlers): void {
    this.#handlers = handlers;
    const socket = this.#socket;
    socket.on('data', (bytes) => this.#received(bytes));
    socket.on('drain', () => handlers.drained?.());
    socket.on('error', (error: NodeJS.ErrnoException) => {
      this.#isRefused ||= error.code === 'ECONNREFUSED';
      this.#problem ??= messageOf(error);
    });
    // Read when the other side's end arrives.
    if (handlers.ended !== undefined) (socket as { allowHalfOpen: boolean }).allowHalfOpen = true;
    socket.on('end', () => {
      if (handlers.ended === undefined) socket.end();
      else handlers.ended();
    });
    socket.on('close', () => this.#closed());
    this.#timer = this.#timing.clock.after(this.#timing.timeMs, () => this.#watch());
    // Tells the other side that the link stands, before there is anything to say.
    if (this.#side === 'accepting') this.#giveSign();
  }

  write(frame: Uint8Array): boolean {
    const socket = this.#socket;
    if (!socket.writable || frame.length === 0) return true;
    if (frame.length <= copiedBytes) {
      const bytes = Buffer.allocUnsafe(headBytes + frame.length);
      bytes.writeUInt32LE(frame.length, 0);
      bytes.set(frame, headBytes);
      return socket.write(bytes);
    }
    const head = Buffer.allocUnsafe(headBytes);
    head.writeUInt32LE(frame.length, 0);
    socket.write(head);
    return socket.write(frame);
  }

  end(): void {
    this.#socket.end();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #received(bytes: Buffer): void {
    this.#heardMs = this.#timing.clock.monotonicMs();
    if (!this.#isHeard) {
      this.#isHeard = true;
      this.#handlers?.opened?.();
    }
    let rest = bytes;
    if (this.#pieceBytes > 0) {
      this.#pieces.push(bytes);
      this.#pieceBytes += bytes.length;
      if (this.#pieceBytes < this.#neededBytes) return;
      rest = Buffer.concat(this.#pieces, this.#pieceBytes);
      this.#pieces = [];
      this.#pieceBytes = 0;
    }
    this.#take(rest);
  }

  /** Hands out the whole frames in `bytes` and keeps the rest. */
  #take(bytes: Buffer): void {
    let at = 0;
    while (!this.#isClosed) {
      const has = bytes.length - at;
      const length = has < headBytes ? 0 : bytes.readUInt32LE(at);
      if (length > maxFrameBytes) {
        this.#give(`a frame of ${length} bytes is more than is allowed`);
        return;
      }
      this.#neededBytes = headBytes + length;
      if (has < this.#neededBytes) break;
      at += this.#neededBytes;
      if (length > 0) this.#handlers?.frame(bytes.subarray(at - length, at));
      else if (this.#side === 'accepting') this.#giveSign();
    }
    if (at >= bytes.length) return;
    this.#pieces = [at === 0 ? bytes : bytes.subarray(at)];
    this.#pieceBytes = bytes.length - at;
  }

  #watch(): void {
    if (this.#isClosed) return;
    const { clock, timeMs, timeoutMs } = this.#timing;
    const silentMs = clock.monotonicMs() - this.#heardMs;
    // One who has said its last gets no more signs, only answers: how long it waits for them is its owner's matter.
    const hasEnded = this.#side === 'opening' && this.#socket.writableEnded;
    if (silentMs > timeMs + timeoutMs && !hasEnded) {
      const heardMs = this.#heardMs;
      this.#timer = clock.after(graceMs, () => {
        if (this.#heardMs === heardMs) this.#give(`nothing heard for ${Math.round(silentMs)} ms`);
        else this.#watch();
      });
      return;
    }
    if (this.#side === 'opening' && this.#isHeard) this.#giveSign();
    this.#timer = clock.after(timeMs, () => this.#watch());
  }

  #giveSign(): void {
    if (this.#socket.writable) this.#socket.write(signOfLife);
  }

  #give(problem: string): void {
    this.#problem ??= problem;
    this.#socket.destroy();
  }

  #closed(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#timer?.cancel();
    this.#handlers?.closed(this.#problem ?? 'the other side closed the connection', this.#isRefused);
  }
}
