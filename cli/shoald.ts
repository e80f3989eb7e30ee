#!/usr/bin/env node
/**
 * shoald, the daemon's program. In: flags and signals. Out: the API on its sockets, metrics, a log on
 * standard error. It reads its flags, makes the adapters to the machine and hands them to the daemon; it
 * holds no state of its own.
 */
import { accessSync, constants, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { hostname } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { CommanderError } from 'commander';
import { DockerEngine } from '../agent/engine/docker.ts';
import type { Engine } from '../agent/engine/engine.ts';
import { SimulatedEngine } from '../agent/engine/simulated.ts';
import { type ApiListener, listen, removeStaleSocket } from '../manager/api/listen.ts';
import { createApi } from '../manager/api/server.ts';
import { gossipPort } from '../manager/gossip-relay.ts';
import type { Metrics } from '../manager/metrics.ts';
import { messageOf, ShoalError } from '../proto/errors.ts';
import type { Log } from '../proto/ports.ts';
import { hostOf, portOf, withPort } from './addresses.ts';
import { Daemon } from './daemon.ts';
import { hostNetworkOf } from './host-network.ts';
import { lockFolder } from './lock.ts';
import { runFolderOf } from './run-folder.ts';
import { realClock, realLog, realRandom } from './runtime.ts';
import { type Flags, genericResourcesOf, hostsOf, readFlags, tlsOf } from './shoald-flags.ts';
import { UsageError } from './usage.ts';

function engineOf(address: string, dataDir: string, log: Log): Engine {
  if (address === 'simulated') return simulatedEngine(join(dataDir, 'simulated-engine.json'));
  return new DockerEngine({ address, clock: realClock, random: realRandom, log });
}

/** Its containers outlive this process, as a real engine's do, by a file; daemons of a machine share its id. */
function simulatedEngine(path: string): Engine {
  return new SimulatedEngine({
    clock: realClock,
    random: realRandom,
    engineId: `simulated-${hostname()}`,
    hostname: hostname(),
    startMs: [150, 400],
    stopMs: [50, 200],
    from: existsSync(path) ? readFileSync(path, 'utf8') : undefined,
    remember: (memory) => writeFileSync(path, memory, { mode: 0o600 }),
  });
}

/** Makes a folder of this daemon, or says who may. */
function makeFolder(path: string, what: string, mode?: number): void {
  try {
    mkdirSync(path, { recursive: true, ...(mode === undefined ? {} : { mode }) });
    accessSync(path, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const reason =
      code === 'EACCES' || code === 'EPERM'
        ? `permission denied; run shoald as root, or choose another place with ${what}`
        : messageOf(error);
    throw new ShoalError('permission-denied', `${what}: the folder ${path} can't be used: ${reason}`, {
      cause: error,
    });
  }
}

function serveMetrics(address: string, metrics: Metrics, log: Log): Server | undefined {
  if (address === '') return undefined;
  const server = createServer((request, response) => {
    if (request.url !== '/metrics') {
      response.writeHead(404).end('metrics are at /metrics\n');
      return;
    }
    metrics.registry.metrics().then(
      (text) => response.writeHead(200, { 'Content-Type': metrics.registry.contentType }).end(text),
      (error) => response.writeHead(500).end(`${messageOf(error)}\n`),
    );
  });
  server.on('error', (error) => log.error({ address }, `metrics are not served: ${messageOf(error)}`));
  server.listen(portOf(address), hostOf(address).replace(/^\[|\]$/g, ''));
  return server;
}

async function run(flags: Flags): Promise<void> {
  const log = realLog(flags.logLevel);
  endOnFault(log);
  const hosts = hostsOf(flags);
  const tls = tlsOf(flags);
  const dataDir = resolve(flags.dataDir);
  const fatal = (error: unknown): void => {
    log.error({}, messageOf(error));
    process.exit(1);
  };
  makeFolder(dataDir, '--data-dir', 0o700);
  await lockFolder(dataDir);
  for (const host of hosts) {
    if (!host.startsWith('unix://')) continue;
    makeFolder(dirname(host.slice('unix://'.length)), '--host');
    // Seen before the node goes back to work, so that a mistake in a flag moves no tasks.
    await removeStaleSocket(host.slice('unix://'.length));
  }
  const hostNetwork = await hostNetworkOf(flags, log);
  const daemon = new Daemon({
    dataDir,
    runDir: runFolderOf(dataDir),
    listenAddress: withPort(flags.listenAddr, '--listen-addr'),
    advertiseAddress: flags.advertiseAddr,
    gossipAddress: flags.gossipAddr && withPort(flags.gossipAddr, '--gossip-addr', gossipPort),
    hostname: flags.name ?? hostname(),
    genericResources: genericResourcesOf(flags),
    engine: engineOf(flags.engine, dataDir, log),
    hostNetwork,
    clock: realClock,
    random: realRandom,
    log,
    onFatal: fatal,
  });
  await daemon.start();
  const api = await listen(createApi(daemon), hosts, { log, ...tls }).catch(async (error) => {
    await daemon.stop();
    throw error;
  });
  const metrics = serveMetrics(flags.metricsAddr, daemon.metrics, log);
  endOnSignal(daemon, api, metrics, log);
}

/** What nobody foresaw ends the daemon, which is then started anew; containers go on. */
function endOnFault(log: Log): void {
  const end = (error: unknown): void => {
    const stack = error instanceof Error ? error.stack : undefined;
    log.error({ ...(stack ? { stack } : {}) }, `shoald ends for a fault of its own: ${messageOf(error)}`);
    process.exit(1);
  };
  process.on('uncaughtException', end);
  process.on('unhandledRejection', end);
}

function endOnSignal(daemon: Daemon, api: ApiListener, metrics: Server | undefined, log: Log): void {
  let ending = false;
  const end = async (signal: string): Promise<void> => {
    if (ending) process.exit(1);
    ending = true;
    log.info({ signal }, 'ending; containers go on');
    metrics?.close();
    await daemon.stop();
    await api.close();
    process.exit(0);
  };
  for (const signal of ['SIGTERM', 'SIGINT']) {
    process.on(signal, () => {
      end(signal).catch((error) => {
        log.error({}, messageOf(error));
        process.exit(1);
      });
    });
  }
}

try {
  await run(readFlags(process.argv.slice(2)));
} catch (error) {
  if (error instanceof CommanderError) process.exit(error.exitCode === 0 ? 0 : 2);
  process.stderr.write(`shoald: ${messageOf(error)}\n`);
  process.exit(error instanceof UsageError ? 2 : 1);
}
