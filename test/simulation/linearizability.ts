/**
 * Checks that a register behaved as if its operations had happened one after the other, each at a moment between
 * its call and its answer (Herlihy and Wing 1990; the search is Wing and Gong's with Lowe's memory of what was
 * tried). Writes whose outcome is unknown may have happened at any time after their call, or never.
 */

export interface RegisterOperation {
  readonly kind: 'read' | 'write' | 'swap';
  /** What it wrote, or saw. */
  readonly value: string;
  /** For swap: what had to be there. */
  readonly expected?: string;
  /** `refused`: a swap that found something else. `unknown`: no answer came. */
  readonly outcome: 'done' | 'refused' | 'unknown';
  /** Moments by one counter; `returned` is infinite when no answer came. */
  readonly called: number;
  readonly returned: number;
}

/** Undefined when `history`, from a register that held `initial`, is linearizable; else where it stops being so. */
export function linearizabilityFault(
  history: readonly RegisterOperation[],
  initial: string,
): string | undefined {
  const operations = relevant(history).sort((left, right) => left.called - right.called);
  const seen = new Set<string>();
  let furthest = -1;
  let furthestState = initial;

  const search = (left: readonly RegisterOperation[], state: string): boolean => {
    if (left.every((operation) => operation.outcome === 'unknown')) return true;
    const key = `${state}|${left.map((operation) => operation.called).join(',')}`;
    if (seen.has(key)) return false;
    seen.add(key);
    if (operations.length - left.length > furthest) {
      furthest = operations.length - left.length;
      furthestState = state;
    }
    const firstReturn = Math.min(...left.map((operation) => operation.returned));
    for (const operation of left) {
      if (operation.called > firstReturn) break;
      const next = step(operation, state);
      if (next === undefined) continue;
      if (
        search(
          left.filter((other) => other !== operation),
          next,
        )
      )
        return true;
    }
    return false;
  };

  if (search(operations, initial)) return undefined;
  return `after ${furthest} of ${operations.length} operations the register held ${furthestState}, and no operation fits: ${describe(operations)}`;
}

/** The state after the operation, undefined when it cannot have happened in `state`. */
function step({ kind, value, expected, outcome }: RegisterOperation, state: string): string | undefined {
  switch (kind) {
    case 'read':
      return value === state ? state : undefined;
    case 'write':
      return value;
    case 'swap':
      if (outcome === 'refused') return state === expected ? undefined : state;
      return state === expected ? value : undefined;
  }
}

/**
 * Without what says nothing: unanswered reads, and unanswered writes of what nobody ever saw, unless they may be
 * why a swap was refused.
 */
function relevant(history: readonly RegisterOperation[]): RegisterOperation[] {
  const seen = new Set<string>();
  for (const { kind, value, expected, outcome } of history) {
    if (kind === 'read' && outcome === 'done') seen.add(value);
    if (expected !== undefined && outcome !== 'refused') seen.add(expected);
  }
  const lastRefusal = Math.max(
    ...history.map(({ outcome, returned }) => (outcome === 'refused' ? returned : 0)),
    0,
  );
  return history.filter(({ kind, value, outcome, called }) => {
    if (outcome !== 'unknown') return true;
    return kind !== 'read' && (seen.has(value) || called < lastRefusal);
  });
}

function describe(operations: readonly RegisterOperation[]): string {
  return operations
    .map(({ kind, value, expected, outcome, called, returned }) => {
      const span = `${called}–${returned === Number.POSITIVE_INFINITY ? '?' : returned}`;
      return `${kind} ${expected === undefined ? '' : `${expected}→`}${value} ${outcome === 'done' ? '' : outcome} ${span}`.replace(
        / +/g,
        ' ',
      );
    })
    .join('; ');
}
