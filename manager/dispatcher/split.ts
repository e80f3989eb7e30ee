/**
 * Keeps assignment messages below what a gRPC receiver takes (4 MB where nothing else is set, as in stock engines):
 * one that is too large goes as several, each applying to the one before. Pure.
 */
import type { AssignmentChange__Output as WireChange } from '../../proto/generated/docker/swarmkit/v1/AssignmentChange.ts';
import type { AssignmentsMessage__Output as WireAssignments } from '../../proto/generated/docker/swarmkit/v1/AssignmentsMessage.ts';

/** Room is left for what the estimate does not see. */
export const assignmentLimitBytes = 3 * 1024 * 1024;

/**
 * The message in parts of about `limitBytes` at most; one change that is larger stands alone. A COMPLETE message's
 * first part must name every task that has started, for a worker ends what it does not find there: so those come
 * first when there are parts, and what needs secrets that come later has not started.
 */
export function splitAssignments(
  message: WireAssignments,
  limitBytes: number = assignmentLimitBytes,
): WireAssignments[] {
  const changes = message.changes ?? [];
  const sizes = new Map(changes.map((change) => [change, sizeOf(change)]));
  const total = [...sizes.values()].reduce((sum, size) => sum + size, 0);
  if (total <= limitBytes) return [message];
  const isComplete = message.type === 'COMPLETE';
  const started = isComplete ? changes.filter(isStartedTask) : [];
  const rest = isComplete ? changes.filter((change) => !isStartedTask(change)) : changes;
  const all = inParts(rest, sizes, limitBytes, started);
  return all.map((part, at): WireAssignments => {
    const isLast = at === all.length - 1;
    const resultsIn = isLast ? message.results_in : `${message.results_in}.${at + 1}`;
    const appliesTo = at === 0 ? message.applies_to : `${message.results_in}.${at}`;
    return {
      type: at === 0 ? message.type : 'INCREMENTAL',
      ...(appliesTo === undefined ? {} : { applies_to: appliesTo }),
      ...(resultsIn === undefined ? {} : { results_in: resultsIn }),
      changes: part,
    };
  });
}

/** The changes in order, cut where a part would be too large; they go on behind `begun`. */
function inParts(
  changes: readonly WireChange[],
  sizes: ReadonlyMap<WireChange, number>,
  limitBytes: number,
  begun: readonly WireChange[] = [],
): WireChange[][] {
  const parts: WireChange[][] = [[...begun]];
  let size = begun.reduce((sum, change) => sum + (sizes.get(change) ?? 0), 0);
  for (const change of changes) {
    const more = sizes.get(change) ?? 0;
    if (size + more > limitBytes && parts.at(-1)!.length > 0) {
      parts.push([]);
      size = 0;
    }
    parts.at(-1)!.push(change);
    size += more;
  }
  return parts;
}

const notStarted = new Set(['NEW', 'PENDING', 'ASSIGNED', 'ACCEPTED', 'PREPARING', 'READY']);

function isStartedTask(change: WireChange): boolean {
  const task = change.assignment?.task;
  return task !== undefined && task !== null && !notStarted.has(task.status?.state ?? 'NEW');
}

const fieldBytes = 4;

/** About how many bytes a value takes on the wire. */
function sizeOf(value: unknown): number {
  if (typeof value === 'string') return fieldBytes + value.length;
  if (value instanceof Uint8Array) return fieldBytes + value.byteLength;
  if (Array.isArray(value)) return value.reduce<number>((sum, item) => sum + sizeOf(item), 0);
  if (typeof value !== 'object' || value === null) return fieldBytes * 2;
  return Object.entries(value).reduce((sum, [key, field]) => {
    return field === undefined ? sum : sum + fieldBytes + key.length + sizeOf(field);
  }, 0);
}
