/** Who may take the place of a manager (`shoal node promote A --demote B`), and what is said to others. */
import assert from 'node:assert/strict';
import { replacement } from '../../../manager/api/nodes.ts';
import { Store } from '../../../manager/store/store.ts';
import { type ClusterNode, engineIdLabel } from '../../../proto/docker.ts';
import { asId, type NodeId } from '../../../proto/ids.ts';
import { makeNode } from '../dispatcher/cluster.ts';

type Reach = NonNullable<ClusterNode['ManagerStatus']>['Reachability'];

describe('a node that is to take the place of a manager', () => {
  let store: Store;
  let index: number;

  function add(id: string, reach?: Reach, change: (node: ClusterNode) => ClusterNode = (node) => node): void {
    const node = makeNode(id);
    const { Engine } = node.Description;
    const object: ClusterNode = {
      ...node,
      Description: {
        ...node.Description,
        Hostname: id,
        Engine: { ...Engine, Labels: { ...Engine.Labels, [engineIdLabel]: `engine of ${id}` } },
      },
      Spec: { ...node.Spec, Role: reach ? 'manager' : 'worker' },
      Status: { ...node.Status, State: 'ready' },
      ...(reach ? { ManagerStatus: { Reachability: reach, Addr: `${id}:2377` } } : {}),
    };
    index += 1;
    store.applyEntry(index, { now: 0, changes: [{ op: 'create', kind: 'node', object: change(object) }] });
  }

  const node = (id: string): ClusterNode => store.get('node', asId<NodeId>(id))!;
  const replace = (id: string, manager: string) => replacement(store, node(id), node(manager));
  const refused = (id: string, manager: string, message: RegExp) =>
    assert.throws(() => replace(id, manager), { code: 'failed-precondition', message });

  beforeEach(() => {
    store = new Store();
    index = 0;
    for (const id of ['m1', 'm2', 'm3']) add(id, 'reachable');
    for (const id of ['w1', 'w2']) add(id);
  });

  it('is a manager on its way, and the other one stays what it is', () => {
    const changes = replace('w1', 'm2');
    assert.equal(store.applyEntry(99, { now: 0, changes }).ok, true);
    assert.equal(node('w1').Spec.Role, 'manager');
    assert.equal(node('w1').Private.Replaces, 'm2');
    assert.equal(node('m2').Spec.Role, 'manager');
  });

  it('may be the second one of a cluster, or come for a manager that is dead', () => {
    store = new Store();
    add('m1', 'reachable');
    add('w1');
    assert.equal(replace('w1', 'm1').length, 1);
    add('m2', 'reachable');
    add('m3', 'unreachable');
    assert.equal(replace('w1', 'm3').length, 1);
  });

  it('is refused in words for what it is, or the other one', () => {
    add('gone', undefined, (one) => ({ ...one, Status: { ...one.Status, State: 'down' } }));
    add('stock', undefined, (one) => ({
      ...one,
      Description: { ...one.Description, Engine: { ...one.Description.Engine, Labels: {} } },
    }));
    add('learner', 'unknown');
    refused('m1', 'm1', /the same node/);
    refused('m1', 'm2', /m1 is a manager already; demote m2 alone/);
    refused('w1', 'w2', /w2 is no manager; promote w1 alone/);
    refused('gone', 'm1', /gone is down and would not catch up/);
    refused('stock', 'm1', /stock is a Docker Engine, which can be a worker only/);
    refused('w1', 'learner', /learner has no vote yet/);
  });

  it('is refused while another one does already', () => {
    store.applyEntry(99, { now: 0, changes: replace('w1', 'm2') });
    refused(
      'w2',
      'm2',
      /w1 is about to; wait until it has its vote, or call it off with `shoal node demote w1`/,
    );
    assert.equal(replace('w2', 'm1').length, 1);
  });

  it('is refused where the quorum would be lost', () => {
    add('m4', 'unreachable');
    add('m5', 'unreachable');
    assert.equal(replace('w1', 'm2').length, 1, 'three of five answer, before and after');
    add('m6', 'unreachable');
    refused('w1', 'm2', /loss of quorum/);
  });
});
