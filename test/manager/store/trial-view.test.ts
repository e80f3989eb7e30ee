import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { Change } from '../../../manager/store/change.ts';
import { claimsOf } from '../../../manager/store/claims.ts';
import { Store } from '../../../manager/store/store.ts';
import { type AnyObject, kinds, tables } from '../../../manager/store/tables.ts';
import { TrialView } from '../../../manager/store/trial-view.ts';
import type { NetworkAttachment } from '../../../proto/docker.ts';
import type { NetworkId, NodeId, TaskId } from '../../../proto/ids.ts';
import { type DesiredState, taskStates } from '../../../proto/task-state.ts';
import { makeService, makeSpec, makeTask } from '../orchestrator/objects.ts';

const now = Date.UTC(2026, 5, 1);
const id = fc.constantFrom('a', 'b', 'c', 'd');
const attached = (address: string): NetworkAttachment[] => [
  { NetworkID: 'net' as NetworkId, Addresses: [`10.0.0.${address.charCodeAt(0)}/24`] },
];

const change: fc.Arbitrary<Change> = fc.oneof(
  fc.tuple(id, id, id).map(([one, service, address]): Change => {
    const over = { Slot: 1, Status: { State: 'running' as const }, NetworksAttachments: attached(address) };
    return { op: 'create', kind: 'task', object: makeTask(one, service, over) };
  }),
  fc
    .tuple(id, fc.constantFrom(...taskStates), fc.constantFrom<DesiredState[]>('running', 'shutdown'), id)
    .map(
      ([one, State, DesiredState, node]): Change => ({
        op: 'merge',
        kind: 'task',
        id: one as TaskId,
        fields: { Status: { Timestamp: '', State, Message: '' }, DesiredState, NodeID: node as NodeId },
      }),
    ),
  id.map((one): Change => ({ op: 'remove', kind: 'task', id: one as TaskId })),
  fc.tuple(id, fc.integer({ min: 80, max: 82 })).map(([one, PublishedPort]): Change => {
    const Ports = [
      { TargetPort: 80, PublishedPort, PublishMode: 'ingress' as const, Protocol: 'tcp' as const },
    ];
    const object = makeService(one, makeSpec({ Name: one, EndpointSpec: { Ports } }));
    return { op: 'create', kind: 'service', object: { ...object, Endpoint: { Spec: {}, Ports } } };
  }),
  id.map((one): Change => ({ op: 'remove', kind: 'service', id: one as never })),
);
const entries = fc.array(fc.array(change, { minLength: 1, maxLength: 3 }), { maxLength: 15 });

/** Everything that can be read, in no order. */
function contents(view: TrialView | Store): unknown {
  const ids = (objects: readonly AnyObject[]) => objects.map(({ ID }) => ID as string).sort();
  return kinds.map((kind) => {
    const list = view.list(kind) as AnyObject[];
    for (const object of list) assert.equal(view.get(kind, object.ID as never), object);
    const found = Object.entries(tables[kind].indexes).map(([name, { keysOf }]) => {
      const keys = new Set(list.flatMap((object) => keysOf(object as never)));
      return [...keys].sort().map((key) => [name, key, ids(view.find(kind, name, key) as AnyObject[])]);
    });
    const claims = [...new Set(list.flatMap((object) => claimsOf(kind, object)))].sort();
    const held = claims.map((claim) => [claim, view.claims.holder(claim)]);
    const objects = new Map(list.map((object) => [object.ID as string, object]));
    return [kind, view.count(kind), ids(list).map((one) => objects.get(one)), found, held];
  });
}

describe('manager/store/trial-view', () => {
  it('is what the store would be, refusals and claims included, and leaves it as it is', () => {
    fc.assert(
      fc.property(entries, entries, (past, trial) => {
        const store = new Store();
        for (const changes of past) store.applyEntry(store.index + 1, { now, changes });
        const other = new Store();
        other.restore(store.index, store.snapshot());
        const before = contents(store);
        const view = new TrialView(store);
        for (const changes of trial) {
          const said = view.apply({ now, changes });
          const would = other.applyEntry(other.index + 1, { now, changes });
          assert.deepEqual(said.ok ? { ok: true } : said, would);
          assert.deepEqual(contents(view), contents(other));
          const net = 'net' as NetworkId;
          assert.equal(view.claims.countAddresses(net), other.claims.countAddresses(net));
          assert.equal(view.index, other.index);
        }
        assert.deepEqual(contents(store), before);
      }),
      { numRuns: 300 },
    );
  });
});
