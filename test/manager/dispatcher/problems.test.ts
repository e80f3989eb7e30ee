import assert from 'node:assert/strict';
import fc from 'fast-check';
import { NodeProblems, problemsGapMs, problemsOf } from '../../../manager/dispatcher/problems.ts';
import type { NodeProblem } from '../../../proto/docker.ts';
import { ShoalError } from '../../../proto/errors.ts';
import type { EndpointsProblem } from '../../../proto/generated/shoal/v1/EndpointsProblem.ts';
import { asId, type NodeId } from '../../../proto/ids.ts';
import { silentLog } from '../../../proto/ports.ts';
import { settle } from '../../simulation/clock.ts';
import { makeNode, TestBed } from './cluster.ts';

const now = Date.parse('2026-01-02T00:00:00.000Z');
const port: EndpointsProblem = { message: 'port 80/tcp is held', service_id: 'service1' };
const stored: NodeProblem = {
  Message: 'port 80/tcp is held',
  ServiceID: asId('service1'),
  Since: '2026-01-01T00:00:00.000Z',
};

describe('the problems of a node', () => {
  it('are those that it told, each since when it told of it first', () => {
    assert.deepEqual(problemsOf([port, { message: 'no tool', network_id: 'net1' }], [stored], now), [
      stored,
      { Message: 'no tool', NetworkID: 'net1', Since: '2026-01-02T00:00:00.000Z' },
    ]);
    assert.equal(problemsOf([port], [stored], now), undefined, 'nothing new');
    assert.deepEqual(problemsOf([], [stored], now), [], 'one that ended disappears');
    const moved = problemsOf([{ ...port, service_id: 'other' }], [stored], now);
    assert.deepEqual(moved?.[0]?.ServiceID, 'other');
  });

  it('are bounded, each once, and told again change nothing, whatever a node tells', () => {
    const problem = fc.record(
      { message: fc.string({ maxLength: 600 }), network_id: fc.string(), service_id: fc.string() },
      { requiredKeys: [] },
    );
    fc.assert(
      fc.property(fc.array(problem, { maxLength: 130 }), (told) => {
        const kept = problemsOf(told, [], now) ?? [];
        assert.ok(kept.length <= 100 && kept.every(({ Message }) => Message.length <= 500));
        assert.equal(kept.length === 0, told.length === 0);
        assert.equal(problemsOf(told, kept, now + 1), undefined);
        assert.equal(new Set(kept.map((one) => JSON.stringify(one))).size, kept.length);
      }),
    );
  });
});

describe('the keeper of problems', () => {
  function begin() {
    const bed = new TestBed();
    const id = asId<NodeId>('n1');
    bed.commit({ op: 'create', kind: 'node', object: makeNode('n1') });
    const problems = new NodeProblems({
      store: bed.store,
      clock: bed.clock,
      log: silentLog,
      commit: async (change) => void (await bed.propose([change])),
    });
    const pass = async (ms: number) => {
      await bed.clock.run(ms);
      await settle();
    };
    const tell = async (...told: EndpointsProblem[]) => {
      problems.tell(id, told);
      await settle();
    };
    const words = () => (bed.node('n1').Problems ?? []).map(({ Message }) => Message);
    return { bed, problems, tell, pass, words };
  }

  it('stores what is new at once, nothing twice, and what ended goes', async () => {
    const { bed, tell, pass, words } = begin();
    await tell();
    await tell(port);
    await tell(port);
    assert.deepEqual(words(), [port.message]);
    assert.equal(bed.proposals.length, 1);
    await pass(problemsGapMs);
    await tell();
    assert.deepEqual(words(), []);
  });

  it('makes one entry of what changes quickly, the last word', async () => {
    const { bed, tell, pass, words } = begin();
    for (let count = 0; count < 50; count += 1) await tell({ message: `fault ${count}` });
    assert.equal(bed.proposals.length, 1);
    await pass(problemsGapMs);
    assert.deepEqual(words(), ['fault 49']);
    assert.equal(bed.proposals.length, 2);
  });

  it('stores with a later report what could not be stored', async () => {
    const { bed, tell, pass, words } = begin();
    bed.refusal = new ShoalError('no-quorum', 'no');
    await tell(port);
    await pass(problemsGapMs);
    bed.refusal = undefined;
    await tell(port);
    assert.deepEqual(words(), [port.message]);
  });
});
