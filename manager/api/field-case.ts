/**
 * Field names of a body as the API spells them. Docker's own reader is blind to their case, and clients in use
 * lean on it: python-docker writes a service's mode as {"replicated": …}.
 */
import type { z } from 'zod';

/** What a schema says of itself, as far as the walk below needs it. */
interface Definition {
  readonly type: string;
  readonly shape?: Record<string, z.ZodType>;
  readonly innerType?: z.ZodType;
  readonly element?: z.ZodType;
  readonly in?: z.ZodType;
}

/**
 * `value` with every field that `schema` knows in another case renamed to that. A field that it does not know
 * stays as it is, and keys of maps are the user's. When one field comes in two cases the later one holds, as in Docker.
 */
export function withKnownCase(schema: z.ZodType, value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const definition = schema.def as unknown as Definition;
  const inner = definition.innerType ?? definition.in;
  if (inner) return withKnownCase(inner, value);
  if (definition.type === 'array' && Array.isArray(value)) {
    return value.map((item) => withKnownCase(definition.element!, item));
  }
  const { shape } = definition;
  if (!shape || Array.isArray(value)) return value;
  const names = namesOf(shape);
  return Object.fromEntries(
    Object.entries(value).map(([key, field]) => {
      const name = Object.hasOwn(shape, key) ? key : names.get(key.toLowerCase());
      return name === undefined ? [key, field] : [name, withKnownCase(shape[name]!, field)];
    }),
  );
}

/** Shapes are made once, when the schemas are; so are their names in lower case. */
const known = new WeakMap<object, ReadonlyMap<string, string>>();

function namesOf(shape: Record<string, z.ZodType>): ReadonlyMap<string, string> {
  let names = known.get(shape);
  if (!names) {
    names = new Map(Object.keys(shape).map((name) => [name.toLowerCase(), name]));
    known.set(shape, names);
  }
  return names;
}
