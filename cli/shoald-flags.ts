/**
 * The daemon's flags, read and checked before anything is touched: whatever can be seen to be wrong is a
 * UsageError that names the flag.
 */
import { readFileSync } from 'node:fs';
import { Command, Option } from 'commander';
import type { TlsMaterial } from '../manager/api/listen.ts';
import type { GenericResource } from '../proto/docker.ts';
import { messageOf } from '../proto/errors.ts';
import { packageVersion } from '../proto/version.ts';
import { defaultHost } from './client.ts';
import { collect } from './context.ts';
import { parseGenericResource } from './parse.ts';
import { type LogLevel, logLevels } from './runtime.ts';
import { UsageError } from './usage.ts';

/** What the daemon is told on its command line. */
export interface Flags {
  dataDir: string;
  host?: string[];
  listenAddr: string;
  advertiseAddr?: string;
  engine: string;
  metricsAddr: string;
  gossipAddr?: string;
  dataPlane: 'auto' | 'proxy' | 'off';
  dataPathKeyRotation: string;
  logLevel: LogLevel;
  name?: string;
  nodeGenericResource?: string[];
  tlscacert?: string;
  tlscert?: string;
  tlskey?: string;
}

/** The daemon's command, to be parsed by readFlags. */
export function makeProgram(): Command {
  return new Command('shoald')
    .description('the daemon: an agent, and a manager where the node is one')
    .version(packageVersion(), '-v, --version')
    .option('--data-dir <path>', "this node's state", '/var/lib/shoal')
    .option(
      '--host <address>',
      `where the API listens: unix:///PATH or tcp://HOST:PORT (default ${defaultHost})`,
      collect,
    )
    .option('--listen-addr <address>', 'where managers listen for nodes', '0.0.0.0:2377')
    .option('--advertise-addr <address>', 'address that other nodes reach this one by (HOST[:PORT])')
    .option(
      '--engine <address>',
      'unix:///PATH of the container engine, or "simulated"',
      'unix:///var/run/docker.sock',
    )
    .option('--metrics-addr <address>', 'where /metrics is served; empty: nowhere', '127.0.0.1:9323')
    .option(
      '--gossip-addr <address>',
      "where a manager lets stock Docker engines find each other, which always ask at port 7946; empty: nowhere (default the advertised host's 7946)",
    )
    .addOption(
      new Option(
        '--data-plane <mode>',
        "networks between hosts: auto (where the host can, else proxy), proxy (a network's tasks stay on one engine, published ports are answered by a TCP proxy), off (neither)",
      )
        .choices(['auto', 'proxy', 'off'])
        .default('auto'),
    )
    .option(
      '--data-path-key-rotation <duration>',
      'how often the key of encrypted networks becomes a new one',
      '12h',
    )
    .addOption(
      new Option('--log-level <level>', 'least level that is logged').choices(logLevels).default('info'),
    )
    .option('--name <name>', "the node's name (default: the host's name)")
    .option(
      '--node-generic-resource <resource>',
      'what the node has to give out: KIND=AMOUNT, or KIND=ID once for each piece; beside what its engine tells',
      collect,
    )
    .option('--tlscacert <path>', 'authority whose clients may use a tcp:// host')
    .option('--tlscert <path>', 'certificate of a tcp:// host')
    .option('--tlskey <path>', 'key of a tcp:// host')
    .allowExcessArguments(false)
    .showHelpAfterError('Run "shoald --help" for its flags.')
    .exitOverride();
}

/** The flags of a command line. Throws UsageError, or commander's own error for help and unknown flags. */
export function readFlags(words: readonly string[], program: Command = makeProgram()): Flags {
  program.parse(words, { from: 'user' });
  const flags = program.opts<Flags>();
  checkFlags(flags, hostsOf(flags));
  return flags;
}

/** Where the API is to listen. */
export function hostsOf(flags: Flags): readonly string[] {
  return flags.host ?? [defaultHost];
}

/** The node's generic resources. Throws UsageError for one that can't be read, or a kind both counted and named. */
export function genericResourcesOf(flags: Flags): GenericResource[] {
  const found = new Map<string, GenericResource>();
  const counted = new Map<string, boolean>();
  for (const text of (flags.nodeGenericResource ?? []).flatMap((one) => one.split(','))) {
    const resource = parseGenericResource(text, '--node-generic-resource');
    const { NamedResourceSpec: named, DiscreteResourceSpec: discrete } = resource;
    const kind = named?.Kind ?? discrete!.Kind;
    const key = named ? `${kind}=${named.Value}` : kind;
    if (found.has(key) || (counted.get(kind) ?? named === undefined) !== (named === undefined)) {
      throw new UsageError(
        `--node-generic-resource "${text}": give ${kind} one amount, or every piece of it its own id`,
      );
    }
    counted.set(kind, named === undefined);
    found.set(key, resource);
  }
  return [...found.values()];
}

/** The files of a tcp:// host, read; nothing when there is none. Throws UsageError when one is missing. */
export function tlsOf(flags: Flags): { tls: TlsMaterial } | Record<string, never> {
  const { tlscacert, tlscert, tlskey } = flags;
  if (!tlscacert && !tlscert && !tlskey) return {};
  if (!tlscacert || !tlscert || !tlskey)
    throw new UsageError('--tlscacert, --tlscert and --tlskey go together: a tcp:// host needs all three');
  const read = (flag: string, path: string): string => {
    try {
      return readFileSync(path, 'utf8');
    } catch (error) {
      throw new UsageError(`${flag} ${path} can't be read: ${messageOf(error)}`);
    }
  };
  return {
    tls: {
      ca: read('--tlscacert', tlscacert),
      cert: read('--tlscert', tlscert),
      key: read('--tlskey', tlskey),
    },
  };
}

/** Refuses what can be seen to be wrong before anything is touched. Throws UsageError with the flag's name. */
function checkFlags(flags: Flags, hosts: readonly string[]): void {
  for (const host of hosts) {
    if (!/^(unix:\/\/\/.|tcp:\/\/.)/.test(host))
      throw new UsageError(`--host "${host}": write unix:///PATH or tcp://HOST:PORT`);
    if (host.startsWith('tcp://') && !flags.tlskey)
      throw new UsageError(
        `--host ${host} needs --tlscacert, --tlscert and --tlskey: whoever reaches it without would be root on every node`,
      );
  }
  if (flags.engine !== 'simulated' && !/^unix:\/\/\/./.test(flags.engine))
    throw new UsageError(`--engine "${flags.engine}": write unix:///PATH or simulated`);
  checkAddress(flags.listenAddr, '--listen-addr');
  if (flags.advertiseAddr !== undefined) checkAddress(flags.advertiseAddr, '--advertise-addr');
  if (flags.metricsAddr !== '') checkAddress(flags.metricsAddr, '--metrics-addr', 0);
  if (flags.gossipAddr) checkAddress(flags.gossipAddr, '--gossip-addr', 0);
  if (flags.name !== undefined && !/^[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,62})$/.test(flags.name))
    throw new UsageError(
      `--name "${flags.name}": up to 63 letters, digits, dots, dashes and underscores, the first a letter or digit`,
    );
  genericResourcesOf(flags);
  if (flags.dataDir === '') throw new UsageError('--data-dir is empty');
}

function checkAddress(text: string, flag: string, least = 1): void {
  const match = /^(\[[0-9a-fA-F:.]+\]|[^:\s]*)(?::(\d{1,5}))?$/.exec(text);
  const port = match?.[2] === undefined ? undefined : Number(match[2]);
  const isPort = port === undefined || (port >= least && port <= 65_535);
  if (match && isPort && match[1] !== '') return;
  throw new UsageError(`${flag} "${text}" is not an address: write HOST or HOST:PORT`);
}
