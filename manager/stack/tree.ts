/**
 * A compose file as a tree whose every part knows its file and line, so that whatever is wrong with it
 * can be told with its place.
 */
import {
  type Alias,
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseDocument,
  type YAMLMap,
  type YAMLSeq,
} from 'yaml';
import { interpolate } from './interpolate.ts';

/** Where something stands. */
export interface Place {
  readonly file: string;
  /** From 1. */
  readonly line: number;
}

export type Scalar = string | number | boolean | null;

export type Tree =
  | { readonly kind: 'map'; readonly at: Place; readonly entries: ReadonlyMap<string, Entry> }
  | { readonly kind: 'list'; readonly at: Place; readonly items: readonly Tree[] }
  | { readonly kind: 'scalar'; readonly at: Place; readonly value: Scalar };

/** A key with its value; `at` is the key's place. */
export interface Entry {
  readonly at: Place;
  readonly value: Tree;
}

export type MapTree = Extract<Tree, { kind: 'map' }>;

/** `services`, `web`, `ports`, 0 … */
export type Path = readonly (string | number)[];

/** Collects what is wrong, and what is only worth telling. */
export interface Problems {
  /** `place` is told as file:line, `path` as the part of the file. */
  error(place: Place, path: Path, message: string): void;
  warn(place: Place, path: Path, message: string): void;
}

/** services.web.ports[0] */
export function formatPath(path: Path): string {
  return path
    .map((part, index) => (typeof part === 'number' ? `[${part}]` : index === 0 ? part : `.${part}`))
    .join('');
}

/** The first ones tell; those after them mostly follow from them. */
const maximumSyntaxErrors = 5;

/** Deeper than any compose file goes. */
const maximumDepth = 64;
const tooDeep = 'lists and maps are nested too deeply in each other';

/** More nodes than any compose file has: stops aliases that refer to aliases that refer to aliases. */
const maximumNodes = 200_000;

/** The tree of a YAML text, its variables substituted; undefined, and an error told, when it is none. */
export function readTree(
  file: string,
  content: string,
  environment: Readonly<Record<string, string>>,
  problems: Problems,
): Tree | undefined {
  const lines = new LineCounter();
  try {
    const document = parseDocument(content, { lineCounter: lines, prettyErrors: false });
    for (const error of document.errors.slice(0, maximumSyntaxErrors)) {
      problems.error({ file, line: lines.linePos(error.pos[0]).line }, [], error.message);
    }
    if (document.errors.length > 0) return undefined;
    return new TreeReader(file, document, lines, environment, problems).read();
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    problems.error({ file, line: 1 }, [], tooDeep);
    return undefined;
  }
}

class TreeReader {
  private readonly file: string;
  private readonly document: Document.Parsed;
  private readonly lines: LineCounter;
  private readonly environment: Readonly<Record<string, string>>;
  private readonly problems: Problems;
  private readonly anchors = new Map<string, Node>();
  /** The maps and lists that are being read. */
  private readonly open = new Set<Node>();
  private nodes = 0;

  constructor(
    file: string,
    document: Document.Parsed,
    lines: LineCounter,
    environment: Readonly<Record<string, string>>,
    problems: Problems,
  ) {
    this.file = file;
    this.document = document;
    this.lines = lines;
    this.environment = environment;
    this.problems = problems;
  }

  read(): Tree | undefined {
    const top = { file: this.file, line: 1 };
    const tree = this.treeOf(this.document.contents, top, []);
    if (this.nodes <= maximumNodes) return tree;
    this.problems.error(top, [], `more than ${maximumNodes} values once aliases are followed`);
    return undefined;
  }

  private placeOf(node: Node | null, otherwise: Place): Place {
    const start = node?.range?.[0];
    return start === undefined ? otherwise : { file: this.file, line: this.lines.linePos(start).line };
  }

  private treeOf(node: unknown, outer: Place, path: Path): Tree {
    this.nodes += 1;
    if (this.nodes > maximumNodes) return { kind: 'scalar', at: outer, value: null };
    if (isAlias(node)) return this.aliasOf(node, outer, path);
    if (!isMap(node) && !isSeq(node)) return this.leafOf(node, outer, path);
    if (path.length > maximumDepth) {
      this.problems.error(this.placeOf(node, outer), path.slice(0, 3), tooDeep);
      return { kind: 'scalar', at: outer, value: null };
    }
    if (node.anchor) this.anchors.set(node.anchor, node);
    this.open.add(node);
    const tree = isMap(node) ? this.mapOf(node, outer, path) : this.listOf(node, outer, path);
    this.open.delete(node);
    return tree;
  }

  /** What the alias names: the anchor of that name that was read last. One can't hold itself. */
  private aliasOf(alias: Alias, outer: Place, path: Path): Tree {
    const target = this.anchors.get(alias.source);
    const at = this.placeOf(alias, outer);
    if (target && !this.open.has(target)) return this.treeOf(target, at, path);
    this.problems.error(at, path, `the alias *${alias.source} ${target ? 'holds itself' : 'names nothing'}`);
    return { kind: 'scalar', at, value: null };
  }

  private listOf(list: YAMLSeq, outer: Place, path: Path): Tree {
    const at = this.placeOf(list, outer);
    const items = list.items.map((item, index) => this.treeOf(item, at, [...path, index]));
    return { kind: 'list', at, items };
  }

  private leafOf(node: unknown, outer: Place, path: Path): Tree {
    if (!isScalar(node)) return { kind: 'scalar', at: outer, value: null };
    if (node.anchor) this.anchors.set(node.anchor, node);
    const at = this.placeOf(node, outer);
    return { kind: 'scalar', at, value: this.scalarOf(node.value, node.source, at, path) };
  }

  private mapOf(map: YAMLMap, outer: Place, path: Path): MapTree {
    const at = this.placeOf(map, outer);
    const entries = new Map<string, Entry>();
    const merged: MapTree[] = [];
    for (const pair of map.items) {
      const key = isScalar(pair.key) ? pair.key : undefined;
      const name = String(key?.value ?? '');
      const place = this.placeOf(key ?? null, at);
      if (name === '<<') merged.push(...this.mergedMaps(pair.value, place, path));
      else entries.set(name, { at: place, value: this.treeOf(pair.value, place, [...path, name]) });
    }
    for (const other of merged) {
      for (const [name, entry] of other.entries) if (!entries.has(name)) entries.set(name, entry);
    }
    return { kind: 'map', at, entries };
  }

  /** What `<<` brings in: a map, or several, the first the stronger. */
  private mergedMaps(value: unknown, place: Place, path: Path): MapTree[] {
    const tree = this.treeOf(value, place, path);
    const trees = tree.kind === 'list' ? tree.items : [tree];
    return trees.flatMap((one) => {
      if (one.kind === 'map') return [one];
      this.problems.error(place, [...path, '<<'], 'must name a map, or a list of maps');
      return [];
    });
  }

  private scalarOf(value: unknown, source: string | undefined, at: Place, path: Path): Scalar {
    if (typeof value === 'string') return this.substitute(value, at, path);
    // A number written with a leading zero is octal, as Docker reads it: `mode: 0440`.
    if (typeof value === 'number')
      return /^0[0-7]+$/.test(source ?? '') ? Number.parseInt(source!, 8) : value;
    if (typeof value === 'boolean' || value === null) return value;
    return typeof value === 'bigint' ? Number(value) : String(source ?? '');
  }

  private substitute(value: string, at: Place, path: Path): string {
    const result = interpolate(value, this.environment);
    if (!result.ok) {
      this.problems.error(at, path, result.message);
      return value;
    }
    for (const name of result.unset) {
      this.problems.warn(at, path, `the ${name} variable is not set: taken as a blank string`);
    }
    return result.text;
  }
}

/** What a tree says, without its places. */
export function toPlain(tree: Tree): unknown {
  if (tree.kind === 'scalar') return tree.value;
  if (tree.kind === 'list') return tree.items.map(toPlain);
  return Object.fromEntries([...tree.entries].map(([name, entry]) => [name, toPlain(entry.value)]));
}

/** The place of `path` in `tree`, or of the nearest part around it that is there. */
export function placeIn(tree: Tree, path: Path): Place {
  let place = tree.at;
  let here: Tree | undefined = tree;
  for (const part of path) {
    const entry: Entry | undefined = here?.kind === 'map' ? here.entries.get(String(part)) : undefined;
    const item: Tree | undefined = here?.kind === 'list' ? here.items[Number(part)] : undefined;
    if (!entry && !item) return place;
    place = entry?.at ?? item!.at;
    here = entry?.value ?? item;
  }
  return place;
}

/** The part of `tree` at `path`. */
export function treeAt(tree: Tree | undefined, path: Path): Tree | undefined {
  let here = tree;
  for (const part of path) {
    here =
      here?.kind === 'map'
        ? here.entries.get(String(part))?.value
        : here?.kind === 'list'
          ? here.items[Number(part)]
          : undefined;
  }
  return here;
}
