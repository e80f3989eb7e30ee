/** shoal service create and update: flags to a spec, and the wait for it. */
import { readFileSync } from 'node:fs';
import { type Command, Option } from 'commander';
import type { ServiceMode, ServiceSpec } from '../../proto/docker.ts';
import { messageOf } from '../../proto/errors.ts';
import type { ApiClient } from '../client.ts';
import { type Context, collect } from '../context.ts';
import { print } from '../output.ts';
import { parseChoice, parseLabels, splitWords } from '../parse.ts';
import { registryAuthHeader } from '../registry-auth.ts';
import {
  parseEnvFile,
  refusedFlags,
  scalarFlags,
  switchFlags,
  withContainer,
  withTask,
} from '../service-flags.ts';
import { listFlags as plainListFlags, withCapabilities } from '../service-list-flags.ts';
import { optionFlags } from '../service-option-flags.ts';
import { referenceFlags } from '../service-reference-flags.ts';
import { refuseFlags, UsageError } from '../usage.ts';
import { changeService, converge, printWarnings, type WaitFlags, waitOptions } from './service.ts';

export type ServiceFlags = Record<string, unknown> & WaitFlags;

const listFlags = [...plainListFlags, ...referenceFlags];

function addSharedFlags(command: Command): Command {
  for (const flag of [...scalarFlags, ...optionFlags, ...switchFlags])
    command.option(flag.flags, flag.description);
  command
    .option('--log-opt <key=value>', 'option of the log driver', collect)
    .option('--cap-add <capability>', 'Linux capability to give', collect)
    .option('--cap-drop <capability>', 'Linux capability to take away', collect)
    .option('--no-resolve-image', "does nothing: Shoal leaves an image's name as it is given")
    .option(
      '--with-registry-auth',
      'send the credentials of `docker login` along, for the nodes to pull with',
    );
  refuseFlags(command, refusedFlags);
  return waitOptions(command);
}

function flagValue(flags: ServiceFlags, declaration: string): { value: unknown; what: string } {
  const option = new Option(declaration);
  return { value: flags[option.attributeName()], what: option.long ?? declaration };
}

function applyShared(spec: ServiceSpec, flags: ServiceFlags): ServiceSpec {
  let changed = spec;
  for (const flag of [...scalarFlags, ...optionFlags]) {
    const { value, what } = flagValue(flags, flag.flags);
    if (typeof value === 'string') changed = flag.apply(changed, value, what);
  }
  for (const flag of switchFlags) changed = applySwitch(changed, flag, flags);
  const options = list(flags, 'log-opt');
  if (options.length > 0) {
    const LogDriver = { Name: '', ...changed.TaskTemplate.LogDriver };
    const Options = { ...LogDriver.Options, ...parseLabels(options) };
    changed = withTask(changed, { LogDriver: { ...LogDriver, Options } });
  }
  const [added, dropped] = [list(flags, 'cap-add'), list(flags, 'cap-drop')];
  return added.length + dropped.length > 0 ? withCapabilities(changed, added, dropped) : changed;
}

/**
 * A switch acts when it was given, be it as `--switch=false`. One that is named no-… is stored by commander
 * as its positive, which is true unless the switch is given.
 */
function applySwitch(
  spec: ServiceSpec,
  flag: (typeof switchFlags)[number],
  flags: ServiceFlags,
): ServiceSpec {
  const { value } = flagValue(flags, flag.flags);
  if (flag.flags.includes('--no-')) return value === false ? flag.apply(spec, true) : spec;
  return typeof value === 'boolean' ? flag.apply(spec, value) : spec;
}

function list(flags: ServiceFlags, name: string): readonly string[] {
  const value = flags[new Option(`--${name} <x>`).attributeName()];
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
    .option('--mode <mode>', `one of ${serviceModes.join(', ')}`, 'replicated')
    .option('--env-file <path>', 'file of environment variables', collect);
  for (const flag of listFlags) {
    const short = flag.short ? `${flag.short}, ` : '';
    command.option(`${short}--${flag.name} ${flag.argument}`, flag.description, collect);
  }
  addSharedFlags(command).action(async (image: string, args: string[], flags: ServiceFlags) => {
    const spec = await createSpec(image, args, flags, context.client);
    const headers = flags.withRegistryAuth ? registryAuthHeader(image, process.env) : {};
    const client = context.client();
    const answer = await client.post<CreateAnswer>('/services/create', spec, {}, headers);
    printWarnings(answer.Warnings);
    print(answer.ID);
    await converge(context, answer.ID, flags);
  });
}

interface CreateAnswer {
  readonly ID: string;
  readonly Warnings?: string[] | null;
}

const serviceModes = ['replicated', 'global', 'replicated-job', 'global-job'] as const;
const emptyModes: Record<(typeof serviceModes)[number], ServiceMode> = {
  replicated: { Replicated: { Replicas: 1 } },
  global: { Global: {} },
  'replicated-job': { ReplicatedJob: {} },
  'global-job': { GlobalJob: {} },
};

/** As docker reads it: a job of which only --replicas is told runs all of them at once. */
function withJobDefaults(mode: ServiceMode): ServiceMode {
  if (!mode.ReplicatedJob) return mode;
  const { MaxConcurrent, TotalCompletions = 1 } = mode.ReplicatedJob;
  return { ReplicatedJob: { MaxConcurrent: MaxConcurrent ?? TotalCompletions, TotalCompletions } };
}

/** The spec that the flags of `service create` ask for. Asks the daemon only for objects that they name. */
export async function createSpec(
  image: string,
  args: readonly string[],
  flags: ServiceFlags,
  client: () => ApiClient,
): Promise<ServiceSpec> {
  const mode = parseChoice(String(flags.mode ?? 'replicated'), '--mode', serviceModes);
  let spec: ServiceSpec = {
    // Without a name the daemon makes one up.
    Name: typeof flags.name === 'string' ? flags.name : '',
    Labels: {},
    TaskTemplate: { ContainerSpec: { Image: image, ...(args.length > 0 ? { Args: [...args] } : {}) } },
    Mode: emptyModes[mode],
  };
  const fileEntries = list(flags, 'env-file').flatMap((path) => parseEnvFile(readEnvFile(path), process.env));
  if (fileEntries.length > 0) spec = withContainer(spec, { Env: fileEntries });
  spec = applyShared(spec, flags);
  spec = { ...spec, Mode: withJobDefaults(spec.Mode) };
  for (const flag of listFlags) {
    const values = list(flags, flag.name);
    if (values.length > 0) spec = await flag.add(spec, values, client);
  }
  return spec;
}

function readEnvFile(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new UsageError(`--env-file ${path} can't be read: ${messageOf(error)}`);
  }
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
    .option('--rollback', 'go back to the previous spec')
    .option('--dry-run', 'only tell what it would do: differences, restarts, and where tasks would go');
  for (const flag of listFlags) {
    command.option(`--${flag.name}-add ${flag.argument}`, `add or change: ${flag.description}`, collect);
    command.option(`--${flag.name}-rm <${flag.removes.replaceAll(' ', '-')}>`, 'remove', collect);
  }
  addSharedFlags(command).action(async (name: string, flags: ServiceFlags) => {
    if (flags.rollback) requireAlone(command, flags);
    const changed = await changeService(context, name, {
      change: (spec) => updateSpec(spec, flags, context.client),
      isDryRun: flags.dryRun === true,
      query: flags.rollback ? { rollback: 'previous' } : {},
      headers: (spec) =>
        flags.withRegistryAuth ? registryAuthHeader(spec.TaskTemplate.ContainerSpec.Image, process.env) : {},
    });
    if (flags.dryRun) return;
    print(name);
    await converge(context, changed.ID, flags);
  });
}

/** `--rollback` brings the whole previous spec back, so nothing can be changed beside it. */
function requireAlone(command: Command, flags: ServiceFlags): void {
  const allowed = ['rollback', 'detach', 'quiet', 'force', 'dryRun'];
  const other = Object.keys(flags).find(
    (name) => !allowed.includes(name) && command.getOptionValueSource(name) === 'cli',
  );
  if (other === undefined) return;
  const option = command.options.find((one) => one.attributeName() === other);
  throw new UsageError(`--rollback can't be combined with ${option?.long ?? other}`);
}

/** The spec `before` with what the flags of `service update` change. */
export async function updateSpec(
  before: ServiceSpec,
  flags: ServiceFlags,
  client: () => ApiClient,
): Promise<ServiceSpec> {
  let spec = before;
  if (typeof flags.image === 'string') spec = withContainer(spec, { Image: flags.image });
  if (typeof flags.args === 'string') spec = withContainer(spec, { Args: splitWords(flags.args) });
  if (flags.force) spec = withTask(spec, { ForceUpdate: (spec.TaskTemplate.ForceUpdate ?? 0) + 1 });
  spec = applyShared(spec, flags);
  for (const flag of listFlags) {
    const gone = list(flags, `${flag.name}-rm`);
    if (gone.length > 0) spec = await flag.remove(spec, gone, client);
    const added = list(flags, `${flag.name}-add`);
    if (added.length > 0) spec = await flag.add(spec, added, client);
  }
  return spec;
}
