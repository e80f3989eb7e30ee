/** shoal secret and config: what services are given. */
import { readFileSync } from 'node:fs';
import { buffer } from 'node:stream/consumers';
import type { Command } from 'commander';
import { messageOf, ShoalError } from '../../proto/errors.ts';
import { type Context, collect, filterQuery, forEach, listOptions } from '../context.ts';
import { type InspectFlags, inspect, inspectOptions, labelLines } from '../inspect.ts';
import { ago, type Column, type ListOptions, print, renderList } from '../output.ts';
import { parseLabels } from '../parse.ts';
import { refuseFlags } from '../usage.ts';
import { converge, type WaitFlags, waitOptions } from './service.ts';

interface FileObject {
  ID: string;
  CreatedAt: string;
  UpdatedAt: string;
  Spec: { Name: string; Labels: Record<string, string> };
}

/** Adds the nouns secret and config, which have the same verbs. */
export function addFileCommands(program: Command, context: Context, kind: 'secret' | 'config'): void {
  const noun = program.command(kind).description(`manage ${kind}s`);
  const create = noun
    .command('create')
    .description(`make a ${kind} from a file or, with -, from standard input`)
    .argument('<name>')
    .argument('<file>', 'a path, or - for standard input')
    .option('-l, --label <key=value>', 'label', collect)
    .option('--template-driver <driver>', 'golang: fill in what the data says in {{…}}, for each task')
    .action(async (name: string, file: string, flags: { label?: string[]; templateDriver?: string }) => {
      const data = await readData(kind, file);
      const spec = {
        Name: name,
        Labels: parseLabels(flags.label ?? []),
        Data: data.toString('base64'),
        ...(flags.templateDriver ? { Templating: { Name: flags.templateDriver } } : {}),
      };
      print((await context.client().post<{ ID: string }>(`/${kind}s/create`, spec)).ID);
    });
  if (kind === 'secret') refuseFlags(create, ['-d, --driver <driver>']);
  listOptions(noun.command('ls').alias('list').description(`list ${kind}s`))
    .option('-f, --filter <filter>', 'id, name or label: key=value', collect)
    .action(async (flags: ListOptions & { filter?: string[] }) => {
      const found = await context
        .client()
        .get<FileObject[]>(`/${kind}s`, { filters: filterQuery(flags.filter) });
      found.sort((a, b) => a.Spec.Name.localeCompare(b.Spec.Name));
      print(renderList(found, fileColumns(kind, context.clock.now()), (row) => row.ID, flags));
    });
  addInspect<FileObject>(noun, context, `/${kind}s`, (object) =>
    prettyFile(kind, object, context.clock.now()),
  );
  addVersions(noun, context, kind);
  addRemove(noun, context, `/${kind}s`);
}

/** What a new version of a config or secret is answered with. */
interface VersionAnswer {
  ID: string;
  Services: { ID: string; Name: string; Rotation: 'restart' | 'signal' | 'none' | 'next-run' }[];
}

const rotationWords: Record<VersionAnswer['Services'][number]['Rotation'], string> = {
  restart: 'its tasks are replaced in a rolling update',
  signal: 'its files change in the running tasks, which are signalled',
  none: 'keeps the version it has (shoal.rotate=none)',
  'next-run': 'a job: takes it when it runs next',
};

/** `update`, a new version from a file, and `rollback`, the version before. */
function addVersions(noun: Command, context: Context, kind: 'secret' | 'config'): void {
  const change = async (name: string, verb: 'versions' | 'rollback', body: unknown, flags: WaitFlags) => {
    const path = `/${kind}s/${encodeURIComponent(name)}/${verb}`;
    const { ID, Services } = await context.client().post<VersionAnswer>(path, body);
    print(ID);
    for (const { Name, Rotation } of Services) print(`${Name}: ${rotationWords[Rotation]}`);
    for (const service of Services) {
      if (service.Rotation === 'restart') await converge(context, service.ID, flags);
    }
  };
  waitOptions(
    noun
      .command('update')
      .description(`give a ${kind} another content, and the services that use it the new version`)
      .argument('<name>')
      .argument('<file>', 'a path, or - for standard input'),
  ).action(async (name: string, file: string, flags: WaitFlags) => {
    const Data = (await readData(kind, file)).toString('base64');
    await change(name, 'versions', { Data }, flags);
  });
  waitOptions(
    noun
      .command('rollback')
      .description(`go back to the version of a ${kind} before this one`)
      .argument('<name>'),
  ).action((name: string, flags: WaitFlags) => change(name, 'rollback', {}, flags));
}

async function readData(kind: string, path: string): Promise<Buffer> {
  if (path === '-') return buffer(process.stdin);
  try {
    return readFileSync(path);
  } catch (error) {
    throw new ShoalError('invalid-argument', `the ${kind} can't be read from ${path}: ${messageOf(error)}`);
  }
}

function fileColumns(kind: 'secret' | 'config', nowMs: number): Column<FileObject>[] {
  const driver: Column<FileObject> = { heading: 'DRIVER', field: 'Driver', value: () => '' };
  return [
    { heading: 'ID', field: 'ID', value: (row) => row.ID },
    { heading: 'NAME', field: 'Name', value: (row) => row.Spec.Name },
    ...(kind === 'secret' ? [driver] : []),
    { heading: 'CREATED', field: 'CreatedAt', value: (row) => ago(row.CreatedAt, nowMs) },
    { heading: 'UPDATED', field: 'UpdatedAt', value: (row) => ago(row.UpdatedAt, nowMs) },
    { heading: 'LABELS', field: 'Labels', value: (row) => labelText(row.Spec.Labels), hidden: true },
  ];
}

function labelText(labels: Record<string, string>): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(',');
}

function prettyFile(
  kind: 'secret' | 'config',
  object: FileObject & { Spec: { Data?: string } },
  nowMs: number,
): string {
  const { Name, Labels, Data } = object.Spec;
  return [
    `ID:\t\t\t${object.ID}`,
    `Name:\t\t\t${Name}`,
    ...(Object.keys(Labels).length > 0 ? labelLines('Labels:', Labels) : ['Labels:']),
    ...(kind === 'secret' ? ['Driver:\t\t\t'] : []),
    `Created at:            \t${ago(object.CreatedAt, nowMs)}`,
    `Updated at:            \t${ago(object.UpdatedAt, nowMs)}`,
    ...(kind === 'config'
      ? [
          'Data:',
          Buffer.from(Data ?? '', 'base64')
            .toString('utf8')
            .trimEnd(),
        ]
      : []),
  ].join('\n');
}

function addInspect<T>(noun: Command, context: Context, path: string, pretty?: (object: T) => string): void {
  const command = noun.command('inspect').description('print in full').argument('<name...>');
  inspectOptions(command, pretty !== undefined).action((names: string[], flags: InspectFlags) => {
    const find = (name: string) => context.client().get<T>(`${path}/${encodeURIComponent(name)}`);
    return inspect(names, flags, find, pretty);
  });
}

export function addRemove(noun: Command, context: Context, path: string): void {
  noun
    .command('rm')
    .alias('remove')
    .description('remove')
    .argument('<name...>')
    .action((names: string[]) =>
      forEach(names, async (name) => {
        await context.client().delete(`${path}/${encodeURIComponent(name)}`);
        print(name);
      }),
    );
}
