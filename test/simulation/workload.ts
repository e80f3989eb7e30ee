/**
 * What users do to a simulated cluster: services, networks, secrets and nodes changed through whatever manager is
 * at hand, as the API changes them; and a register read and written to check that reads are linearizable. What was
 * acknowledged is remembered.
 */
import { acceptServiceSpec } from '../../manager/api/validate.ts';
import type { Manager } from '../../manager/manager.ts';
import { type Change, newMeta } from '../../manager/store/change.ts';
import {
  createServiceChanges,
  type ServiceUpdate,
  updateServiceChanges,
} from '../../manager/store/service-change.ts';
import type { View } from '../../manager/store/store.ts';
import type { Kind } from '../../manager/store/tables.ts';
import { type Network, type Secret, type Service, type ServiceSpec, stackLabel } from '../../proto/docker.ts';
import { isShoalError, messageOf } from '../../proto/errors.ts';
import { type Id, newId } from '../../proto/ids.ts';
import { registerId, type SimulatedCluster } from './cluster.ts';
import { short } from './invariants.ts';
import { variedChange, variedSpecOf } from './kinds/specs.ts';
import type { RegisterOperation } from './linearizability.ts';
import type { Machine } from './machine.ts';
import { seededRandom } from './random.ts';
import { networkOf, serviceSpecOf } from './specs.ts';
import { stackChanges } from './stacks.ts';

const mostNetworks = 3;

interface Acknowledged {
  readonly kind: Kind;
  readonly id: string;
  index: number;
  readonly createdIndex: number;
}

type Outcome = 'done' | 'refused' | 'unknown';

export class Workload {
  readonly operations: RegisterOperation[] = [];
  readonly acknowledged = new Map<string, Acknowledged>();
  /** Ids of what someone asked to be removed, with whatever outcome. */
  readonly mayBeGone = new Set<string>();
  /** How many requests ended how. */
  readonly counts = { done: 0, refused: 0, unknown: 0 };
  readonly #cluster: SimulatedCluster;
  readonly #random: ReturnType<typeof seededRandom>;
  #moment = 0;
  #names = 0;
  #isOver = false;

  constructor(cluster: SimulatedCluster) {
    this.#cluster = cluster;
    this.#random = seededRandom(cluster.seed + 0x20000000);
    cluster.onNewHistory = (index, begun) => void this.#beginAnew(index, begun);
  }

  /** What the register held when the history began that `operations` tells. */
  initial = 'initial';
  #isWaiting = false;

  /** What was acknowledged after `index` is given up; the register's history begins with what it then holds. */
  async #beginAnew(index: number, begun: Promise<void>): Promise<void> {
    this.#isWaiting = true;
    for (const [id, known] of this.acknowledged) {
      if (known.createdIndex > index) this.acknowledged.delete(id);
      else known.index = Math.min(known.index, known.createdIndex);
    }
    await begun.catch(() => {});
    const leader = this.#cluster.leader();
    if (leader === undefined) return;
    try {
      this.initial = await this.#cluster.ask(this.#cluster.machine(leader.machine), async (manager) => {
        await manager.readBarrier();
        return registerValue(manager);
      });
      this.operations.length = 0;
      this.#isWaiting = false;
    } catch {
      // It died before it could go on: nobody is asked any more in this run.
      this.operations.length = 0;
    }
  }

  start(clients: number): void {
    for (let client = 1; client <= clients; client += 1) this.#next(client);
  }

  /** No new requests. */
  stop(): void {
    this.#isOver = true;
  }

  #next(client: number): void {
    const waitMs = 30 + this.#random.float() ** 2 * 1_500;
    this.#cluster.clock.after(waitMs, () => {
      if (this.#isOver) return;
      void this.#request(client).finally(() => this.#next(client));
    });
  }

  async #request(client: number): Promise<void> {
    const running = this.#cluster.managers();
    if (running.length === 0 || this.#isWaiting) return;
    const machine = this.#cluster.machine(running[this.#random.integer(running.length)]!.machine);
    const draw = this.#random.float();
    if (draw < 0.18) return this.#read(machine);
    if (draw < 0.3) return this.#write(machine, client);
    if (draw < 0.38) return this.#swap(machine, client);
    if (!this.#cluster.scope.hasServices) {
      if (draw < 0.55) return this.#read(machine);
      if (draw < 0.7) return this.#write(machine, client);
      if (draw < 0.85) return this.#swap(machine, client);
      return this.#change(machine, (manager) => this.#createSecret(manager));
    }
    return this.#change(machine, this.#draw());
  }

  /** Which change is asked for; made from what the manager's store shows. */
  #draw(): (manager: Manager, now: number) => Change[] | undefined {
    const draw = this.#random.float();
    if (this.#cluster.scope.isVaried) return this.#drawVaried(draw);
    if (draw < 0.3) return (manager, now) => this.#createService(manager, now);
    if (draw < 0.5)
      return (manager, now) => this.#updateService(manager, now, (service) => this.#scaled(service));
    if (draw < 0.68)
      return (manager, now) => this.#updateService(manager, now, (service) => this.#changed(service));
    if (draw < 0.73)
      return (manager, now) => this.#updateService(manager, now, () => ({ rollback: 'previous' }));
    if (draw < 0.81) return (manager) => this.#remove(manager, 'service');
    if (draw < 0.88) return (manager) => this.#createNetwork(manager);
    if (draw < 0.9) return (manager) => this.#remove(manager, 'network');
    if (draw < 0.92) return (manager) => this.#createSecret(manager);
    if (draw < 0.97)
      return (manager, now) => stackChanges(manager.store, this.#random, { now, newId: this.#newId });
    return (manager) => this.#setAvailability(manager);
  }

  #drawVaried(draw: number): (manager: Manager, now: number) => Change[] | undefined {
    if (draw < 0.5) return (manager, now) => this.#createService(manager, now);
    if (draw < 0.8)
      return (manager, now) =>
        this.#updateService(manager, now, ({ Spec }) => ({ spec: variedChange(this.#random, Spec) }));
    if (draw < 0.92) return (manager) => this.#remove(manager, 'service');
    return (manager) => this.#setAvailability(manager);
  }

  async #change(
    machine: Machine,
    make: (manager: Manager, now: number) => Change[] | undefined,
  ): Promise<void> {
    let what = '';
    try {
      await this.#cluster.ask(machine, async (manager) => {
        await manager.readBarrier();
        const changes = make(manager, this.#cluster.clock.now() + machine.skewMs);
        if (changes === undefined) return;
        what = changes.map((change) => `${change.op} ${change.kind} ${short(idOf(change))}`).join(', ');
        for (const change of changes) this.#expect(manager.store, change);
        const index = await manager.propose(changes);
        this.#cluster.invariants.acknowledged(machine.name, index, changes);
        for (const change of changes) this.#remember(change, index);
      });
      if (what === '') return;
      this.counts.done += 1;
      this.#cluster.trace.note(`client at ${machine.name}: ${what}`);
    } catch (error) {
      this.counts[outcomeOf(error)] += 1;
      if (what !== '') this.#cluster.trace.note(`client at ${machine.name}: ${what}: ${messageOf(error)}`);
    }
  }

  #expect(view: View, change: Change): void {
    if (change.op !== 'remove') return;
    this.mayBeGone.add(change.id);
    // A stack of which nothing is left is no stack any more.
    if (change.kind !== 'service' && change.kind !== 'network') return;
    const name = view.get(change.kind, change.id as never)?.Spec.Labels[stackLabel];
    for (const { ID } of name === undefined ? [] : view.find('stack', 'name', name)) this.mayBeGone.add(ID);
  }

  #remember(change: Change, index: number): void {
    if (change.op === 'remove' || change.kind === 'revision') return;
    const id = idOf(change);
    const known = this.acknowledged.get(id);
    if (known) known.index = Math.max(known.index, index);
    else if (change.op === 'create')
      this.acknowledged.set(id, { kind: change.kind, id, index, createdIndex: index });
  }

  // ------------------------------------------------------------ changes

  readonly #newId = <I extends Id<string>>(): I => newId<I>(this.#random);

  #name(prefix: string): string {
    this.#names += 1;
    return `${prefix}${this.#names}`;
  }

  #pick<T>(list: readonly T[]): T | undefined {
    return list[this.#random.integer(list.length)];
  }

  #createService(manager: Manager, now: number): Change[] | undefined {
    const { store } = manager;
    if (store.count('service') >= this.#cluster.scope.mostServices) return undefined;
    if (this.#cluster.scope.isVaried) {
      const varied = variedSpecOf(this.#random, this.#name('service'));
      return createServiceChanges(acceptServiceSpec(store, varied), now, this.#newId).changes;
    }
    const networks = store.list('network').filter(() => this.#random.float() < 0.5);
    const secrets = store.list('secret').filter(() => this.#random.float() < 0.3);
    const { isGuarded } = this.#cluster.scope;
    const drawn = serviceSpecOf(this.#random, this.#name('service'), networks, secrets, isGuarded);
    return createServiceChanges(acceptServiceSpec(store, drawn), now, this.#newId).changes;
  }

  #updateService(
    manager: Manager,
    now: number,
    update: (service: Service) => ServiceUpdate | undefined,
  ): Change[] | undefined {
    const { store } = manager;
    const service = this.#pick(store.list('service'));
    const wanted = service && update(service);
    if (service === undefined || wanted === undefined) return undefined;
    if ('rollback' in wanted && !service.PreviousSpec) return undefined;
    return updateServiceChanges(store, service, wanted, now, this.#newId).changes;
  }

  #scaled({ Spec }: Service): ServiceUpdate | undefined {
    if (!Spec.Mode.Replicated) return undefined;
    return { spec: { ...Spec, Mode: { Replicated: { Replicas: this.#random.integer(6) } } } };
  }

  #changed({ Spec }: Service): ServiceUpdate {
    const { TaskTemplate } = Spec;
    const ContainerSpec = { ...TaskTemplate.ContainerSpec, Env: [`VERSION=${this.#random.integer(1000)}`] };
    const spec: ServiceSpec = { ...Spec, TaskTemplate: { ...TaskTemplate, ContainerSpec } };
    return { spec };
  }

  #remove(manager: Manager, kind: 'service' | 'network'): Change[] | undefined {
    const { store } = manager;
    const object = this.#pick<Service | Network>(store.list(kind));
    if (object === undefined) return undefined;
    if (kind === 'network') {
      const users = [
        ...store.find('service', 'network', object.ID),
        ...store.find('task', 'network', object.ID),
      ];
      if (users.length > 0) return undefined;
    }
    return [{ op: 'remove', kind, id: object.ID } as Change];
  }

  #createNetwork({ store }: Manager): Change[] | undefined {
    if (store.count('network') >= mostNetworks) return undefined;
    return [{ op: 'create', kind: 'network', object: networkOf(this.#newId(), this.#name('network')) }];
  }

  #createSecret({ store }: Manager): Change[] | undefined {
    if (store.count('secret') >= 3) return undefined;
    const object: Secret = {
      ...newMeta(this.#newId()),
      Spec: { Name: this.#name('secret'), Labels: {}, Data: 'c2VjcmV0' },
    };
    return [{ op: 'create', kind: 'secret', object }];
  }

  #setAvailability({ store }: Manager): Change[] | undefined {
    const node = this.#pick(store.list('node'));
    if (node === undefined) return undefined;
    const Availability = this.#pick(['active', 'active', 'pause', 'drain'] as const)!;
    return [{ op: 'update', kind: 'node', object: { ...node, Spec: { ...node.Spec, Availability } } }];
  }

  // ------------------------------------------------------------ the register

  async #read(machine: Machine): Promise<void> {
    await this.#operate('read', '', undefined, () =>
      this.#cluster.ask(machine, async (manager) => {
        await manager.readBarrier();
        return registerValue(manager);
      }),
    );
  }

  async #write(machine: Machine, client: number): Promise<void> {
    const value = this.#name(`c${client}-`);
    await this.#operate('write', value, undefined, () =>
      this.#cluster.ask(machine, async (manager) => {
        const fields = { Spec: { Name: 'register', Labels: { value }, Data: '' } };
        await this.#propose(machine, manager, [{ op: 'merge', kind: 'config', id: registerId, fields }]);
        return value;
      }),
    );
  }

  /** Reads, then writes unless someone else did meanwhile. */
  async #swap(machine: Machine, client: number): Promise<void> {
    const value = this.#name(`c${client}-`);
    let expected: string | undefined;
    let isAnswered = false;
    const wasRead = (): string | undefined => {
      isAnswered = true;
      return expected;
    };
    await this.#operate('swap', value, wasRead, () =>
      this.#cluster.ask(machine, async (manager) => {
        await manager.readBarrier();
        if (isAnswered) throw new Error('the client is gone');
        const register = manager.store.get('config', registerId)!;
        expected = registerValue(manager);
        const Spec = { ...register.Spec, Labels: { value } };
        await this.#propose(machine, manager, [
          { op: 'update', kind: 'config', object: { ...register, Spec } },
        ]);
        return value;
      }),
    );
  }

  async #propose(machine: Machine, manager: Manager, changes: Change[]): Promise<void> {
    const index = await manager.propose(changes);
    this.#cluster.invariants.acknowledged(machine.name, index, changes);
  }

  async #operate(
    kind: RegisterOperation['kind'],
    written: string,
    expectedOf: (() => string | undefined) | undefined,
    work: () => Promise<string>,
  ): Promise<void> {
    this.#moment += 1;
    const called = this.#moment;
    let value = written;
    let outcome: Outcome = 'done';
    try {
      value = await work();
    } catch (error) {
      outcome = kind === 'read' ? 'unknown' : outcomeOf(error);
      // Only a version that was not the expected one says something about the register.
      if (outcome === 'refused' && !isShoalError(error, 'out-of-sequence')) return;
    }
    this.counts[outcome] += 1;
    const expected = expectedOf?.();
    // A swap that never got to read has surely not written.
    if (kind === 'swap' && expected === undefined) return;
    this.#moment += 1;
    const returned = outcome === 'unknown' ? Number.POSITIVE_INFINITY : this.#moment;
    this.operations.push({
      kind,
      value,
      outcome,
      called,
      returned,
      ...(expected === undefined ? {} : { expected }),
    });
    this.#cluster.trace.note(`client: ${kind} ${value} ${outcome}`);
  }
}

function registerValue({ store }: Manager): string {
  return store.get('config', registerId)?.Spec.Labels.value ?? 'nothing';
}

function idOf(change: Change): string {
  return change.op === 'create' || change.op === 'update' ? change.object.ID : change.id;
}

/** Whether what failed may still have happened. */
function outcomeOf(error: unknown): Outcome {
  if (!isShoalError(error)) return 'unknown';
  const { outcome } = error.details;
  if (outcome === 'not-appended' || outcome === 'refused') return 'refused';
  const refusals = ['out-of-sequence', 'already-exists', 'not-found', 'not-supported', 'failed-precondition'];
  return refusals.includes(error.code) ? 'refused' : 'unknown';
}
