/** What all parts of the compiler share: the stack's name, the files around it, and where to complain. */
import { stackLabel } from '../../proto/docker.ts';
import { BadValue } from './quantity.ts';
import type { ComposeFile } from './schema.ts';
import { formatPath, type Path, type Place, type Problems, placeIn, type Tree } from './tree.ts';

/** Reads a file that a compose file names; undefined when there is none. The path is absolute where the compose file's is. */
export type ReadFile = (path: string) => string | Uint8Array | undefined;

/** Complaints with their places, as `file:line: path: message`. */
export class ProblemList implements Problems {
  readonly errors: string[] = [];
  readonly warnings: string[] = [];

  error(place: Place, path: Path, message: string): void {
    this.errors.push(formatProblem(place, path, message));
  }

  warn(place: Place, path: Path, message: string): void {
    const text = formatProblem(place, path, message);
    if (!this.warnings.includes(text)) this.warnings.push(text);
  }
}

function formatProblem(place: Place, path: Path, message: string): string {
  const where = formatPath(path);
  return `${place.file}:${place.line}: ${where === '' ? '' : `${where}: `}${message}`;
}

export class Scope {
  readonly stackName: string;
  readonly file: ComposeFile;
  readonly environment: Readonly<Record<string, string>>;
  readonly problems: ProblemList;
  /** What compiles, but Shoal can't do yet: told when it is to be deployed. */
  readonly refusals = new ProblemList();
  /** Place of each object by `kind name`, for what is found wrong later. */
  readonly places = new Map<string, string>();
  private readonly tree: Tree;
  private readonly readFile: ReadFile;
  private readonly folder: string;

  constructor(
    input: {
      stackName: string;
      environment: Readonly<Record<string, string>>;
      readFile: ReadFile;
      folder: string;
    },
    parsed: { file: ComposeFile; tree: Tree; problems: ProblemList },
  ) {
    this.stackName = input.stackName;
    this.environment = input.environment;
    this.readFile = input.readFile;
    this.folder = input.folder;
    this.file = parsed.file;
    this.tree = parsed.tree;
    this.problems = parsed.problems;
  }

  error(path: Path, message: string): void {
    this.problems.error(placeIn(this.tree, path), path, message);
  }

  warn(path: Path, message: string): void {
    this.problems.warn(placeIn(this.tree, path), path, message);
  }

  refuse(path: Path, message: string): void {
    this.refusals.error(placeIn(this.tree, path), path, message);
  }

  /** Remembers where an object of the cluster comes from. */
  remember(kind: string, name: string, path: Path): void {
    const place = placeIn(this.tree, path);
    this.places.set(`${kind} ${name}`, `${place.file}:${place.line}: ${formatPath(path)}`);
  }

  /** The outcome of `read`; undefined, and an error told at `path`, when it throws BadValue. */
  attempt<T>(path: Path, read: () => T): T | undefined {
    try {
      return read();
    } catch (error) {
      if (!(error instanceof BadValue)) throw error;
      this.error(path, error.message);
      return undefined;
    }
  }

  /** `read` of the value at `path`, if it is given. */
  given<V, T>(path: Path, value: V | undefined, read: (value: V) => T): T | undefined {
    return value === undefined ? undefined : this.attempt(path, () => read(value));
  }

  /** The contents of a file named at `path` of the compose file, which must exist. */
  read(path: Path, name: string): Uint8Array | undefined {
    const content = this.readFile(this.resolve(name));
    if (content === undefined) {
      this.error(path, `file ${name} not found (looked for ${this.resolve(name)})`);
      return undefined;
    }
    return typeof content === 'string' ? Buffer.from(content) : content;
  }

  /** A path as seen from the compose file's folder; `~` is the home of who deploys. */
  resolve(name: string): string {
    const home = this.environment.HOME;
    if (home !== undefined && /^~(\/|$)/.test(name)) return joinPath(home, name.slice(1));
    return name.startsWith('/') ? joinPath('/', name) : joinPath(this.folder, name);
  }

  /** The name of an object in the cluster: its own, or the stack's and the one in the file. */
  nameOf(
    key: string,
    object:
      | { name?: string | undefined; external?: { is: boolean; name: string | undefined } | undefined }
      | undefined,
  ): string {
    if (object?.external?.is) return object.external.name ?? object.name ?? key;
    return object?.name ?? `${this.stackName}_${key}`;
  }

  labels(own: Record<string, string> | undefined): Record<string, string> {
    return { ...own, [stackLabel]: this.stackName };
  }
}

function joinPath(base: string, name: string): string {
  const parts: string[] = [];
  for (const part of `${base}/${name}`.split('/')) {
    if (part === '' || part === '.') continue;
    if (part === '..' && parts.length > 0 && parts.at(-1) !== '..') parts.pop();
    else if (part !== '..' || !base.startsWith('/')) parts.push(part);
  }
  const joined = parts.join('/');
  return base.startsWith('/') ? `/${joined}` : joined || '.';
}

/** The object without the fields that are undefined. */
export function present<T extends object>(fields: { [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as T;
}

/** The list, unless it is empty. */
export function some<T>(list: readonly T[] | undefined): T[] | undefined {
  return list && list.length > 0 ? [...list] : undefined;
}
