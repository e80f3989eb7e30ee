/**
 * Compose files to specs, as `docker stack deploy` reads them.
 *
 * In: the files with their text, the environment of who deploys, a way to read the files that they name.
 * Out: specs of services, networks, secrets and configs, what is worth a warning, and what can't be done
 * yet, each with its line. It never reads a disk, asks a registry or looks at the cluster: plan.ts holds
 * the specs against what is there.
 */
import { stringify } from 'yaml';
import type { ConfigSpec, NetworkSpec, SecretSpec, ServiceSpec } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import { checkShapes } from './check.ts';
import { canonicalTree, mergeTrees } from './merge.ts';
import { dataSpecsOf, networkSpecsOf } from './objects.ts';
import type { ComposeFile } from './schema.ts';
import { ProblemList, type ReadFile, Scope } from './scope.ts';
import { serviceSpecOf } from './service.ts';
import { readTree, type Tree, toPlain } from './tree.ts';

export interface ComposeInput {
  /** In the order given; a later one is laid over the earlier. The paths are for messages. */
  readonly files: readonly { readonly path: string; readonly content: string }[];
  /** Where relative paths in the files start; by default the folder in the first one's path. */
  readonly folder?: string;
  /** For `${NAME}`, for variables without a value, and HOME for `~`. */
  readonly environment: Readonly<Record<string, string>>;
  readonly readFile: ReadFile;
}

/** A compose file that has the right shape. */
export interface ParsedCompose {
  readonly file: ComposeFile;
  readonly tree: Tree;
  readonly problems: ProblemList;
}

/** A stack's objects. Networks, secrets and configs are referred to by name. */
export interface CompiledStack {
  readonly services: ServiceSpec[];
  readonly networks: NetworkSpec[];
  readonly secrets: SecretSpec[];
  readonly configs: ConfigSpec[];
  /** `file:line: path: message` each. */
  readonly warnings: readonly string[];
  /** What Shoal can't do yet; a stack that has any can't be deployed. In the form of the warnings. */
  readonly refusals: readonly string[];
  /** `kind name` (as in `network app_default`) → `file:line: path`. */
  readonly places: ReadonlyMap<string, string>;
  /** The files merged, variables substituted, without the contents of secrets: a compose file itself. */
  readonly source: string;
}

/**
 * Reads, merges and checks compose files. Throws ShoalError 'invalid-argument' with one line for each
 * thing that is wrong.
 */
export function parseCompose(input: Pick<ComposeInput, 'files' | 'environment'>): ParsedCompose {
  if (input.files.length === 0) throw new ShoalError('invalid-argument', 'a stack needs a compose file');
  const problems = new ProblemList();
  const trees = input.files.map(({ path, content }) => {
    const tree = readTree(path, content, input.environment, problems);
    if (tree && tree.kind !== 'map')
      problems.error(tree.at, [], 'a compose file is a map with services in it');
    return tree && canonicalTree(tree);
  });
  throwErrors(problems);
  const tree = trees.filter((one) => one !== undefined).reduce((base, over) => mergeTrees(base, over));
  const file = checkShapes(tree, problems);
  throwErrors(problems);
  return { file: file!, tree, problems };
}

/** The specs of stack `stackName`. Throws ShoalError 'invalid-argument' as parseCompose does. */
export function compileCompose(input: ComposeInput, stackName: string): CompiledStack {
  checkStackName(stackName);
  const parsed = parseCompose(input);
  const folder = input.folder ?? folderOf(input.files[0]!.path);
  const scope = new Scope(
    { stackName, environment: input.environment, readFile: input.readFile, folder },
    parsed,
  );
  const entries = Object.entries(parsed.file.services ?? {});
  if (entries.length === 0) scope.error(['services'], 'no services: a stack has at least one');
  if (parsed.file.name !== undefined && parsed.file.name !== stackName) {
    scope.warn(['name'], `ignored: the stack is deployed as ${stackName}`);
  }
  const services = entries.map(([key, service]) => serviceSpecOf(scope, key, service));
  const networks = networkSpecsOf(scope);
  const secrets = dataSpecsOf(scope, 'secrets').map(withoutEmptyData);
  const configs = dataSpecsOf(scope, 'configs');
  throwErrors(scope.problems);
  return {
    services,
    networks,
    secrets,
    configs,
    warnings: scope.problems.warnings,
    refusals: scope.refusals.errors,
    places: scope.places,
    source: sourceOf(parsed.tree),
  };
}

function throwErrors(problems: ProblemList): void {
  if (problems.errors.length > 0) throw new ShoalError('invalid-argument', problems.errors.join('\n'));
}

/** Docker's rule for the names of stacks. Throws ShoalError 'invalid-argument'. */
export function checkStackName(name: string): void {
  if (/^[a-zA-Z0-9](?:[a-zA-Z0-9_-]*[a-zA-Z0-9])?$/.test(name)) return;
  throw new ShoalError(
    'invalid-argument',
    `invalid stack name ${JSON.stringify(name)}: letters, digits, - and _ only, the first and the last a letter or digit`,
  );
}

function folderOf(path: string): string {
  const at = path.lastIndexOf('/');
  if (at < 0) return '.';
  return at === 0 ? '/' : path.slice(0, at);
}

/** A secret whose content a driver brings has no data of its own. */
function withoutEmptyData(spec: SecretSpec): SecretSpec {
  if (spec.Data !== '' || !spec.Driver) return spec;
  const { Data: _, ...rest } = spec;
  return rest;
}

function sourceOf(tree: Tree): string {
  const plain = toPlain(tree) as Record<string, unknown>;
  const secrets = plain.secrets as Record<string, Record<string, unknown> | null> | undefined;
  for (const secret of Object.values(secrets ?? {})) {
    if (secret && 'content' in secret) secret.content = '(not kept)';
  }
  return stringify(withEscapedDollars(plain), { lineWidth: 0 });
}

/** So that reading the source again gives the same values. */
function withEscapedDollars(value: unknown): unknown {
  if (typeof value === 'string') return value.replaceAll('$', '$$$$');
  if (Array.isArray(value)) return value.map(withEscapedDollars);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, field]) => [name, withEscapedDollars(field)]));
}
