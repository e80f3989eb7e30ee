/**
 * nftables' language: a listing read, and the commands that lead from what stands in the kernel to what should. Pure.
 *
 * One script is one transaction of the kernel: packets see the rules before it or after it, never between.
 */
import { bridgeTable, type Chain, type Collection, inetTable, type Ruleset, type Table } from './ruleset.ts';

const elementsPerCommand = 500;
const ours: ReadonlySet<string> = new Set([inetTable, bridgeTable]);

/** Our tables out of `nft -nn -s list ruleset`; what belongs to others is passed over. */
export function parseRuleset(listing: string): Ruleset {
  const tables = new Map<string, Table>();
  for (const { head, body } of blocks(listing.split('\n'))) {
    const name = /^table (\S+ \S+)$/.exec(head)?.[1];
    if (name !== undefined && ours.has(name)) tables.set(name, parseTable(body));
  }
  return tables;
}

interface Block {
  readonly head: string;
  readonly body: readonly string[];
}

/** `head { … }` at the outermost level of `lines`, and the lines within, one step less indented. */
function blocks(lines: readonly string[]): Block[] {
  const found: Block[] = [];
  let open: { head: string; body: string[] } | undefined;
  for (const line of lines) {
    if (open === undefined) {
      const head = /^(\S.*) \{$/.exec(line)?.[1];
      if (head !== undefined) open = { head, body: [] };
    } else if (line === '}') {
      found.push(open);
      open = undefined;
    } else {
      open.body.push(line.replace(/^\t/, ''));
    }
  }
  return found;
}

function parseTable(lines: readonly string[]): Table {
  const collections = new Map<string, Collection>();
  const chains = new Map<string, Chain>();
  for (const { head, body } of blocks(lines)) {
    const [kind = '', name = ''] = head.split(' ');
    if (kind === 'chain') chains.set(name, parseChain(body));
    if (kind === 'map' || kind === 'set') collections.set(name, parseCollection(kind, body));
    if (kind === 'counter') collections.set(name, { kind, type: '', elements: new Map() });
  }
  return { collections, chains };
}

function parseChain(lines: readonly string[]): Chain {
  const isHook = lines[0]?.startsWith('type ') === true;
  return { hook: isHook ? lines[0]! : '', rules: isHook ? lines.slice(1) : lines };
}

function parseCollection(kind: 'map' | 'set', lines: readonly string[]): Collection {
  const [type = '', ...rest] = lines;
  const list = /elements = \{ (.*) \}/.exec(rest.map((line) => line.trim()).join(' '))?.[1] ?? '';
  const elements = new Map<string, string>();
  for (const element of list.split(/,\s+/).filter((one) => one !== '')) {
    const [key = '', verdict = ''] = element.split(' : ');
    elements.set(key, verdict);
  }
  return { kind, type, elements };
}

/**
 * The commands that make `actual` the same as `desired`, for `nft -f`; none when it is. Only what differs is named, but
 * for a table whose chains hang elsewhere or whose sets are of another type: such a one is made anew.
 */
export function rulesetCommands(actual: Ruleset, desired: Ruleset): string[] {
  const commands: string[] = [];
  for (const [name] of actual) if (!desired.has(name)) commands.push(`delete table ${name}`);
  for (const [name, table] of desired) {
    const before = actual.get(name);
    if (before !== undefined && canBecome(before, table)) {
      commands.push(...tableCommands(name, before, table));
      continue;
    }
    if (before !== undefined) commands.push(`delete table ${name}`);
    commands.push(`add table ${name}`, ...tableCommands(name, emptyTable, table));
  }
  return commands;
}

const emptyTable: Table = { collections: new Map(), chains: new Map() };

function canBecome(before: Table, after: Table): boolean {
  const sameTypes = [...after.collections].every(([name, { kind, type }]) => {
    const one = before.collections.get(name);
    return one === undefined || (one.kind === kind && one.type === type);
  });
  const sameHooks = [...after.chains].every(([name, { hook }]) => {
    const one = before.chains.get(name);
    return one === undefined || one.hook === hook;
  });
  return sameTypes && sameHooks;
}

/** What is referred to is added first and removed last. */
function tableCommands(table: string, before: Table, after: Table): string[] {
  const commands: string[] = [];
  for (const [name, { kind, type }] of after.collections) {
    if (before.collections.has(name)) continue;
    commands.push(`add ${kind} ${table} ${name}${type === '' ? '' : ` { ${type}; }`}`);
  }
  for (const [name, { hook }] of after.chains) {
    if (!before.chains.has(name))
      commands.push(`add chain ${table} ${name}${hook === '' ? '' : ` { ${hook} }`}`);
  }
  for (const [name, { rules }] of after.chains) {
    const had = before.chains.get(name)?.rules ?? [];
    if (had.length === rules.length && had.every((rule, index) => rule === rules[index])) continue;
    if (had.length > 0) commands.push(`flush chain ${table} ${name}`);
    commands.push(...rules.map((rule) => `add rule ${table} ${name} ${rule}`));
  }
  for (const [name, collection] of after.collections) {
    commands.push(...elementCommands(`${table} ${name}`, before.collections.get(name), collection));
  }
  const goneChains = [...before.chains.keys()].filter((name) => !after.chains.has(name));
  commands.push(...goneChains.map((name) => `flush chain ${table} ${name}`));
  for (const [name, { kind }] of before.collections) {
    if (!after.collections.has(name)) commands.push(`delete ${kind} ${table} ${name}`);
  }
  return [...commands, ...goneChains.map((name) => `delete chain ${table} ${name}`)];
}

function elementCommands(name: string, before: Collection | undefined, after: Collection): string[] {
  const had = before?.elements ?? new Map<string, string>();
  const gone = [...had].filter(([key, verdict]) => after.elements.get(key) !== verdict).map(([key]) => key);
  const added = [...after.elements]
    .filter(([key, verdict]) => had.get(key) !== verdict)
    .map(([key, verdict]) => (verdict === '' ? key : `${key} : ${verdict}`));
  return [
    ...chunked(gone).map((keys) => `delete element ${name} { ${keys.join(', ')} }`),
    ...chunked(added).map((elements) => `add element ${name} { ${elements.join(', ')} }`),
  ];
}

function chunked(list: readonly string[]): string[][] {
  const chunks: string[][] = [];
  for (let start = 0; start < list.length; start += elementsPerCommand) {
    chunks.push(list.slice(start, start + elementsPerCommand));
  }
  return chunks;
}
