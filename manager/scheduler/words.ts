/** How the scheduler counts, and tells nodes apart, in words. */
import { type ClusterNode, engineIdLabel } from '../../proto/docker.ts';

/** Groups in order of first appearance. */
export function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    const group = groups.get(key);
    if (group) group.push(item);
    else groups.set(key, [item]);
  }
  return groups;
}

export function nodes(count: number): string {
  return count === 1 ? '1 node' : `${count} nodes`;
}

/** The verb to go with so many nodes. */
export function hasOrHave(count: number): string {
  return count === 1 ? 'has' : 'have';
}

/** What a node has whose agent can't do what ours can, to go with hasOrHave. */
export function whyUnable({ Description }: ClusterNode): string {
  return Description.Engine.Labels[engineIdLabel] === undefined
    ? "Docker's own agent"
    : "an agent of an older version, which can't: update shoald there";
}
