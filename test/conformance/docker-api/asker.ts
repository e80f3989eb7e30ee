/**
 * Asks our API by the operations of its description: notes which operations, parameters and filters were used,
 * and checks each answer against the description of the version in its path.
 */
import assert from 'node:assert/strict';
import type { Answer, TestApi } from '../../manager/api/host.ts';
import { answerFaults, type Description, type Fault } from './swagger.ts';

export interface Question {
  /** Values of the path's {…}. */
  readonly at?: Record<string, string>;
  readonly query?: Record<string, string | number | boolean>;
  readonly filters?: Record<string, readonly string[]>;
  readonly headers?: Record<string, string>;
  readonly body?: unknown;
  /** The status that is expected; 200 without. */
  readonly status?: number;
}

export class Asker {
  readonly api: TestApi;
  /** `GET /configs`, `GET /configs filters`, `GET /configs filters.name`, … */
  readonly used = new Set<string>();
  /** Types that the description does not allow, each with the operation. */
  readonly faults: (Fault & { readonly operation: string })[] = [];
  readonly #minor: number;
  readonly #description: Description;

  constructor(api: TestApi, minor: number, description: Description) {
    this.api = api;
    this.#minor = minor;
    this.#description = description;
  }

  /** Asks `operation`, e.g. `GET /configs/{id}`, and answers what came. */
  async ask(operation: string, question: Question = {}): Promise<Answer> {
    const { at = {}, query = {}, filters, headers = {}, body, status = 200 } = question;
    const [method, path] = operation.split(' ') as [string, string];
    this.#note(operation, [...Object.keys(query), ...Object.keys(headers)], Object.keys(filters ?? {}));
    const target = path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(at[name] ?? ''));
    const all = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) all.set(name, String(value));
    if (filters) all.set('filters', JSON.stringify(filters));
    const url = `/v1.${this.#minor}${target}${all.size > 0 ? `?${all}` : ''}`;
    const answer = await this.api.send(
      method,
      url,
      body === undefined ? undefined : JSON.stringify(body),
      headers,
    );
    assert.equal(answer.status, status, `${method} ${url}: ${answer.text}`);
    this.#check(operation, method, path, answer);
    return answer;
  }

  #note(operation: string, parameters: readonly string[], filters: readonly string[]): void {
    this.used.add(operation);
    for (const name of parameters) this.used.add(`${operation} ${name}`);
    if (filters.length > 0) this.used.add(`${operation} filters`);
    for (const name of filters) this.used.add(`${operation} filters.${name}`);
  }

  #check(operation: string, method: string, path: string, answer: Answer): void {
    if (!String(answer.headers['content-type']).startsWith('application/json') || answer.text === '') return;
    const values: unknown[] = operation === 'GET /events' ? eventsOf(answer) : [answer.json];
    for (const value of values) {
      const faults = answerFaults(this.#description, { method, path }, answer.status, value);
      const undescribed = [{ path: 'status', expected: 'one that is described', got: String(answer.status) }];
      for (const fault of faults ?? undescribed) this.faults.push({ operation, ...fault });
    }
  }
}

/** Events are one JSON text a line. */
export function eventsOf(answer: Answer): { Type: string; Action: string; scope: string }[] {
  return answer.text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as { Type: string; Action: string; scope: string });
}
