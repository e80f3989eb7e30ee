/**
 * A server stream as the code that feeds it sees it: somewhere to send that says when it can take more. What is
 * written against these interfaces runs over gRPC and, in a simulator, over nothing.
 */
import type { EventEmitter } from 'node:events';
import type { ShoalError } from './errors.ts';
import { failStream } from './rpc-status.ts';

/** The server's end of a stream to the client, whether or not the client streams too. */
type Writable<Message> = EventEmitter & {
  readonly cancelled: boolean;
  readonly closed: boolean;
  write(message: Message): boolean;
  end(): unknown;
};

/** The sending end of one stream. */
export interface Sink<Message> {
  /** Resolves when the transport can take another message; a transport that is gone resolves too. */
  send(message: Message): Promise<void>;
  /** Ends the stream, with the status of `error` when one is given. */
  end(error?: ShoalError): void;
}

/** What the transport holds: it calls close when the other side ended the stream. Closing twice is harmless. */
export interface StreamHandle {
  close(): void;
}

/** A gRPC server stream as a Sink: a full buffer is waited for, so that a slow reader costs no memory. */
export function sinkOf<Message>(call: Writable<Message>): Sink<Message> {
  let isOver = false;
  call.once('close', () => {
    isOver = true;
  });
  return {
    async send(message) {
      if (isOver || call.cancelled || call.write(message)) return;
      await drained(call);
    },
    end(error?: ShoalError) {
      if (isOver) return;
      isOver = true;
      if (error === undefined) call.end();
      else failStream(call, error);
    },
  };
}

const drainEvents = ['drain', 'close', 'error', 'cancelled'] as const;

/** Resolves when the stream's buffer is empty again, or the stream is over. It leaves no listener behind. */
export function drained(stream: EventEmitter): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      for (const event of drainEvents) stream.off(event, done);
      resolve();
    };
    for (const event of drainEvents) stream.once(event, done);
  });
}

/** Tells the handle when the other side has ended the stream, even if it did so before there was a handle. */
export function closeWith(call: Writable<never>, handle: StreamHandle): void {
  if (call.cancelled || call.closed) handle.close();
  else {
    call.once('cancelled', () => handle.close());
    call.once('close', () => handle.close());
  }
}
