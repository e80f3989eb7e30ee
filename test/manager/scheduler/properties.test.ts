/** What must hold of every schedule, whatever the cluster looks like. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { type NodeEntry, NodeTable } from '../../../manager/scheduler/node-table.ts';
import { Pass } from '../../../manager/scheduler/pass.ts';
import { schedule } from '../../../manager/scheduler/schedule.ts';
import { engineIdLabel, type Task } from '../../../proto/docker.ts';
import type { NodeId, TaskId } from '../../../proto/ids.ts';
import type { TaskState } from '../../../proto/task-state.ts';
import { now, World } from './world.ts';

type Merge = { readonly fields: object };

interface Shape {
  nodes: { memory: number; engine: number; drained: boolean }[];
  services: { memory: number; port: number; most: number; tasks: number }[];
}

const shapes: fc.Arbitrary<Shape> = fc.record({
  nodes: fc.array(fc.record({ memory: fc.nat(10), engine: fc.nat(4), drained: fc.boolean() }), {
    maxLength: 6,
  }),
  services: fc.array(fc.record({ memory: fc.nat(4), port: fc.nat(2), most: fc.nat(2), tasks: fc.nat(6) }), {
    minLength: 1,
    maxLength: 4,
  }),
});

function build(shape: Shape): World {
  const world = new World();
  shape.nodes.forEach((node, index) => {
    world.node(`h${index}`, {
      Spec: { Availability: node.drained ? 'drain' : 'active' },
      Description: {
        Resources: { NanoCPUs: 1e9, MemoryBytes: node.memory },
        Engine: { Labels: node.engine === 0 ? {} : { [engineIdLabel]: `e${node.engine}` } },
      },
    });
  });
  shape.services.forEach((service, index) => {
    world.service(`s${index}`, {
      TaskTemplate: {
        Resources: { Reservations: { MemoryBytes: service.memory } },
        Placement: { MaxReplicas: service.most },
      },
      EndpointSpec: {
        Ports: [
          {
            TargetPort: 80,
            PublishMode: 'host',
            PublishedPort: service.port === 0 ? 0 : 8000 + service.port,
          },
        ],
      },
    });
    world.waiting(`s${index}`, service.tasks);
  });
  return world;
}

function runOn(world: World, table = NodeTable.build(world.store)): void {
  world.apply(schedule(world.store, world.store.find('task', 'state', 'pending'), table, now));
}

function countBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, number> {
  const counts = new Map<string, number>();
  for (const item of items) counts.set(keyOf(item), (counts.get(keyOf(item)) ?? 0) + 1);
  return counts;
}

/** What a table says, comparable. */
function contents(table: NodeTable) {
  const plain = (entry: NodeEntry) => ({
    ...entry,
    node: entry.node.ID,
    activeByService: [...entry.activeByService].sort(),
    failures: [...entry.failures].sort(),
    ports: ['tcp/8001', 'tcp/8002'].filter((port) => table.isPortTaken(entry, port)),
  });
  return [...table.nodes.values()].map(plain).sort((a, b) => a.id.localeCompare(b.id));
}

describe('scheduler: properties', () => {
  it('never over capacity, host ports once an engine, no more replicas than allowed, no node drained', () => {
    fc.assert(
      fc.property(shapes, (shape) => {
        const world = build(shape);
        runOn(world);
        const placed = world.store.list('task').filter((task) => task.NodeID !== undefined);
        const serviceOf = (task: Task) => shape.services[Number(task.ServiceID.slice(1))]!;
        const nodeOf = (task: Task) => shape.nodes[Number(task.NodeID!.slice(1))]!;
        shape.nodes.forEach((node, index) => {
          const here = placed.filter((task) => task.NodeID === `h${index}`);
          assert.ok(here.reduce((sum, task) => sum + serviceOf(task).memory, 0) <= node.memory);
          assert.ok(!node.drained || here.length === 0);
        });
        const published = placed.filter((task) => serviceOf(task).port > 0);
        const engine = (task: Task) => (nodeOf(task).engine === 0 ? task.NodeID! : `e${nodeOf(task).engine}`);
        const holders = countBy(published, (task) => `${engine(task)} ${serviceOf(task).port}`);
        assert.ok([...holders.values()].every((count) => count === 1));
        for (const [key, count] of countBy(placed, (task) => `${task.ServiceID} ${task.NodeID}`)) {
          const most = shape.services[Number(key.split(' ')[0]!.slice(1))]!.most;
          assert.ok(most === 0 || count <= most);
        }
      }),
    );
  });

  it('a task waits with a reason or is placed without one, and asking again changes nothing', () => {
    fc.assert(
      fc.property(shapes, (shape) => {
        const world = build(shape);
        const table = NodeTable.build(world.store);
        const before = contents(table);
        runOn(world, table);
        assert.deepEqual(contents(table), before, 'the table is left as it was');
        for (const task of world.store.list('task')) {
          assert.equal(task.Status.Err === undefined, task.NodeID !== undefined, task.Status.Err);
          assert.equal(task.Status.State, task.NodeID === undefined ? 'pending' : 'assigned');
        }
        const pending = world.store.find('task', 'state', 'pending');
        assert.deepEqual(schedule(world.store, pending, NodeTable.build(world.store), now), []);
      }),
    );
  });

  it('in pieces of any size, each on what the one before made, the same comes out', () => {
    fc.assert(
      fc.property(shapes, fc.integer({ min: 1, max: 9 }), (shape, most) => {
        const [whole, pieces] = [build(shape), build(shape)];
        runOn(whole);
        const { store } = pieces;
        const table = NodeTable.build(store);
        store.onCommit((commit) => {
          if (commit.kind === 'changed') for (const event of commit.events) table.note(event, store);
        });
        const pass = new Pass(store, store.find('task', 'state', 'pending'), table);
        while (!pass.isOver) {
          const before = contents(table);
          const changes = pass.next(now, most);
          assert.deepEqual(contents(table), before, 'the table is left as it was');
          const placed = changes.filter(
            ({ op, ...rest }) => op === 'merge' && 'NodeID' in (rest as Merge).fields,
          );
          assert.ok(placed.length <= most, `${placed.length} tasks placed at a time`);
          if (changes.length > 0) pieces.apply(changes);
        }
        for (const { ID } of whole.store.list('service')) {
          assert.deepEqual(pieces.placements(ID), whole.placements(ID));
        }
      }),
    );
  });

  it('a task that was given up between two pieces is not placed by the next', () => {
    const world = new World().node('h0').service('s');
    const [first, second] = world.waiting('s', 2);
    const pass = new Pass(world.store, [first!, second!], NodeTable.build(world.store));
    world.apply(pass.next(now, 1));
    world.apply([{ op: 'merge', kind: 'task', id: second!.ID, fields: { DesiredState: 'shutdown' } }]);
    assert.deepEqual(pass.next(now, 1), []);
    assert.ok(pass.isOver);
  });

  it('on equal nodes, the numbers of replicas differ by one at most', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 8 }),
        fc.array(fc.nat(20), { maxLength: 4 }),
        (nodes, replicas) => {
          const world = new World();
          for (let index = 0; index < nodes; index += 1) world.node(`h${index}`);
          replicas.forEach((count, index) => {
            world.service(`s${index}`).waiting(`s${index}`, count);
          });
          runOn(world);
          const ids = world.store.list('node').map((node) => node.ID);
          const spread = (tasks: readonly Task[]) => {
            const counts = ids.map((id) => tasks.filter((task) => task.NodeID === id).length);
            return Math.max(...counts) - Math.min(...counts);
          };
          assert.ok(spread(world.store.list('task')) <= 1, 'all tasks');
          for (const service of world.store.list('service')) {
            assert.ok(spread(world.store.find('task', 'service', service.ID)) <= 1, service.ID);
          }
        },
      ),
    );
  });

  it('the table that followed every event equals the one built afresh', () => {
    const states: TaskState[] = ['running', 'failed', 'shutdown', 'rejected'];
    const step = fc.record({ what: fc.nat(7), which: fc.nat(30), state: fc.constantFrom(...states) });
    fc.assert(
      fc.property(shapes, fc.array(step, { maxLength: 25 }), (shape, steps) => {
        const world = build(shape);
        const table = NodeTable.build(world.store);
        world.store.onCommit((commit) => {
          if (commit.kind === 'changed') for (const event of commit.events) table.note(event, world.store);
        });
        for (const { what, which, state } of steps) {
          const tasks = world.store.list('task');
          const task = tasks[which % Math.max(1, tasks.length)];
          const id = `h${which % 6}` as NodeId;
          const node = world.store.get('node', id);
          if (what === 0) runOn(world, table);
          else if (what <= 2 && task) {
            const Status = { ...task.Status, State: state, Timestamp: new Date(now).toISOString() };
            world.apply([{ op: 'merge', kind: 'task', id: task.ID, fields: { Status } }]);
          } else if (what === 3 && task) {
            world.apply([
              { op: 'merge', kind: 'task', id: task.ID as TaskId, fields: { DesiredState: 'shutdown' } },
            ]);
          } else if (what === 4 && node) {
            const Engine = { ...node.Description.Engine, Labels: { [engineIdLabel]: `e${which % 3}` } };
            world.apply([
              { op: 'merge', kind: 'node', id, fields: { Description: { ...node.Description, Engine } } },
            ]);
          } else if (what === 5 && node) world.apply([{ op: 'remove', kind: 'node', id }]);
          else if (what === 7 && !node) world.node(id);
          else if (what === 6 && task) world.apply([{ op: 'remove', kind: 'task', id: task.ID }]);
        }
        // Failures outlive their tasks in the table that followed; the fresh one can't know of them.
        const withoutFailures = (from: NodeTable) =>
          contents(from).map((entry) => ({ ...entry, failures: [] }));
        assert.deepEqual(withoutFailures(table), withoutFailures(NodeTable.build(world.store)));
      }),
    );
  });
});
