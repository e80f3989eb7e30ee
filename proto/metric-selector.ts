/**
 * A metric of a task as a service names it: what managers check and agents look for. `NAME`, or `NAME{label="value",…}`: the
 * series that have all of these labels are added up.
 */
export interface MetricSelector {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
}

const nameForm = /^[a-zA-Z_:][a-zA-Z0-9_:]*/;
const labelForm = /^\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"([^"\\\n]*)"\s*(,|$)/;

/** Reads a selector; undefined when it is none. */
export function parseSelector(text: string): MetricSelector | undefined {
  const name = nameForm.exec(text)?.[0];
  if (name === undefined || text.length > 500) return undefined;
  const rest = text.slice(name.length);
  if (rest === '') return { name, labels: {} };
  if (!rest.startsWith('{') || !rest.endsWith('}')) return undefined;
  const labels: Record<string, string> = {};
  for (let left = rest.slice(1, -1); left.trim() !== ''; ) {
    const match = labelForm.exec(left);
    if (!match) return undefined;
    labels[match[1]!] = match[2]!;
    left = left.slice(match[0].length);
  }
  return { name, labels };
}
