/**
 * Two programs for the data plane's bench, to be run inside network namespaces. `serve PORT`: answers each line of a
 * connection by a line, and `bulk N` by N bytes. `ask ADDRESS PORT MILLISECONDS`: prints a StreamResult as JSON.
 */
import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';

export const streamProgram = fileURLToPath(import.meta.url);

export interface StreamResult {
  /** New connections with one question each, a second. */
  readonly connectionsPerSecond: number;
  /** Of a question on a connection that stands, in microseconds: the middle one. */
  readonly roundTripUs: number;
  readonly megabytesPerSecond: number;
}

const atATime = 8;
const bulkBytes = 64 * 1024 * 1024;
const chunk = Buffer.alloc(256 * 1024, 'x');

function serve(port: number): void {
  const server = createServer((socket) => {
    socket.setNoDelay(true);
    socket.on('error', () => socket.destroy());
    socket.on('data', (data) => {
      const bytes = Number(/^bulk (\d+)/.exec(data.toString())?.[1] ?? 0);
      if (bytes === 0) socket.write('answer\n');
      else void send(socket, bytes);
    });
  });
  server.listen(port, '0.0.0.0', () => process.stdout.write('ready\n'));
}

async function send(socket: Socket, bytes: number): Promise<void> {
  for (let sent = 0; sent < bytes && !socket.destroyed; sent += chunk.length) {
    if (!socket.write(chunk)) await once(socket, 'drain').catch(() => {});
  }
}

async function open(address: string, port: number): Promise<Socket> {
  const socket = connect({ host: address, port, noDelay: true });
  await once(socket, 'connect');
  return socket;
}

async function question(socket: Socket): Promise<void> {
  socket.write('question\n');
  await once(socket, 'data');
}

async function ask(address: string, port: number, durationMs: number): Promise<void> {
  const began = performance.now();
  let connections = 0;
  await Promise.all(
    Array.from({ length: atATime }, async () => {
      while (performance.now() - began < durationMs) {
        const socket = await open(address, port);
        await question(socket);
        // Closed in order, its port would be taken for a minute: after some seconds there are none left, and that is measured.
        socket.resetAndDestroy();
        connections += 1;
      }
    }),
  );
  const connectionsPerSecond = (connections / (performance.now() - began)) * 1000;
  const standing = await open(address, port);
  const times: number[] = [];
  for (const from = performance.now(); performance.now() - from < durationMs; ) {
    const at = performance.now();
    await question(standing);
    times.push((performance.now() - at) * 1000);
  }
  standing.destroy();
  const result: StreamResult = {
    connectionsPerSecond,
    roundTripUs: times.sort((a, b) => a - b)[Math.floor(times.length / 2)] ?? 0,
    megabytesPerSecond: await bulk(address, port),
  };
  process.stdout.write(`${JSON.stringify(result)}\n`);
}

async function bulk(address: string, port: number): Promise<number> {
  const socket = await open(address, port);
  const began = performance.now();
  let received = 0;
  socket.write(`bulk ${bulkBytes}\n`);
  for await (const data of socket) {
    received += (data as Buffer).length;
    if (received >= bulkBytes) break;
  }
  return received / 1_000_000 / ((performance.now() - began) / 1000);
}

if (process.argv[1] === streamProgram) {
  const [what, ...rest] = process.argv.slice(2);
  if (what === 'serve') serve(Number(rest[0]));
  else await ask(rest[0] ?? '', Number(rest[1]), Number(rest[2]));
}
