/**
 * What a task of the lab serves where busybox, which makes a process for each connection, would be what is measured: its host
 * name over HTTP. Connections are kept when the client wants it. On SIGTERM it behaves as a server should: it takes no new
 * connection, says with the next answer on each that it is the last one there, and ends a moment after all are over, for
 * what the kernel has yet to deliver is lost with the container's network. What reaches it after SIGTERM is refused.
 */
import { createServer, type Socket } from 'node:net';
import { hostname } from 'node:os';
import { fileURLToPath } from 'node:url';

/** From SIGTERM until it ends, and connections on which nothing is asked any more are let go of. */
const restMs = 1_000;
/** Where the lab's hosts and its containers have Node.js and what it is linked with. */
const paths = { node: '/node', program: '/http-server.mjs' } as const;

/** Flags of a service whose containers can run this program, and the words that do. */
export const httpServer = {
  flags: [
    [process.execPath, paths.node],
    [fileURLToPath(import.meta.url), paths.program],
    ['/lib', '/lib'],
    ['/lib64', '/lib64'],
  ].flatMap(([source, target]) => ['--mount', `type=bind,source=${source},target=${target},readonly`]),
  command: [paths.node, '--max-semi-space-size=2', paths.program],
} as const;

function answerOf(isLast: boolean): string {
  const body = `${hostname()}\n`;
  return `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\nConnection: ${isLast ? 'close' : 'keep-alive'}\r\n\r\n${body}`;
}

function serve(port: number): void {
  const answers = { further: answerOf(false), last: answerOf(true) };
  const open = new Set<Socket>();
  let isEnding = false;
  const server = createServer({ noDelay: true }, (socket) => {
    open.add(socket);
    let heard = '';
    socket.setEncoding('latin1');
    socket.on('error', () => socket.destroy());
    socket.on('close', () => open.delete(socket));
    socket.on('data', (chunk: string) => {
      heard += chunk;
      const end = heard.indexOf('\r\n\r\n');
      if (end < 0) return;
      const isLast = isEnding || heard.slice(0, end).includes('Connection: close');
      heard = heard.slice(end + 4);
      if (isLast) socket.end(answers.last);
      else socket.write(answers.further);
    });
  });
  server.listen(port);
  process.on('SIGTERM', () => {
    isEnding = true;
    // Without unref: it stays for that long, and longer when there is more to answer.
    setTimeout(() => {
      for (const socket of open) socket.end();
    }, restMs);
    server.close();
  });
}

if (process.argv[1] === paths.program) serve(80);
