/** shoal service create and update: flags to a spec, and the wait for it. */
import { readFileSync } from 'node:fs';
import { type Command, Option } from 'commander';
import type { ConfigReference, SecretReference, Service, ServiceSpec } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import { type Context, collect } from '../context.ts';
import { print } from '../output.ts';
import {
  parseChoice,
  parseFileReference,
  parseLabels,
  parseMount,
  parseNetwork,
  parsePublish,
  splitWords,
} from '../parse.ts';
import {
  envEntry,
  parseEnvFile,
  refusedFlags,
  scalarFlags,
  switchFlags,
  withContainer,
  withPlacement,
  withTask,
} from '../service-flags.ts';
import { changeService, converge, type WaitFlags, waitOptions } from './service.ts';

type Flags = Record<string, unknown> & WaitFlags;

/** A value that may be given several times: how it is added to a spec, and how one is removed. */
interface ListFlag {
  /** The create flag without dashes; update has `${name}-add` and `${name}-rm`. */
  readonly name: string;
  readonly argument: string;
  readonly description: string;
  readonly removes: string;
  readonly add: (
    spec: ServiceSpec,
    values: readonly string[],
    context: Context,
  ) => ServiceSpec | Promise<ServiceSpec>;
  readonly remove: (
    spec: ServiceSpec,
    values: readonly string[],
    context: Context,
  ) => ServiceSpec | Promise<ServiceSpec>;
}

function without(
  labels: Record<string, string> | undefined,
  keys: readonly string[],
): Record<string, string> {
  return Object.fromEntries(Object.entries(labels ?? {}).filter(([key]) => !keys.includes(key)));
}

/** Adds entries to a list, each in place of the one with the same key. */
function merged<T>(list: readonly T[] | undefined, added: readonly T[], keyOf: (item: T) => string): T[] {
  const keys = new Set(added.map(keyOf));
  return [...(list ?? []).filter((item) => !keys.has(keyOf(item))), ...added];
}

const envKey = (entry: string): string => entry.split('=')[0]!;

const labelFlags: ListFlag[] = [
  {
    name: 'env',
    argument: '<key=value>',
    description: 'environment variable',
    removes: 'key',
    add: (spec, values) => {
      const entries = values.flatMap((value) => envEntry(value, process.env));
      return withContainer(spec, { Env: merged(spec.TaskTemplate.ContainerSpec.Env, entries, envKey) });
    },
    remove: (spec, keys) =>
      withContainer(spec, {
        Env: (spec.TaskTemplate.ContainerSpec.Env ?? []).filter((entry) => !keys.includes(envKey(entry))),
      }),
  },
  {
    name: 'label',
    argument: '<key=value>',
    description: 'label of the service',
    removes: 'key',
    add: (spec, values) => ({ ...spec, Labels: { ...spec.Labels, ...parseLabels(values) } }),
    remove: (spec, keys) => ({ ...spec, Labels: without(spec.Labels, keys) }),
  },
  {
    name: 'container-label',
    argument: '<key=value>',
    description: 'label of its containers',
    removes: 'key',
    add: (spec, values) =>
      withContainer(spec, { Labels: { ...spec.TaskTemplate.ContainerSpec.Labels, ...parseLabels(values) } }),
    remove: (spec, keys) =>
      withContainer(spec, { Labels: without(spec.TaskTemplate.ContainerSpec.Labels, keys) }),
  },
];

const placementFlags: ListFlag[] = [
  {
    name: 'constraint',
    argument: '<constraint>',
    description: 'where it may run, e.g. node.labels.disk==ssd',
    removes: 'constraint',
    add: (spec, values) =>
      withPlacement(spec, {
        Constraints: merged(spec.TaskTemplate.Placement?.Constraints, values, (one) => one),
      }),
    remove: (spec, values) =>
      withPlacement(spec, {
        Constraints: (spec.TaskTemplate.Placement?.Constraints ?? []).filter((one) => !values.includes(one)),
      }),
  },
  {
    name: 'placement-pref',
    argument: '<preference>',
    description: 'how to spread it, e.g. spread=node.labels.zone',
    removes: 'preference',
    add: (spec, values) =>
      withPlacement(spec, {
        Preferences: [...(spec.TaskTemplate.Placement?.Preferences ?? []), ...values.map(parsePreference)],
      }),
    remove: (spec, values) => {
      const gone = values.map((value) => parsePreference(value).Spread.SpreadDescriptor);
      return withPlacement(spec, {
        Preferences: (spec.TaskTemplate.Placement?.Preferences ?? []).filter(
          (one) => !gone.includes(one.Spread.SpreadDescriptor),
        ),
      });
    },
  },
];

function parsePreference(text: string): { Spread: { SpreadDescriptor: string } } {
  const match = /^spread=(.+)$/.exec(text);
  if (!match)
    throw new ShoalError('invalid-argument', `--placement-pref "${text}": write spread=node.labels.KEY`);
  return { Spread: { SpreadDescriptor: match[1]! } };
}

const portKey = (port: { TargetPort: number; Protocol?: string; PublishedPort?: number }): string =>
  `${port.TargetPort}/${port.Protocol ?? 'tcp'}/${port.PublishedPort ?? ''}`;

const attachmentFlags: ListFlag[] = [
  {
    name: 'publish',
    argument: '<port>',
    description: 'publish a port, e.g. mode=host,target=80,published=8080',
    removes: 'target port',
    add: (spec, values) => ({
      ...spec,
      EndpointSpec: {
        ...spec.EndpointSpec,
        Ports: merged(spec.EndpointSpec?.Ports, values.flatMap(parsePublish), portKey),
      },
    }),
    remove: (spec, values) => ({
      ...spec,
      EndpointSpec: {
        ...spec.EndpointSpec,
        Ports: (spec.EndpointSpec?.Ports ?? []).filter(
          (port) =>
            !values.some(
              (value) =>
                value === String(port.TargetPort) || value === `${port.TargetPort}/${port.Protocol ?? 'tcp'}`,
            ),
        ),
      },
    }),
  },
  {
    name: 'mount',
    argument: '<mount>',
    description: 'e.g. type=volume,source=data,target=/data',
    removes: 'target path',
    add: (spec, values) =>
      withContainer(spec, {
        Mounts: merged(
          spec.TaskTemplate.ContainerSpec.Mounts,
          values.map(parseMount),
          (mount) => mount.Target,
        ),
      }),
    remove: (spec, targets) =>
      withContainer(spec, {
        Mounts: (spec.TaskTemplate.ContainerSpec.Mounts ?? []).filter(
          (mount) => !targets.includes(mount.Target),
        ),
      }),
  },
  {
    name: 'network',
    argument: '<network>',
    description: 'attach to a network',
    removes: 'network',
    add: (spec, values) =>
      withTask(spec, {
        Networks: merged(spec.TaskTemplate.Networks, values.map(parseNetwork), (network) => network.Target),
      }),
    remove: async (spec, names, context) => {
      const gone = new Set<string>(names);
      for (const name of names)
        gone.add((await context.client().get<{ Id: string }>(`/networks/${name}`)).Id);
      return withTask(spec, {
        Networks: (spec.TaskTemplate.Networks ?? []).filter((network) => !gone.has(network.Target)),
      });
    },
  },
];

async function findByName(
  context: Context,
  kind: 'secret' | 'config',
  name: string,
): Promise<{ ID: string; Name: string }> {
  const found = await context.client().get<{ ID: string; Spec: { Name: string } }>(`/${kind}s/${name}`);
  return { ID: found.ID, Name: found.Spec.Name };
}

const fileFlags: ListFlag[] = [
  {
    name: 'secret',
    argument: '<secret>',
    description: 'give it a secret: name, or source=NAME,target=FILE,mode=0440',
    removes: 'secret',
    add: async (spec, values, context) => {
      const references = await Promise.all(
        values.map(async (value): Promise<SecretReference> => {
          const { source, File } = parseFileReference(value, '--secret');
          const { ID, Name } = await findByName(context, 'secret', source);
          return { File, SecretID: ID as SecretReference['SecretID'], SecretName: Name };
        }),
      );
      const Secrets = merged(
        spec.TaskTemplate.ContainerSpec.Secrets,
        references,
        (one) => one.File?.Name ?? '',
      );
      return withContainer(spec, { Secrets });
    },
    remove: (spec, names) =>
      withContainer(spec, {
        Secrets: (spec.TaskTemplate.ContainerSpec.Secrets ?? []).filter(
          (one) => !names.includes(one.SecretName),
        ),
      }),
  },
  {
    name: 'config',
    argument: '<config>',
    description: 'give it a config: name, or source=NAME,target=PATH,mode=0440',
    removes: 'config',
    add: async (spec, values, context) => {
      const references = await Promise.all(
        values.map(async (value): Promise<ConfigReference> => {
          const { source, File } = parseFileReference(value, '--config');
          const { ID, Name } = await findByName(context, 'config', source);
          // Docker places a config at the root of the container unless a path is given.
          return {
            File: { ...File, Name: File.Name === source ? `/${source}` : File.Name },
            ConfigID: ID as ConfigReference['ConfigID'],
            ConfigName: Name,
          };
        }),
      );
      const Configs = merged(
        spec.TaskTemplate.ContainerSpec.Configs,
        references,
        (one) => one.File?.Name ?? '',
      );
      return withContainer(spec, { Configs });
    },
    remove: (spec, names) =>
      withContainer(spec, {
        Configs: (spec.TaskTemplate.ContainerSpec.Configs ?? []).filter(
          (one) => !names.includes(one.ConfigName),
        ),
      }),
  },
];

const hostFlags: ListFlag[] = [
  {
    name: 'host',
    argument: '<name:address>',
    description: 'line of /etc/hosts',
    removes: 'name:address',
    add: (spec, values) =>
      withContainer(spec, {
        Hosts: merged(spec.TaskTemplate.ContainerSpec.Hosts, values.map(hostLine), (line) => line),
      }),
    remove: (spec, values) => {
      const gone = values.map(hostLine);
      return withContainer(spec, {
        Hosts: (spec.TaskTemplate.ContainerSpec.Hosts ?? []).filter((line) => !gone.includes(line)),
      });
    },
  },
  {
    name: 'dns',
    argument: '<address>',
    description: 'DNS server',
    removes: 'address',
    add: (spec, values) => {
      const dns = spec.TaskTemplate.ContainerSpec.DNSConfig ?? {};
      return withContainer(spec, {
        DNSConfig: { ...dns, Nameservers: merged(dns.Nameservers, values, (one) => one) },
      });
    },
    remove: (spec, values) => {
      const dns = spec.TaskTemplate.ContainerSpec.DNSConfig ?? {};
      return withContainer(spec, {
        DNSConfig: { ...dns, Nameservers: (dns.Nameservers ?? []).filter((one) => !values.includes(one)) },
      });
    },
  },
  {
    name: 'group',
    argument: '<group>',
    description: 'further group of the process',
    removes: 'group',
    add: (spec, values) =>
      withContainer(spec, { Groups: merged(spec.TaskTemplate.ContainerSpec.Groups, values, (one) => one) }),
    remove: (spec, values) =>
      withContainer(spec, {
        Groups: (spec.TaskTemplate.ContainerSpec.Groups ?? []).filter((one) => !values.includes(one)),
      }),
  },
];

/** The API has "address name"; people write name:address. */
function hostLine(text: string): string {
  const at = text.indexOf(':');
  if (at < 0) throw new ShoalError('invalid-argument', `--host "${text}": write NAME:ADDRESS`);
  return `${text.slice(at + 1)} ${text.slice(0, at)}`;
}

const listFlags: readonly ListFlag[] = [
  ...labelFlags,
  ...placementFlags,
  ...attachmentFlags,
  ...fileFlags,
  ...hostFlags,
];

const shortNames: Record<string, string> = { env: '-e, ', label: '-l, ', publish: '-p, ' };

function addSharedFlags(command: Command): Command {
  for (const flag of [...scalarFlags, ...switchFlags]) command.option(flag.flags, flag.description);
  for (const name of refusedFlags) command.addOption(new Option(`--${name} [value]`).hideHelp());
  return waitOptions(command);
}

function flagValue(flags: Flags, declaration: string): { value: unknown; what: string } {
  const option = new Option(declaration);
  return { value: flags[option.attributeName()], what: option.long ?? declaration };
}

function applyShared(spec: ServiceSpec, flags: Flags): ServiceSpec {
  for (const name of refusedFlags) {
    if (flags[new Option(`--${name} [value]`).attributeName()] !== undefined && !name.startsWith('no-')) {
      throw new ShoalError('not-supported', `--${name} is not supported yet`);
    }
  }
  let changed = spec;
  for (const flag of scalarFlags) {
    const { value, what } = flagValue(flags, flag.flags);
    if (typeof value === 'string') changed = flag.apply(changed, value, what);
  }
  for (const flag of switchFlags) {
    const { value } = flagValue(flags, flag.flags);
    // A switch named no-… is stored by commander as the positive, set to false.
    const on = flag.flags.includes('--no-') ? value === false : value === true;
    if (on) changed = flag.apply(changed, true);
  }
  return changed;
}

function list(flags: Flags, name: string): readonly string[] {
  const value = flags[name.replace(/-(\w)/g, (_match, letter: string) => letter.toUpperCase())];
  return Array.isArray(value) ? (value as string[]) : [];
}

/** `shoal service create`. */
export function addCreate(service: Command, context: Context): void {
  const command = service
    .command('create')
    .description('run a new service')
    .argument('<image>')
    .argument('[args...]', 'arguments of the container')
    .passThroughOptions()
    .option('--name <name>', 'its name; one is made up when left out')
    .option('--mode <mode>', 'replicated or global', 'replicated')
    .option('--env-file <path>', 'file of environment variables', collect);
  for (const flag of listFlags) {
    command.option(
      `${shortNames[flag.name] ?? ''}--${flag.name} ${flag.argument}`,
      flag.description,
      collect,
    );
  }
  addSharedFlags(command).action(async (image: string, args: string[], flags: Flags) => {
    const spec = await createSpec(image, args, flags, context);
    const client = context.client();
    const answer = await client.post<{ ID: string; Warnings?: string[] | null }>('/services/create', spec);
    for (const warning of answer.Warnings ?? []) process.stderr.write(`${warning}\n`);
    print(answer.ID);
    await converge(context, answer.ID, flags);
  });
}

async function createSpec(
  image: string,
  args: string[],
  flags: Flags,
  context: Context,
): Promise<ServiceSpec> {
  const mode = parseChoice(String(flags.mode), '--mode', [
    'replicated',
    'global',
    'replicated-job',
    'global-job',
  ] as const);
  if (mode.endsWith('-job'))
    throw new ShoalError('not-supported', `--mode ${mode} is not supported yet: jobs come later`);
  let spec: ServiceSpec = {
    Name: typeof flags.name === 'string' ? flags.name : madeUpName(context),
    Labels: {},
    TaskTemplate: { ContainerSpec: { Image: image, ...(args.length > 0 ? { Args: args } : {}) } },
    Mode: mode === 'global' ? { Global: {} } : { Replicated: { Replicas: 1 } },
  };
  const fileEntries = list(flags, 'env-file').flatMap((path) =>
    parseEnvFile(readFileSync(path, 'utf8'), process.env),
  );
  if (fileEntries.length > 0) spec = withContainer(spec, { Env: fileEntries });
  spec = applyShared(spec, flags);
  for (const flag of listFlags) {
    const values = list(flags, flag.name);
    if (values.length > 0) spec = await flag.add(spec, values, context);
  }
  return spec;
}

const adjectives = [
  'brisk',
  'calm',
  'clever',
  'eager',
  'gentle',
  'keen',
  'lucid',
  'merry',
  'nimble',
  'quiet',
  'silver',
  'steady',
];
const fishes = [
  'anchovy',
  'bass',
  'bream',
  'char',
  'cod',
  'herring',
  'mackerel',
  'minnow',
  'perch',
  'sardine',
  'sprat',
  'tuna',
];

/** A name nobody chose; the clock is chance enough, and a clash is refused by the managers. */
function madeUpName(context: Context): string {
  const now = Math.floor(context.clock.now());
  const adjective = adjectives[now % adjectives.length]!;
  const fish = fishes[Math.floor(now / adjectives.length) % fishes.length]!;
  return `${adjective}_${fish}_${(now % 46656).toString(36)}`;
}

/** `shoal service update`. */
export function addUpdate(service: Command, context: Context): void {
  const command = service
    .command('update')
    .description('change a service')
    .argument('<service>')
    .option('--image <image>', 'image of its containers')
    .option('--args <command>', 'arguments of its containers')
    .option('--force', 'replace its tasks although nothing changed')
    .option('--rollback', 'go back to the previous spec');
  for (const flag of listFlags) {
    command.option(`--${flag.name}-add ${flag.argument}`, `add or change: ${flag.description}`, collect);
    command.option(`--${flag.name}-rm <${flag.removes.replaceAll(' ', '-')}>`, 'remove', collect);
  }
  addSharedFlags(command).action(async (name: string, flags: Flags) => {
    const query: Record<string, string> = flags.rollback ? { rollback: 'previous' } : {};
    const changed: Service = await changeService(
      context,
      name,
      (spec) => updateSpec(spec, flags, context),
      query,
    );
    print(name);
    await converge(context, changed.ID, flags);
  });
}

async function updateSpec(before: ServiceSpec, flags: Flags, context: Context): Promise<ServiceSpec> {
  let spec = before;
  if (typeof flags.image === 'string') spec = withContainer(spec, { Image: flags.image });
  if (typeof flags.args === 'string') spec = withContainer(spec, { Args: splitWords(flags.args) });
  if (flags.force) spec = withTask(spec, { ForceUpdate: (spec.TaskTemplate.ForceUpdate ?? 0) + 1 });
  spec = applyShared(spec, flags);
  for (const flag of listFlags) {
    const gone = list(flags, `${flag.name}-rm`);
    if (gone.length > 0) spec = await flag.remove(spec, gone, context);
    const added = list(flags, `${flag.name}-add`);
    if (added.length > 0) spec = await flag.add(spec, added, context);
  }
  return spec;
}
