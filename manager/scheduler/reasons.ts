/** Why tasks wait, in words: every node counted under the first filter that it fails. */
import type { Check } from './filters.ts';
import type { NodeEntry } from './node-table.ts';

/** Why no node takes the task; undefined when one does now. */
export function whyNone(entries: readonly NodeEntry[], checks: readonly Check[]): string | undefined {
  if (entries.length === 0) return 'no suitable node (the cluster has no nodes)';
  const failures = new Map<Check, NodeEntry[]>(checks.map((check) => [check, []]));
  for (const entry of entries) {
    const failed = checks.find((check) => !check.passes(entry));
    if (!failed) return undefined;
    failures.get(failed)!.push(entry);
  }
  return `no suitable node (${explain([...failures], entries.length)})`;
}

/** Why the node that a task is bound to does not take it; undefined when it does now. */
export function whyNot(entry: NodeEntry, checks: readonly Check[]): string | undefined {
  const failed = checks.find((check) => !check.passes(entry));
  return failed && `${nameOf(entry)} cannot take it (${explain([[failed, [entry]]], 1)})`;
}

function explain(failures: readonly (readonly [Check, readonly NodeEntry[]])[], total: number): string {
  return failures
    .filter(([, entries]) => entries.length > 0)
    .flatMap(([check, entries]) => check.explain(entries, total))
    .join('; ');
}

function nameOf(entry: NodeEntry): string {
  return `node ${entry.node.Description.Hostname || entry.id}`;
}
