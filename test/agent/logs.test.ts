import assert from 'node:assert/strict';
import { startNode, type TestNode, wireTask } from './node.ts';

const text = (node: TestNode) =>
  node.managers.logLines.map(({ data }) =>
    Buffer.from(data as Uint8Array)
      .toString()
      .trim(),
  );
const containerOf = (node: TestNode, taskId: string) => node.managers.last(taskId)!.container!.container_id!;

async function twoTasks(): Promise<TestNode> {
  const node = await startNode();
  node.managers.assign(wireTask('t1'));
  node.managers.assign(wireTask('t2', 'web:1', { service_id: 'service2' }));
  await node.untilState('t1', 'RUNNING');
  await node.untilState('t2', 'RUNNING');
  node.engine.write(containerOf(node, 't1'), 'one');
  node.engine.write(containerOf(node, 't1'), 'two', 'stderr');
  node.engine.write(containerOf(node, 't2'), 'other');
  return node;
}

describe('logs', () => {
  it('are sent for the selected service, with where they come from, and the stream is closed', async () => {
    const node = await twoTasks();
    node.managers.subscribe({ id: 'sub', selector: { service_ids: ['service1'] }, options: {} });
    await node.until(() => node.managers.closedSubscriptions.includes('sub'));
    assert.deepEqual(text(node), ['one', 'two']);
    const [first, second] = node.managers.logLines;
    assert.deepEqual(first!.context, {
      service_id: 'service1',
      node_id: 'node0000000000000000000aa',
      task_id: 't1',
    });
    assert.deepEqual([first!.stream, second!.stream], ['LOG_STREAM_STDOUT', 'LOG_STREAM_STDERR']);
  });

  it('obey tail, since and the streams asked for', async () => {
    const node = await twoTasks();
    const ask = async (id: string, options: object) => {
      node.managers.logLines.length = 0;
      node.managers.subscribe({ id, selector: { task_ids: ['t1'] }, options });
      await node.until(() => node.managers.closedSubscriptions.includes(id));
      return text(node);
    };
    assert.deepEqual(await ask('a', { tail: '-2' }), ['two']);
    assert.deepEqual(await ask('b', { tail: '-1' }), []);
    assert.deepEqual(await ask('c', { streams: ['LOG_STREAM_STDOUT'] }), ['one']);
    assert.deepEqual(
      await ask('d', { since: { seconds: String(Math.ceil(node.clock.now() / 1000) + 60) } }),
      [],
    );
  });

  it('are followed, into tasks that start later, until the reader leaves', async () => {
    const node = await twoTasks();
    node.managers.subscribe({
      id: 'sub',
      selector: { service_ids: ['service1'] },
      options: { follow: true },
    });
    await node.until(() => text(node).length === 2);
    node.engine.write(containerOf(node, 't1'), 'three');
    await node.until(() => text(node).includes('three'));
    node.managers.assign(wireTask('t3', 'web:1', { slot: '2' }));
    await node.untilState('t3', 'RUNNING');
    node.engine.write(containerOf(node, 't3'), 'from a new task');
    await node.until(() => text(node).includes('from a new task'));
    node.managers.subscribe({ id: 'sub', close: true });
    await node.until(() => node.managers.closedSubscriptions.includes('sub'));
    node.engine.write(containerOf(node, 't1'), 'unheard');
    await node.clock.run(1_000);
    assert.equal(text(node).includes('unheard'), false);
  });

  it('of a node without such tasks end at once', async () => {
    const node = await startNode();
    node.managers.subscribe({ id: 'sub', selector: { service_ids: ['nobody'] }, options: {} });
    await node.until(() => node.managers.closedSubscriptions.includes('sub'));
    assert.deepEqual(text(node), []);
  });
});
