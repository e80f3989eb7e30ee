/**
 * Clients of a cluster in the lab, on all managers: registers that are read and swapped, objects that are made and
 * removed. What they saw is kept, and judged at the end: every register's history must be linearizable, and nothing
 * that was acknowledged may be lost.
 *
 * A register is a config, whose labels alone may change and only by who names its version. Each serves for a while
 * only: histories of single objects are judged on their own (Herlihy and Wing's locality), and short ones quickly.
 */
import { request } from 'node:http';
import { linearizabilityFault, type RegisterOperation } from '../../simulation/linearizability.ts';
import type { LabHost } from '../lab.ts';

const registersAtATime = 2;
const registerLifeMs = 15_000;
const thinkMs = 120;
const timeoutMs = 8_000;
const initial = 'initial';

interface Answer {
  readonly status: number;
  readonly body: unknown;
}

/** What came of a request: `not-sent` surely changed nothing, `open` may have. */
type Outcome =
  | { readonly kind: 'answered'; readonly answer: Answer }
  | { readonly kind: 'not-sent' }
  | { readonly kind: 'open' };

interface Register {
  readonly name: string;
  readonly bornMs: number;
  readonly history: RegisterOperation[];
}

/** What was acknowledged of one config. */
interface Kept {
  readonly name: string;
  state: 'there' | 'gone' | 'either';
}

export class Load {
  readonly counts = { done: 0, refused: 0, open: 0, notSent: 0 };
  readonly #hosts: () => readonly LabHost[];
  #registers: Register[] = [];
  readonly #past: Register[] = [];
  readonly #kept = new Map<string, Kept>();
  #moment = 0;
  #numbers = 0;
  #isOver = false;
  #running: Promise<unknown>[] = [];

  /** `hosts`: where an API of a manager may answer now. */
  constructor(hosts: () => readonly LabHost[]) {
    this.#hosts = hosts;
  }

  async start(clients: number): Promise<void> {
    while (this.#registers.length < registersAtATime) await this.#newRegister();
    this.#running = [
      this.#renew(),
      ...Array.from({ length: clients }, (_, at) => this.#client(`c${at + 1}`)),
    ];
  }

  /** Ends the clients; resolves when the last has its answer. */
  async stop(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#running);
  }

  get operations(): number {
    return [...this.#past, ...this.#registers].reduce((sum, { history }) => sum + history.length, 0);
  }

  get acknowledged(): number {
    return [...this.#kept.values()].filter(({ state }) => state !== 'either').length;
  }

  /** What was wrong with what the clients saw, in words; `names`: the configs that are there in the end. */
  faults(names: ReadonlySet<string>): string[] {
    const lost = [...this.#kept.values()].flatMap(({ name, state }) => {
      if (state === 'there' && !names.has(name)) return [`${name} was acknowledged and is gone`];
      if (state === 'gone' && names.has(name)) return [`${name} was removed, and is there`];
      return [];
    });
    const registers = [...this.#past, ...this.#registers];
    const gone = registers.filter(({ name }) => !names.has(name)).map(({ name }) => `${name} is gone`);
    const wrong = registers.flatMap(({ name, history }) => {
      const fault = linearizabilityFault(history, initial);
      return fault === undefined ? [] : [`${name} is not linearizable: ${fault}`];
    });
    return [...lost, ...gone, ...wrong];
  }

  // ------------------------------------------------------------ registers

  async #renew(): Promise<void> {
    while (!this.#isOver) {
      await pause(500);
      const old = this.#registers.find(({ bornMs }) => performance.now() - bornMs > registerLifeMs);
      if (old === undefined) continue;
      await this.#newRegister();
      this.#registers = this.#registers.filter((register) => register !== old);
      this.#past.push(old);
    }
  }

  async #newRegister(): Promise<void> {
    this.#numbers += 1;
    const name = `register-${this.#numbers}`;
    for (let isMade = false; !isMade && !this.#isOver; ) {
      const outcome = await this.#create(name);
      // 409: an earlier try that was left open came through.
      isMade =
        outcome.kind === 'answered' && (outcome.answer.status === 201 || outcome.answer.status === 409);
      if (!isMade) await pause(thinkMs);
    }
    if (!this.#isOver) this.#registers.push({ name, bornMs: performance.now(), history: [] });
  }

  async #client(name: string): Promise<void> {
    // Its own object now and then, a register else.
    for (let turn = 0; !this.#isOver; turn += 1) {
      await pause(thinkMs * (0.5 + Math.random()));
      const register = pick(this.#registers);
      if (turn % 8 === 7) await this.#keep(name, turn);
      else if (register && Math.random() < 0.5) await this.#read(register);
      else if (register) await this.#swap(register, `${name}-${turn}`);
    }
  }

  /** Reads; answers what it saw, with the version. */
  async #read(register: Register): Promise<{ value: string; version: number } | undefined> {
    const called = this.#now();
    const outcome = await this.#ask('GET', `/configs/${register.name}`);
    this.#count(outcome);
    if (outcome.kind !== 'answered') return undefined;
    if (outcome.answer.status === 404) {
      // It was made before anybody was told of it.
      register.history.push({
        kind: 'read',
        value: 'nothing',
        outcome: 'done',
        called,
        returned: this.#now(),
      });
      return undefined;
    }
    if (outcome.answer.status !== 200) return undefined;
    const { Spec, Version } = outcome.answer.body as {
      Spec: { Labels: { value: string } };
      Version: { Index: number };
    };
    const { value } = Spec.Labels;
    register.history.push({ kind: 'read', value, outcome: 'done', called, returned: this.#now() });
    return { value, version: Version.Index };
  }

  async #swap(register: Register, value: string): Promise<void> {
    const seen = await this.#read(register);
    if (seen === undefined) return;
    if (Math.random() < 0.3) await pause(thinkMs);
    const called = this.#now();
    const path = `/configs/${register.name}/update?version=${seen.version}`;
    const outcome = await this.#ask('POST', path, { Name: register.name, Labels: { value } });
    this.#count(outcome);
    const result = outcomeOfUpdate(outcome);
    if (result === undefined) return;
    const returned = result === 'unknown' ? Number.POSITIVE_INFINITY : this.#now();
    const expected = seen.value;
    register.history.push({ kind: 'swap', value, expected, outcome: result, called, returned });
  }

  // ------------------------------------------------------------ objects that are kept

  async #keep(client: string, turn: number): Promise<void> {
    const known = pick([...this.#kept.values()].filter(({ state }) => state === 'there'));
    if (known && Math.random() < 0.4) {
      // Whatever comes of it: nobody else may count on it meanwhile.
      known.state = 'either';
      const outcome = await this.#ask('DELETE', `/configs/${known.name}`);
      this.#count(outcome);
      if (outcome.kind === 'not-sent') known.state = 'there';
      if (outcome.kind === 'answered' && outcome.answer.status === 204) known.state = 'gone';
      return;
    }
    const kept: Kept = { name: `kept-${client}-${turn}`, state: 'either' };
    this.#kept.set(kept.name, kept);
    const outcome = await this.#create(kept.name);
    this.#count(outcome);
    if (outcome.kind === 'answered' && outcome.answer.status === 201) kept.state = 'there';
    if (outcome.kind === 'not-sent') kept.state = 'gone';
  }

  #create(Name: string): Promise<Outcome> {
    return this.#ask('POST', '/configs/create', { Name, Labels: { value: initial }, Data: 'eA==' });
  }

  // ------------------------------------------------------------

  #now(): number {
    this.#moment += 1;
    return this.#moment;
  }

  #count(outcome: Outcome): void {
    if (outcome.kind === 'not-sent') this.counts.notSent += 1;
    else if (outcome.kind === 'open' || outcome.answer.status >= 500) this.counts.open += 1;
    else if (outcome.answer.status >= 400) this.counts.refused += 1;
    else this.counts.done += 1;
  }

  #ask(method: string, path: string, body?: object): Promise<Outcome> {
    const host = pick(this.#hosts());
    if (host === undefined) return Promise.resolve({ kind: 'not-sent' });
    return askApi(host.shoalSocket, method, path, body);
  }
}

/** `unknown`: it may have happened. undefined: it surely has not, which says nothing of the register. */
function outcomeOfUpdate(outcome: Outcome): RegisterOperation['outcome'] | undefined {
  if (outcome.kind === 'not-sent') return undefined;
  if (outcome.kind === 'open') return 'unknown';
  const { status, body } = outcome.answer;
  if (status === 200) return 'done';
  const { message = '' } = body as { message?: string };
  if (/out of sequence/.test(message)) return 'refused';
  return status >= 500 ? 'unknown' : undefined;
}

function pick<T>(list: readonly T[]): T | undefined {
  return list[Math.floor(Math.random() * list.length)];
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** One request with a bound on how long it may take. */
function askApi(socketPath: string, method: string, path: string, body?: object): Promise<Outcome> {
  return new Promise((resolve) => {
    const payload = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
    const headers = payload ? { 'Content-Type': 'application/json', 'Content-Length': payload.length } : {};
    const sent = request({ socketPath, method, path: `/v1.47${path}`, headers, agent: false }, (response) => {
      const parts: Buffer[] = [];
      response.on('data', (part: Buffer) => parts.push(part));
      response.on('error', () => resolve({ kind: 'open' }));
      response.on('end', () => {
        try {
          const text = Buffer.concat(parts).toString('utf8');
          const answer = { status: response.statusCode ?? 0, body: text === '' ? {} : JSON.parse(text) };
          resolve({ kind: 'answered', answer });
        } catch {
          resolve({ kind: 'open' });
        }
      });
    });
    sent.on('error', (error: NodeJS.ErrnoException) => {
      const never = error.code === 'ENOENT' || error.code === 'ECONNREFUSED';
      resolve({ kind: never ? 'not-sent' : 'open' });
    });
    sent.on('close', () => resolve({ kind: 'open' }));
    sent.setTimeout(timeoutMs, () => sent.destroy(new Error('no answer in time')));
    sent.end(payload);
  });
}
