/** One look at what a task serves for Prometheus: a plain GET, bounded in time and size. */
import { get } from 'node:http';
import { ShoalError } from '../proto/errors.ts';
import type { Clock } from '../proto/ports.ts';

const withinMs = 3_000;
const mostBytes = 4 * 1024 * 1024;

export type Scrape = (address: string, port: number, path: string) => Promise<string>;

/** Asks over HTTP. Rejects with a ShoalError that says what is wrong there. */
export function httpScrape(clock: Clock): Scrape {
  return (host, port, path) =>
    new Promise((resolve, reject) => {
      const where = `http://${host}:${port}${path}`;
      const fail = (reason: string): void => {
        timer.cancel();
        request.destroy();
        reject(new ShoalError('unavailable', `${where}: ${reason}`));
      };
      const request = get({ host, port, path, agent: false }, (response) => {
        if (response.statusCode !== 200) return fail(`it answers status ${response.statusCode}`);
        const chunks: Buffer[] = [];
        let bytes = 0;
        response.on('data', (chunk: Buffer) => {
          chunks.push(chunk);
          bytes += chunk.length;
          if (bytes > mostBytes) fail(`it answers more than ${mostBytes} bytes`);
        });
        response.on('error', (error) => fail(error.message));
        response.on('end', () => {
          timer.cancel();
          resolve(Buffer.concat(chunks).toString('utf8'));
        });
      });
      const timer = clock.after(withinMs, () => fail(`no answer within ${withinMs / 1000} s`));
      request.on('error', (error) => fail(error.message));
    });
}
