/** shoal import: makes here what a running Docker Swarm holds, and says what it can't take. */
import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import type { ImportSummary } from '../../manager/stack/import.ts';
import type { Cluster } from '../../proto/docker.ts';
import { messageOf } from '../../proto/errors.ts';
import { type Context, collect } from '../context.ts';
import { type ImportBody, importOf, sharedSubnets, type Untaken } from '../import/plan.ts';
import { parseSource, readSwarm } from '../import/source.ts';
import { print } from '../output.ts';
import { UsageError } from '../usage.ts';

interface ImportFlags {
  from: string;
  fromCertPath?: string;
  secret?: string[];
  keepSubnets?: boolean;
  dryRun?: boolean;
}

/** Adds the command. */
export function addImportCommand(program: Command, context: Context): void {
  program
    .command('import')
    .description('make here the stacks, services, networks and configs of a running Docker Swarm')
    .requiredOption('--from <host>', 'a manager of that Swarm: unix:///PATH or tcp://HOST:PORT')
    .option(
      '--from-cert-path <folder>',
      'speak TLS to tcp://, with ca.pem, cert.pem and key.pem of this folder',
    )
    .option(
      '--secret <name=file>',
      'content of a secret, which no Swarm gives away; several may be given',
      collect,
    )
    .option('--keep-subnets', 'give networks the subnets that they have there, and not new ones')
    .option('--dry-run', 'only say what would be done')
    .action((flags: ImportFlags) => run(context, flags));
}

async function run(context: Context, flags: ImportFlags): Promise<void> {
  const source = await readSwarm(parseSource(flags.from, flags.fromCertPath));
  const client = context.client();
  const here = await client.get<{ Spec: { Name: string } }[]>('/secrets');
  const { body, untaken } = importOf(source, {
    secrets: new Map((flags.secret ?? []).map(readSecret)),
    secretsHere: new Set(here.map(({ Spec }) => Spec.Name)),
    keepSubnets: flags.keepSubnets ?? false,
  });
  const cluster = await client.get<Cluster>('/swarm');
  const shared = sharedSubnets(source, cluster.DefaultAddrPool);
  const DryRun = flags.dryRun ?? false;
  const summary = await client.post<ImportSummary>('/swarm/import', {
    ...body,
    DryRun,
  } satisfies ImportBody & { DryRun: boolean });
  for (const line of linesOf(summary, shared ? [...untaken, shared] : untaken, DryRun)) print(line);
}

function readSecret(given: string): [string, string] {
  const at = given.indexOf('=');
  if (at <= 0) throw new UsageError(`--secret "${given}": write NAME=FILE`);
  const path = given.slice(at + 1);
  try {
    return [given.slice(0, at), readFileSync(path).toString('base64')];
  } catch (error) {
    throw new UsageError(`--secret ${given.slice(0, at)}: ${messageOf(error)}`);
  }
}

/** The plan as it is printed: + made, = there already, ~ labelled, ! not taken. */
export function linesOf(summary: ImportSummary, untaken: readonly Untaken[], isDryRun: boolean): string[] {
  const { created, existing, refused, labelled, absent, stacks } = summary;
  const changes = created.length + labelled.length;
  return [
    ...stacks.map((name) => `+ stack ${name}`),
    ...created.map(({ kind, name }) => `+ ${kind} ${name}`),
    ...labelled.map((name) => `~ labels of node ${name}`),
    ...existing.map(({ kind, name }) => `= ${kind} ${name}: is here already and stays as it is`),
    ...untaken.map(({ what, why }) => `! ${what}: ${why}`),
    ...refused.map(({ kind, name, reason }) => `! ${kind} ${name}: ${reason}`),
    ...absent.map((name) => `! labels of node ${name}: it is not here yet; import again when it has joined`),
    changes === 0
      ? 'Nothing to do.'
      : isDryRun
        ? `Would be done in one step: ${created.length} objects made, ${labelled.length} nodes labelled. Nothing was changed.`
        : `Done in one step: ${created.length} objects made, ${labelled.length} nodes labelled.`,
  ];
}
