/** A store with nodes, services and tasks to schedule on. */
import assert from 'node:assert/strict';
import type { Change } from '../../../manager/store/change.ts';
import { endpointOf } from '../../../manager/store/endpoint.ts';
import { Store } from '../../../manager/store/store.ts';
import type { Network, Service, ServiceSpec, Task } from '../../../proto/docker.ts';
import type { NetworkId, NewId, NodeId, TaskId } from '../../../proto/ids.ts';
import { makeNode, makeRevision, makeService, makeSpec, makeTask } from '../orchestrator/objects.ts';

export const now = Date.UTC(2026, 0, 1, 12);

export type SpecOver = NonNullable<Parameters<typeof makeSpec>[0]>;
export type NodeOver = NonNullable<Parameters<typeof makeNode>[1]>;
export type TaskOver = NonNullable<Parameters<typeof makeTask>[2]>;

/** For what makes nothing new. */
export const noIds: NewId = () => {
  throw new Error('no identifier was to be made');
};

/** A service with the endpoint that it is stored with, as far as it follows from its spec. */
export function servedService(id: string, spec: ServiceSpec): Service {
  const service = makeService(id, spec);
  return { ...service, Endpoint: endpointOf(service) };
}

export class World {
  readonly store = new Store();
  private addresses = 1;

  apply(changes: readonly Change[], at = now): void {
    assert.deepEqual(this.store.applyEntry(this.store.index + 1, { now: at, changes }), { ok: true });
  }

  node(id: string, over: NodeOver = {}): this {
    this.apply([{ op: 'create', kind: 'node', object: makeNode(id, over) }]);
    return this;
  }

  /** A service `id` with revision `${id}-1`, without tasks. */
  service(id: string, over: SpecOver = {}): this {
    const spec: ServiceSpec = makeSpec({ Name: id, ...over });
    this.apply([
      { op: 'create', kind: 'revision', object: makeRevision(id, 1, spec) },
      { op: 'create', kind: 'service', object: servedService(id, spec) },
    ]);
    return this;
  }

  /** `count` waiting tasks of a service, in slots from 1, in one entry. */
  waiting(service: string, count = 1, over: TaskOver = {}): Task[] {
    const first = this.store.find('task', 'service', service).length + 1;
    const tasks = Array.from({ length: count }, (_, index) => {
      const slot = first + index;
      const status = {
        Timestamp: new Date(now).toISOString(),
        State: 'pending',
        Message: 'created',
      } as const;
      const base = this.addressed(makeTask(`${service}.${slot}`, service, { Status: status, ...over }));
      return over.NodeID === undefined ? { Slot: slot, ...base } : base;
    });
    this.apply(tasks.map((object) => ({ op: 'create', kind: 'task', object })));
    return tasks;
  }

  /** The task with an address of its own on each network that it is attached to. */
  private addressed(task: Task): Task {
    if (!task.NetworksAttachments) return task;
    const NetworksAttachments = task.NetworksAttachments.map((one) => {
      this.addresses += 1;
      return { ...one, Addresses: [`10.99.${this.addresses >> 8}.${this.addresses & 255}/16`] };
    });
    return { ...task, NetworksAttachments };
  }

  /** A task of a service on a node. */
  running(service: string, node: string, over: TaskOver = {}): this {
    this.waiting(service, 1, {
      Status: { State: 'running', Message: 'started' },
      ...over,
      NodeID: node as NodeId,
    });
    return this;
  }

  network(id: string, driver = 'overlay', over: Partial<Network['Spec']> = {}): this {
    const object: Network = {
      ID: id as NetworkId,
      Version: { Index: 0 },
      CreatedAt: '',
      UpdatedAt: '',
      Spec: { Name: id, Labels: {}, DriverConfiguration: { Name: driver }, ...over },
      IPAMOptions: { Driver: { Name: 'default' }, Configs: [] },
    };
    this.apply([{ op: 'create', kind: 'network', object }]);
    return this;
  }

  task(id: string): Task {
    const task = this.store.get('task', id as TaskId);
    assert.ok(task, `no task ${id}`);
    return task;
  }

  /** Where the tasks of a service are: task → node, or the reason why it waits. */
  placements(service: string): Record<string, string | undefined> {
    const tasks = this.store.find('task', 'service', service);
    return Object.fromEntries(
      tasks.map((task) => [task.ID, task.Status.State === 'pending' ? task.Status.Err : task.NodeID]),
    );
  }
}
