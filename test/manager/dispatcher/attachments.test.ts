import assert from 'node:assert/strict';
import { ContainerAttachments } from '../../../manager/dispatcher/attachments.ts';
import { ShoalError } from '../../../proto/errors.ts';
import { asId, type NetworkId, type NodeId } from '../../../proto/ids.ts';
import { settle } from '../../simulation/clock.ts';
import { TestBed } from './cluster.ts';
import { networkId, overlayNetwork, overlayNode } from './endpoint-objects.ts';

const id = asId<NodeId>('n1');

function begin(isAttachable = true) {
  const bed = new TestBed();
  const network = overlayNetwork();
  bed.commit({
    op: 'create',
    kind: 'network',
    object: { ...network, Spec: { ...network.Spec, Attachable: isAttachable } },
  });
  bed.commit({ op: 'create', kind: 'node', object: overlayNode(1) });
  const woken: string[] = [];
  const attachments = new ContainerAttachments({
    store: bed.store,
    commit: async (change) => void (await bed.propose([change])),
    onRefused: (node) => woken.push(node),
  });
  const ask = async (...requests: Parameters<typeof attachments.ask>[1]) => {
    attachments.ask(id, requests);
    await settle();
  };
  const stored = () => (bed.node('n1').ContainerAttachments ?? []).map(({ ID }) => ID);
  const words = () => attachments.answers(bed.node('n1'));
  return { bed, attachments, ask, stored, words, woken };
}

describe('containers that are no tasks', () => {
  it('are kept with their node as long as its agent asks for them, by name or id of the network', async () => {
    const { bed, ask, stored, words } = begin();
    await ask({ id: 'a', network: 'front', names: ['one'] });
    assert.deepEqual(bed.node('n1').ContainerAttachments, [
      { ID: 'a', NetworkID: networkId, Names: ['one'] },
    ]);
    await ask({ id: 'a', network: 'front', names: [] }, { id: 'b', network: networkId, names: [] });
    assert.deepEqual(stored(), ['a', 'b']);
    assert.deepEqual(words(), [], 'no addresses yet');
    const given = { ID: 'a', NetworkID: asId<NetworkId>(networkId), Addresses: ['10.1.0.9/24'] };
    const none = { ...given, ID: 'b', Addresses: [], Err: 'none left' };
    const gone = { ...given, ID: 'gone', Addresses: [] };
    bed.commit({ op: 'merge', kind: 'node', id, fields: { ContainerAddresses: [given, none, gone] } });
    assert.deepEqual(words(), [
      { id: 'a', network_id: networkId, addresses: ['10.1.0.9/24'] },
      { id: 'b', network_id: networkId, addresses: [], problem: 'none left', problem_code: 'unavailable' },
    ]);
    const entries = bed.proposals.length;
    await ask({ id: 'a', network: 'front' }, { id: 'b', network: networkId });
    assert.equal(bed.proposals.length, entries, 'nothing new');
    await ask({ id: 'b', network: networkId });
    assert.deepEqual(stored(), ['b']);
    await ask();
    assert.deepEqual(stored(), []);
  });

  it('are refused in words, and the node is told', async () => {
    const open = begin();
    await open.ask({ id: 'a', network: 'nowhere' });
    assert.deepEqual(open.words(), [
      { id: 'a', problem: 'network nowhere not found', problem_code: 'not-found' },
    ]);
    assert.deepEqual(open.woken, ['n1']);
    const closed = begin(false);
    await closed.ask({ id: 'a', network: 'front' });
    assert.match(closed.words()[0]?.problem ?? '', /network front not manually attachable$/);
    await closed.ask();
    assert.deepEqual(closed.words(), []);
  });

  it('are refused on a node that has no networks between hosts', async () => {
    const { bed, ask, words } = begin();
    const { Description } = bed.node('n1');
    bed.commit({
      op: 'merge',
      kind: 'node',
      id,
      fields: { Description: { ...Description, Engine: { ...Description.Engine, Labels: {} } } },
    });
    await ask({ id: 'a', network: 'front' });
    assert.match(words()[0]?.problem ?? '', /^node h1 has no networks between hosts/);
  });

  it('that could not be stored are told as refused, and stored when they are asked for again', async () => {
    const { bed, ask, stored, words } = begin();
    bed.refusal = new ShoalError('no-quorum', 'no quorum');
    await ask({ id: 'a', network: 'front' });
    assert.deepEqual(words(), [{ id: 'a', problem: 'no quorum', problem_code: 'unavailable' }]);
    bed.refusal = undefined;
    await ask({ id: 'a', network: 'front' });
    assert.deepEqual(stored(), ['a']);
  });

  it('of many reports at once are those of the last', async () => {
    const { attachments, stored } = begin();
    for (let count = 1; count <= 20; count += 1) {
      attachments.ask(
        id,
        Array.from({ length: count }, (_, at) => ({ id: `${at}`, network: 'front' })),
      );
    }
    attachments.ask(id, [{ id: '3', network: 'front' }]);
    await settle();
    assert.deepEqual(stored(), ['3']);
  });
});
