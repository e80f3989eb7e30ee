/**
 * Compose's ways of writing one thing in two forms made one, and several files laid over each other:
 * maps are merged, single values replaced, lists joined, and what has a key (a mount its target, a port
 * its published one) is replaced where the key is the same.
 */

import { mountTarget } from './mount.ts';
import { portKey } from './port.ts';
import type { Entry, MapTree, Path, Tree } from './tree.ts';

/** Parts of a service that may be a list of `NAME=value` or a map. */
const assignments = ['environment', 'labels', 'sysctls'];
/** Parts that may be one string or a list of them. */
const stringLists = ['dns', 'dns_search', 'env_file', 'tmpfs'];
/** Lists that a later file replaces. */
const replacedLists = new Set(['command', 'entrypoint', 'healthcheck.test']);

/** The tree with every part in the form that the schema asks for. */
export function canonicalTree(tree: Tree): Tree {
  if (tree.kind !== 'map') return tree;
  return mapEntries(tree, (name, value) => {
    if (value.kind !== 'map') return value;
    if (name === 'services') return mapEntries(value, (_, service) => canonicalService(service));
    if (!['networks', 'volumes', 'secrets', 'configs'].includes(name)) return value;
    return mapEntries(value, (_, object) => canonicalParts(object, { labels: assignmentsToMap }));
  });
}

type Rewrite = (tree: Tree) => Tree;

function canonicalService(service: Tree): Tree {
  const rewrites: Record<string, Rewrite> = {
    networks: namesToMap,
    deploy: (deploy) => canonicalParts(deploy, { labels: assignmentsToMap }),
  };
  for (const name of assignments) rewrites[name] = assignmentsToMap;
  for (const name of stringLists) rewrites[name] = stringToList;
  return canonicalParts(service, rewrites);
}

function canonicalParts(tree: Tree, rewrites: Record<string, Rewrite>): Tree {
  if (tree.kind !== 'map') return tree;
  return mapEntries(tree, (name, value) => (Object.hasOwn(rewrites, name) ? rewrites[name]!(value) : value));
}

function mapEntries(tree: MapTree, change: (name: string, value: Tree) => Tree): MapTree {
  const entries = new Map<string, Entry>();
  for (const [name, entry] of tree.entries) {
    entries.set(name, { at: entry.at, value: change(name, entry.value) });
  }
  return { ...tree, entries };
}

/** `[A=1, B]` as `{A: 1, B: null}`. Anything else is left for the schema to refuse. */
function assignmentsToMap(tree: Tree): Tree {
  if (tree.kind !== 'list') return tree;
  const entries = new Map<string, Entry>();
  for (const item of tree.items) {
    if (item.kind !== 'scalar' || typeof item.value !== 'string') return tree;
    const at = item.value.indexOf('=');
    const name = at < 0 ? item.value : item.value.slice(0, at);
    const value = at < 0 ? null : item.value.slice(at + 1);
    entries.set(name, { at: item.at, value: { kind: 'scalar', at: item.at, value } });
  }
  return { kind: 'map', at: tree.at, entries };
}

/** `[a, b]` as `{a: null, b: null}`. */
function namesToMap(tree: Tree): Tree {
  if (tree.kind !== 'list') return tree;
  const entries = new Map<string, Entry>();
  for (const item of tree.items) {
    if (item.kind !== 'scalar' || typeof item.value !== 'string') return tree;
    entries.set(item.value, { at: item.at, value: { kind: 'scalar', at: item.at, value: null } });
  }
  return { kind: 'map', at: tree.at, entries };
}

function stringToList(tree: Tree): Tree {
  return tree.kind === 'scalar' && tree.value !== null ? { kind: 'list', at: tree.at, items: [tree] } : tree;
}

/** `over` laid over `base`, both canonical. */
export function mergeTrees(base: Tree, over: Tree, path: Path = []): Tree {
  if (over.kind === 'scalar' && over.value === null) return base;
  if (base.kind === 'map' && over.kind === 'map') {
    const entries = new Map(base.entries);
    for (const [name, entry] of over.entries) {
      const held = entries.get(name);
      entries.set(
        name,
        held ? { at: entry.at, value: mergeTrees(held.value, entry.value, [...path, name]) } : entry,
      );
    }
    return { ...base, entries };
  }
  if (base.kind === 'list' && over.kind === 'list') return mergeLists(base, over, path);
  return over;
}

function mergeLists(
  base: Extract<Tree, { kind: 'list' }>,
  over: Extract<Tree, { kind: 'list' }>,
  path: Path,
): Tree {
  const within = path[0] === 'services' ? path.slice(2).join('.') : '';
  if (replacedLists.has(within)) return over;
  const keys = new Set(over.items.map((item) => keyOf(item, within)).filter((key) => key !== undefined));
  const kept = base.items.filter((item) => {
    const key = keyOf(item, within);
    return key === undefined || !keys.has(key);
  });
  return { ...base, items: [...kept, ...over.items] };
}

/** By what an item of a list is told from the others; undefined when items only add up. */
function keyOf(item: Tree, within: string): string | undefined {
  switch (within) {
    case 'ports':
      return portKey(item);
    case 'volumes':
      return mountTarget(item);
    case 'secrets':
    case 'configs':
      return field(item, 'source');
    default:
      return item.kind === 'scalar' ? String(item.value) : undefined;
  }
}

function field(item: Tree, name: string): string | undefined {
  const scalar = item.kind === 'map' ? item.entries.get(name)?.value : item;
  return scalar?.kind === 'scalar' && scalar.value !== null ? String(scalar.value) : undefined;
}
