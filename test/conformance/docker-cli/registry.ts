/**
 * A registry that has nothing, and writes down with which credentials it was asked for what. Run as a program on the
 * engine's host: `node registry.js PORT LOG`.
 */
import { appendFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { fileURLToPath } from 'node:url';

/** This file, compiled. */
export const registryProgram = fileURLToPath(import.meta.url);

function serve(port: number, log: string): void {
  createServer((request, response) => {
    const credentials = request.headers.authorization;
    if (credentials === undefined) {
      response.writeHead(401, { 'WWW-Authenticate': 'Basic realm="flags"' }).end();
      return;
    }
    appendFileSync(log, `${request.url} ${credentials}\n`);
    response.writeHead(request.url === '/v2/' ? 200 : 404).end();
  }).listen(port, '127.0.0.1');
}

if (process.argv[1] === registryProgram) serve(Number(process.argv[2]), process.argv[3] ?? '');
