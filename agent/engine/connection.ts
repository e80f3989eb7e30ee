/**
 * A connection to the engine for bytes that are passed on. An engine may hang up on what it is being sent, a build's
 * context for one, and what it said before is then still to be read: as with the system's own sockets, a write that
 * fails takes nothing away from the reader, who finds the end after the last of it.
 */
import net from 'node:net';

export class EngineConnection extends net.Socket {
  override _write(chunk: unknown, encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    super._write(chunk, encoding, () => callback());
  }

  override _writev(
    chunks: { chunk: unknown; encoding: BufferEncoding }[],
    callback: (error?: Error | null) => void,
  ): void {
    super._writev!(chunks, () => callback());
  }

  override destroy(error?: Error): this {
    const { code, syscall } = (error ?? {}) as NodeJS.ErrnoException;
    if (code !== 'ECONNRESET' || syscall !== 'read') return super.destroy(error);
    // What was read but not yet passed on goes first.
    this.push(null);
    this.read(0);
    return this;
  }
}
