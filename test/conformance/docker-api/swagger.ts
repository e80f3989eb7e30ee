/**
 * An answer checked against the API's own description (Swagger 2): types, items, properties. Pure. Fields that the
 * description does not know are allowed, as it allows them; missing ones too, for Docker leaves out what is empty.
 */

interface Schema {
  readonly $ref?: string;
  readonly type?: string;
  readonly allOf?: readonly Schema[];
  readonly properties?: Record<string, Schema>;
  readonly additionalProperties?: boolean | Schema;
  readonly items?: Schema;
  readonly 'x-nullable'?: boolean;
}

interface Operation {
  readonly responses?: Record<string, { readonly schema?: Schema }>;
}

export interface Description {
  readonly definitions: Record<string, Schema>;
  readonly paths: Record<string, Record<string, Operation>>;
}

export interface Fault {
  /** Steps from the body's root; `[]` is any item, `*` any key of a map. */
  readonly path: string;
  readonly expected: string;
  readonly got: string;
}

/** Where `value` has another type than the answer of `status` to the operation may have; undefined: no such answer. */
export function answerFaults(
  description: Description,
  operation: { readonly method: string; readonly path: string },
  status: number,
  value: unknown,
): Fault[] | undefined {
  const { responses = {} } = description.paths[operation.path]?.[operation.method.toLowerCase()] ?? {};
  const response = responses[String(status)];
  if (!response) return undefined;
  return response.schema ? faultsOf(description, response.schema, value, '') : [];
}

function faultsOf(description: Description, schema: Schema, value: unknown, path: string): Fault[] {
  if (schema.$ref !== undefined) {
    const named = description.definitions[schema.$ref.replace('#/definitions/', '')];
    if (!named) throw new Error(`the description has no ${schema.$ref}`);
    if (value === null && schema['x-nullable']) return [];
    return faultsOf(description, named, value, path);
  }
  if (value === undefined || (value === null && schema['x-nullable'])) return [];
  const parts = (schema.allOf ?? []).flatMap((part) => faultsOf(description, part, value, path));
  const expected = schema.type ?? (schema.properties ? 'object' : undefined);
  if (expected === undefined) return parts;
  const got = typeOf(value);
  if (got !== expected && !(expected === 'number' && got === 'integer'))
    return [...parts, { path, expected, got }];
  if (expected === 'array' && schema.items) {
    const { items } = schema;
    return [
      ...parts,
      ...(value as unknown[]).flatMap((item) => faultsOf(description, items, item, `${path}[]`)),
    ];
  }
  return expected === 'object'
    ? [...parts, ...fieldFaults(description, schema, value as object, path)]
    : parts;
}

function fieldFaults(description: Description, schema: Schema, value: object, path: string): Fault[] {
  const { properties = {}, additionalProperties } = schema;
  return Object.entries(value).flatMap(([key, field]) => {
    const known = properties[key];
    if (known) return faultsOf(description, known, field, `${path}.${key}`);
    if (typeof additionalProperties !== 'object') return [];
    return faultsOf(description, additionalProperties, field, `${path}.*`);
  });
}

function typeOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  if (typeof value === 'number') return Number.isInteger(value) ? 'integer' : 'number';
  return typeof value;
}
