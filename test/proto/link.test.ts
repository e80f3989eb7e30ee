/** A link over a plain connection, with time that is handed to it. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { SocketLink } from '../../proto/link.ts';
import { VirtualClock } from '../simulation/clock.ts';

const frame = Buffer.from([3, 0, 0, 0, 1, 2, 3]);
const signOfLife = Buffer.alloc(4);

describe('a link', () => {
  it('that has said its last still hears the answers, however long they take', async () => {
    const server = createServer({ allowHalfOpen: true }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const accepting = once(server, 'connection') as Promise<[Socket]>;
    const near = connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1' });
    const [far] = await accepting;
    const clock = new VirtualClock();
    // What it needs of a connection, TLS has no part in.
    const link = new SocketLink(near as TLSSocket, 'opening', { clock, timeMs: 1_000, timeoutMs: 1_000 });
    const opened = new Promise<void>((resolve) => {
      far.write(signOfLife);
      link.start({ opened: resolve, frame: (bytes) => heard(bytes), closed: (problem) => closed(problem) });
    });
    let heard: (bytes: Buffer) => void = () => {};
    let closed: (problem: string) => void = () => {};
    const answer = new Promise<Buffer | string>((resolve) => {
      heard = resolve;
      closed = resolve;
    });
    await opened;
    link.write(Buffer.from('a question'));
    link.end();
    far.resume();
    await once(far, 'end');
    // Signs of life are due, but there is no way to send them any more.
    await clock.run(3_500);
    far.end(frame);
    assert.deepEqual(await answer, Buffer.from([1, 2, 3]));
    await once(near, 'close');
    server.close();
    await once(server, 'close');
  });
});
