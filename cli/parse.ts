/** Reads what people type: durations, sizes, ports, mounts, key=value lists. Pure; errors name the text. */
import type { FileTarget, GenericResource, NetworkAttachmentConfig, PortConfig } from '../proto/docker.ts';
import { UsageError } from './usage.ts';

function refuse(message: string): UsageError {
  return new UsageError(message);
}

const unitNanoseconds: Record<string, number> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
};

/** Nanoseconds of a Go-style duration such as `1m30s` or `500ms`. */
export function parseDuration(text: string, what: string): number {
  if (text === '0') return 0;
  const parts = [...text.matchAll(/(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)/g)];
  if (parts.length === 0 || parts.map((part) => part[0]).join('') !== text) {
    throw refuse(`${what}: "${text}" is not a duration; write e.g. 500ms, 10s or 1m30s`);
  }
  return Math.round(parts.reduce((sum, part) => sum + Number(part[1]) * unitNanoseconds[part[2]!]!, 0));
}

/** Bytes of a size such as `512M`, `1.5g` or `1048576`. */
export function parseBytes(text: string, what: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?$/i.exec(text);
  if (!match) throw refuse(`${what}: "${text}" is not a size; write e.g. 512M or 1G`);
  return Math.round(Number(match[1]) * 1024 ** ['', 'k', 'm', 'g', 't'].indexOf(match[2]!.toLowerCase()));
}

/** 10⁻⁹ cores of a number such as `0.5`. */
export function parseCpus(text: string, what: string): number {
  const cpus = Number(text);
  if (!Number.isFinite(cpus) || cpus < 0)
    throw refuse(`${what}: "${text}" is not a number of CPUs; write e.g. 0.5`);
  return Math.round(cpus * 1e9);
}

/** A whole number that is not negative. */
export function parseCount(text: string, what: string): number {
  if (!/^\d+$/.test(text)) throw refuse(`${what}: "${text}" is not a whole number`);
  return Number(text);
}

/** A number from 0 to 1. */
export function parseRatio(text: string, what: string): number {
  const ratio = Number(text);
  if (!(ratio >= 0 && ratio <= 1)) throw refuse(`${what}: "${text}" is not a ratio between 0 and 1`);
  return ratio;
}

/** One of `choices`. */
export function parseChoice<T extends string>(text: string, what: string, choices: readonly T[]): T {
  const choice = choices.find((candidate) => candidate === text);
  if (choice === undefined) throw refuse(`${what}: "${text}" is not one of ${choices.join(', ')}`);
  return choice;
}

/** `key=value` pairs as an object; a pair without = has an empty value. */
export function parseLabels(pairs: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = pair.indexOf('=');
      return at < 0 ? [pair, ''] : [pair.slice(0, at), pair.slice(at + 1)];
    }),
  );
}

type Field = readonly [key: string, value: string];

/** Fields of `a=1,b=2,flag` in order; quotes around a field, as CSV has them, keep commas in it. */
export function parseFields(text: string): Field[] {
  const fields = text.match(/(?:"(?:[^"]|"")*"|[^",])+/g) ?? [];
  return fields.map((quoted) => {
    const field = quoted.replace(/"((?:[^"]|"")*)"/g, (_whole, inner: string) => inner.replaceAll('""', '"'));
    const at = field.indexOf('=');
    return at < 0
      ? [field.trim().toLowerCase(), 'true']
      : [field.slice(0, at).trim().toLowerCase(), field.slice(at + 1)];
  });
}

/** A yes or no of a field, in the words that Go takes. */
export function parseBoolean(text: string, what: string): boolean {
  if (['1', 't', 'true'].includes(text.toLowerCase())) return true;
  if (['0', 'f', 'false'].includes(text.toLowerCase())) return false;
  throw refuse(`${what}: "${text}" is not true or false`);
}

/** A whole number. */
export function parseInteger(text: string, what: string): number {
  if (!/^[+-]?\d+$/.test(text)) throw refuse(`${what}: "${text}" is not a whole number`);
  return Number(text);
}

function unknownField(what: string, text: string, field: string): UsageError {
  return refuse(`${what} "${text}": unknown field "${field}"`);
}

function parsePort(text: string, what: string): number {
  const port = Number(text);
  if (!Number.isInteger(port) || port < 1 || port > 65535)
    throw refuse(`${what}: "${text}" is not a port (1 to 65535)`);
  return port;
}

function portRange(text: string, what: string): number[] {
  const [first, last = first] = text.split('-');
  const from = parsePort(first!, what);
  const to = parsePort(last!, what);
  if (to < from) throw refuse(`${what}: the range ${text} goes backwards`);
  return Array.from({ length: to - from + 1 }, (_, index) => from + index);
}

/** Ports of `8080:80[/udp]`, `80`, ranges of both, or `mode=host,target=80,published=8080,protocol=tcp`. */
export function parsePublish(text: string): PortConfig[] {
  const what = `--publish ${text}`;
  if (text.includes('=')) return [parseLongPublish(text, what)];
  const [ports, protocol = 'tcp'] = text.split('/');
  const Protocol = parseChoice(protocol, what, ['tcp', 'udp', 'sctp'] as const);
  const parts = ports!.split(':');
  if (parts.length > 2)
    throw refuse(`${what}: publishing on one host address is not possible in a cluster; leave it out`);
  const targets = portRange(parts.at(-1)!, what);
  const published = parts.length === 2 ? portRange(parts[0]!, what) : [];
  if (published.length > 0 && published.length !== targets.length)
    throw refuse(`${what}: the two ranges differ in length`);
  return targets.map((TargetPort, index) => ({
    Protocol,
    TargetPort,
    ...(published[index] === undefined ? {} : { PublishedPort: published[index] }),
    PublishMode: 'ingress',
  }));
}

function parseLongPublish(text: string, what: string): PortConfig {
  const port: PortConfig = { Protocol: 'tcp', TargetPort: 0, PublishMode: 'ingress' };
  for (const [field, value] of parseFields(text)) {
    if (field === 'target') port.TargetPort = parsePort(value, what);
    else if (field === 'published') port.PublishedPort = parsePort(value, what);
    else if (field === 'protocol') port.Protocol = parseChoice(value, what, ['tcp', 'udp', 'sctp'] as const);
    else if (field === 'mode') port.PublishMode = parseChoice(value, what, ['ingress', 'host'] as const);
    else throw unknownField('--publish', text, field);
  }
  if (port.TargetPort === 0) throw refuse(`${what}: target is missing`);
  return port;
}

/** A network of `name`, or `name=NAME,alias=ALIAS`. Target is a name or an id; the daemon resolves it. */
export function parseNetwork(text: string): NetworkAttachmentConfig {
  if (!text.includes('=')) return { Target: text };
  const network: NetworkAttachmentConfig = { Target: '' };
  for (const [key, value] of parseFields(text)) {
    if (key === 'name') network.Target = value;
    else if (key === 'alias') network.Aliases = [...(network.Aliases ?? []), value];
    else if (key === 'driver-opt') network.DriverOpts = { ...network.DriverOpts, ...parseLabels([value]) };
    else throw unknownField('--network', text, key);
  }
  if (network.Target === '') throw refuse(`--network ${text}: name is missing`);
  return network;
}

/** A secret or config of `name`, or `source=NAME,target=FILE,uid=0,gid=0,mode=0444`. */
export function parseFileReference(text: string, what: string): { source: string; File: FileTarget } {
  if (!text.includes('=') && !text.includes(',')) return { source: text, File: fileTarget(text) };
  let source = '';
  const File = fileTarget('');
  for (const [field, value] of parseFields(text)) {
    if (field === 'source' || field === 'src') source = value;
    else if (field === 'target') File.Name = value;
    else if (field === 'uid') File.UID = value;
    else if (field === 'gid') File.GID = value;
    else if (field === 'mode') {
      if (!/^0?[0-7]{3,4}$/.test(value))
        throw refuse(`${what} ${text}: mode "${value}" is not octal, e.g. 0440`);
      File.Mode = Number.parseInt(value, 8);
    } else throw unknownField(what, text, field);
  }
  if (source === '') throw refuse(`${what} ${text}: source is missing`);
  if (File.Name === '') File.Name = source;
  return { source, File };
}

function fileTarget(Name: string): FileTarget {
  return { Name, UID: '0', GID: '0', Mode: 0o444 };
}

/** A limit of `nofile=1024:2048` or `nofile=1024`: soft, then hard; -1 is unlimited. */
export function parseUlimit(text: string): { Name: string; Soft: number; Hard: number } {
  const match = /^([a-z]+)=(-?\d+)(?::(-?\d+))?$/.exec(text);
  if (!match) throw refuse(`--ulimit "${text}": write NAME=SOFT[:HARD], e.g. nofile=1024:2048`);
  const Soft = Number(match[2]);
  const Hard = Number(match[3] ?? match[2]);
  if (Hard !== -1 && (Soft > Hard || Soft === -1)) {
    throw refuse(`--ulimit "${text}": the soft limit must not be above the hard one`);
  }
  return { Name: match[1]!, Soft, Hard };
}

/** A generic resource of `gpu=2` (an amount) or `gpu=UUID1` (a named one). */
export function parseGenericResource(text: string, flag = '--generic-resource'): GenericResource {
  const match = /^([^=]+)=(.+)$/.exec(text);
  if (!match) throw refuse(`${flag} "${text}": write NAME=AMOUNT or NAME=ID`);
  const [Kind, value] = [match[1]!, match[2]!];
  return /^\d+$/.test(value)
    ? { DiscreteResourceSpec: { Kind, Value: Number(value) } }
    : { NamedResourceSpec: { Kind, Value: value } };
}

/** Words of a command line, with quotes and backslashes as a POSIX shell reads them. */
export function splitWords(text: string): string[] {
  const words: string[] = [];
  for (const match of text.matchAll(/(?:[^\s'"\\]+|'[^']*'|"(?:\\.|[^"\\])*"|\\.)+/gs)) {
    words.push(
      match[0].replace(/'([^']*)'|"((?:\\.|[^"\\])*)"|\\(.)/gs, (_whole, single, double, escaped) =>
        single !== undefined ? single : double !== undefined ? double.replace(/\\(["\\$`])/g, '$1') : escaped,
      ),
    );
  }
  return words;
}
