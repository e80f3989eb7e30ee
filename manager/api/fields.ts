/**
 * The vocabulary of the API's schemas: how a field of a body is read. Four rules hold for every field. Its
 * name is known in any case.
 * `null` says nothing, as in Docker. A field that nobody knows is refused with its path. A field that
 * Docker knows and Shoal has no effect for is refused by name, unless it holds nothing.
 */
import { z } from 'zod';
import { type ErrorCode, ShoalError } from '../../proto/errors.ts';
import { withKnownCase } from './field-case.ts';

const maximumIssuesTold = 3;

/** What a schema's own checks hand to the error: the code to answer with; the message stands alone. */
interface IssueFacts {
  readonly code?: ErrorCode;
}

/** Checks `body` against `schema`. Throws ShoalError with the first faults and where they are. */
export function check<T>(schema: z.ZodType<unknown>, body: unknown, what: string): T {
  const result = schema.safeParse(withKnownCase(schema, withoutNulls(body, what, '')));
  if (result.success) return withoutUndefined(result.data) as T;
  const issues = result.error.issues;
  const special = issues.find((issue) => factsOf(issue).code !== undefined);
  if (special)
    throw new ShoalError(factsOf(special).code!, `${pathOf(what, special.path)}: ${special.message}`);
  const told = issues.slice(0, maximumIssuesTold).map((issue) => describe(what, issue));
  throw new ShoalError('invalid-argument', told.join('; '));
}

function factsOf(issue: z.core.$ZodIssue): IssueFacts {
  return issue.code === 'custom' ? ((issue.params ?? {}) as IssueFacts) : {};
}

function describe(what: string, issue: z.core.$ZodIssue): string {
  if (issue.code === 'unrecognized_keys') {
    return issue.keys.map((key) => `unknown field ${pathOf(what, [...issue.path, key])}`).join(', ');
  }
  return `${pathOf(what, issue.path)}: ${issue.message.replace(/^Invalid input: /, '')}`;
}

function pathOf(what: string, path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (text, step) => (typeof step === 'number' ? `${text}[${step}]` : `${text}.${String(step)}`),
    what,
  );
}

function withoutNulls(value: unknown, what: string, path: string): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map((item, index) => withoutNulls(item, what, `${path}[${index}]`));
  const entries = Object.entries(value).filter(([, field]) => field !== null);
  if (entries.some(([key]) => key === '__proto__')) {
    throw new ShoalError('invalid-argument', `${what}${path}.__proto__: nothing can have this name`);
  }
  return Object.fromEntries(
    entries.map(([key, field]) => [key, withoutNulls(field, what, `${path}.${key}`)]),
  );
}

function withoutUndefined(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(withoutUndefined);
  const entries = Object.entries(value).filter(([, field]) => field !== undefined);
  return Object.fromEntries(entries.map(([key, field]) => [key, withoutUndefined(field)]));
}

/** Whether a value says nothing: Go's zero value, or a structure of such. */
export function isZero(value: unknown): boolean {
  if (value === undefined || value === null || value === '' || value === 0 || value === false) return true;
  return typeof value === 'object' && Object.values(value).every(isZero);
}

/** A field that Docker knows and Shoal has no effect for: it may hold nothing. `reason` ends the message. */
export function without(reason: string): z.ZodType<undefined> {
  return z
    .unknown()
    .superRefine((value, context) => {
      if (isZero(value)) return;
      context.addIssue({ code: 'custom', message: reason, params: { code: 'not-supported' } });
    })
    .transform(() => undefined)
    .optional() as unknown as z.ZodType<undefined>;
}

/** One of `words`; left out or empty it is `fallback`. */
export function oneOf(words: readonly string[], fallback?: string): z.ZodType<string | undefined> {
  return z
    .string()
    .optional()
    .superRefine((word, context) => {
      if (!word || words.includes(word)) return;
      context.addIssue({ code: 'custom', message: `"${word}" is none of ${words.join(', ')}` });
    })
    .transform((word) => word || fallback) as unknown as z.ZodType<string | undefined>;
}

export const text = z.string();
export const optionalText = text.optional();
export const flag = z.boolean().optional();
export const texts = z.array(text).optional();
export const map = z.record(text, text).optional();
/** Labels that are always stored, as Docker prints them. */
export const labels = z.record(text, text).optional().default({});
export const count = z.int().min(0);
export const optionalCount = count.optional();
export const integer = z.int().optional();
export const driver = z.strictObject({ Name: optionalText.default(''), Options: map }).optional();
