/**
 * What the agent and the process that answers names say to each other, over a socket of this host: a line of JSON each.
 * `hello` and `end` stay as they are from version to version, for by them one of another version is replaced.
 */

import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';
import type { EndpointsUpdate } from '../../proto/generated/shoal/v1/EndpointsUpdate.ts';
import type { Desired } from './desired.ts';

/** DNS servers that who asks wants to be asked for foreign names, by `network id/address`. */
export type ServersByEnd = readonly (readonly [end: string, servers: readonly string[]])[];

/** The agent's. Each but `end` is answered by `done` with the same id. */
export type Told =
  /** Answers are from this state from now on. */
  | { readonly kind: 'state'; readonly id: number; readonly desired: Desired }
  /** As `state`: the one before with this update on top. */
  | { readonly kind: 'update'; readonly id: number; readonly update: EndpointsUpdate }
  | { readonly kind: 'servers'; readonly id: number; readonly servers: ServersByEnd }
  /** Listen on the addresses of the state; `done` names those that can't be opened. */
  | { readonly kind: 'listen'; readonly id: number }
  /** Close everything and end; the connection's end says that it is so. */
  | { readonly kind: 'end' };

/** The process's. */
export type Said =
  /** The first. */
  | { readonly kind: 'hello'; readonly version: string; readonly pid: number }
  | { readonly kind: 'done'; readonly id: number; readonly problems: readonly string[] }
  | { readonly kind: 'warn'; readonly fields: Record<string, unknown>; readonly message: string };

/** Writes one message. */
export function sendLine(socket: Socket, message: Told | Said): void {
  if (socket.writable) socket.write(`${JSON.stringify(message)}\n`);
}

/** Hears the messages that come on `socket`. What is no message ends the connection. */
export function onLines<Message extends Told | Said>(socket: Socket, hear: (message: Message) => void): void {
  const lines = createInterface({ input: socket });
  // It hands on the errors of its input, which end the connection; without a listener they would end the program.
  lines.on('error', () => socket.destroy());
  lines.on('line', (line) => {
    let message: Message;
    try {
      message = JSON.parse(line) as Message;
    } catch {
      socket.destroy();
      return;
    }
    hear(message);
  });
}
