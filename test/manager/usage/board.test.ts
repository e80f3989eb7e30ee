import assert from 'node:assert/strict';
import { UsageBoard } from '../../../manager/usage/board.ts';
import { notMeasured } from '../../../manager/usage/service.ts';
import type { UsageWishes } from '../../../proto/generated/shoal/v1/UsageWishes.ts';
import { asId, type NodeId, type ServiceId, type TaskId } from '../../../proto/ids.ts';
import { makeTask, TestBed, TestSink } from '../dispatcher/cluster.ts';
import { makeService, makeSpec } from '../orchestrator/objects.ts';

const scaled = { 'shoal.autoscale.max': '5' };
const byQueue = {
  ...scaled,
  'shoal.autoscale.metric': 'prometheus:jobs',
  'shoal.autoscale.source': 'queue',
  'shoal.autoscale.target': '5',
  'shoal.autoscale.port': '80',
};
const metric = { key: ':80/metrics jobs', name: 'jobs', port: 80, path: '/metrics' };

describe('usage: the leader’s board', () => {
  let bed: TestBed;
  let board: UsageBoard;
  let sink: TestSink<UsageWishes>;

  beforeEach(() => {
    bed = new TestBed();
    board = new UsageBoard({ store: bed.store, clock: bed.clock });
    board.start();
    sink = new TestSink();
  });
  afterEach(() => board.stop(notMeasured()));

  const put = (id: string, Name: string, Labels: Record<string, string>) =>
    bed.commit({ op: 'create', kind: 'service', object: makeService(id, makeSpec({ Name, Labels })) });

  it('tells agents what is to be measured, and again when that is another matter', () => {
    put('s1', 'plain', {});
    board.watch(asId<NodeId>('node1'), sink);
    assert.deepEqual(sink.messages.at(-1)?.wishes, []);
    put('s2', 'web', scaled);
    assert.deepEqual(sink.messages.at(-1)?.wishes, [{ service_id: 's2', metrics: [] }]);
    put('s3', 'work', byQueue);
    assert.equal(sink.messages.length, 2);
    put('s4', 'queue', {});
    assert.deepEqual(sink.messages.at(-1)?.wishes, [
      { service_id: 's2', metrics: [] },
      { service_id: 's4', metrics: [metric] },
    ]);
    bed.commit({ op: 'remove', kind: 'service', id: asId<ServiceId>('s4') });
    bed.commit({ op: 'remove', kind: 'service', id: asId<ServiceId>('s2') });
    assert.deepEqual(sink.messages.at(-1)?.wishes, []);
    const count = sink.messages.length;
    put('s5', 'other', {});
    assert.equal(sink.messages.length, count);
    const late = new TestSink<UsageWishes>();
    board.watch(asId<NodeId>('node2'), late);
    assert.deepEqual(late.messages.at(-1)?.wishes, []);
  });

  it('keeps the newest sample of a task, of its own node alone, as long as there is the task', () => {
    bed.commit({ op: 'create', kind: 'task', object: makeTask('a', 'node1') });
    const own = board.watch(asId<NodeId>('node1'), sink);
    const other = board.watch(asId<NodeId>('node2'), new TestSink());
    const sample = (memory_bytes: string) => ({
      samples: [{ task_id: 'a', memory_bytes, nano_cpus: '5', metrics: { x: 1, y: 'NaN' as never } }],
    });
    own.report(sample('1'));
    own.report(sample('2'));
    other.report(sample('3'));
    assert.deepEqual(board.usageOf(asId<TaskId>('a')), {
      atMs: bed.clock.now(),
      nanoCpus: 5,
      memoryBytes: 2,
      metrics: { x: 1 },
      problems: {},
    });
    bed.commit({ op: 'remove', kind: 'task', id: asId<TaskId>('a') });
    assert.equal(board.usageOf(asId<TaskId>('a')), undefined);
  });

  it('ends its streams with the time of leading', () => {
    board.watch(asId<NodeId>('node1'), sink);
    board.stop(notMeasured());
    assert.match(String(sink.ended?.error), /told to the leader/);
  });
});
