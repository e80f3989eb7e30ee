import assert from 'node:assert/strict';
import { type LogEntry, type LogQuery, type OpenLogs, readLogs } from '../../../manager/logs/reader.ts';
import { ShoalError } from '../../../proto/errors.ts';
import { settle } from '../../simulation/clock.ts';

const query: LogQuery = { serviceIds: ['s'], taskIds: [], stdout: true, stderr: true, follow: false };

interface Opened {
  request: Parameters<OpenLogs>[0];
  sink: Parameters<OpenLogs>[1];
  isClosed: boolean;
}

function source(): { opened: Opened[]; open: OpenLogs } {
  const opened: Opened[] = [];
  const open: OpenLogs = (request, sink) => {
    const entry: Opened = { request, sink, isClosed: false };
    opened.push(entry);
    return {
      close: () => {
        entry.isClosed = true;
      },
    };
  };
  return { opened, open };
}

const message = (text: string) => ({
  messages: [
    {
      context: { node_id: 'n', task_id: 't', service_id: 's' },
      timestamp: { seconds: '1', nanos: 5 },
      stream: 'LOG_STREAM_STDERR' as const,
      data: Buffer.from(text),
    },
  ],
});

async function collect(lines: AsyncIterable<LogEntry>): Promise<string[]> {
  const texts: string[] = [];
  for await (const line of lines) texts.push(Buffer.from(line.data).toString());
  return texts;
}

describe('logs/reader', () => {
  it('asks for what the API asks and gives lines with their origin', async () => {
    const { opened, open } = source();
    const lines = readLogs(open, { ...query, tail: 2, sinceMs: 1_500.25 }, new AbortController().signal);
    const first = lines.next();
    await opened[0]!.sink.send(message('one\n'));
    assert.deepEqual((await first).value, {
      kind: 'line',
      stream: 'stderr',
      timestamp: '1970-01-01T00:00:01.000000005Z',
      nodeId: 'n',
      serviceId: 's',
      taskId: 't',
      data: Buffer.from('one\n'),
    });
    assert.deepEqual(opened[0]!.request.options, {
      streams: ['LOG_STREAM_STDOUT', 'LOG_STREAM_STDERR'],
      follow: false,
      tail: '-3',
      since: { seconds: '1', nanos: 500_250_000 },
    });
    opened[0]!.sink.end();
    assert.equal((await lines.next()).done, true);
    assert.ok(opened[0]!.isClosed);
  });

  it('gives every line that was sent before the end, then throws what the stream ended with', async () => {
    const { opened, open } = source();
    const lines = readLogs(open, query, new AbortController().signal);
    const first = lines.next();
    void opened[0]!.sink.send(message('one'));
    void opened[0]!.sink.send(message('two'));
    opened[0]!.sink.end(new ShoalError('unavailable', 'warning: incomplete log stream.'));
    assert.equal(`${(await first).value?.data}`, 'one');
    assert.equal(`${(await lines.next()).value?.data}`, 'two');
    await assert.rejects(lines.next(), /incomplete log stream/);
  });

  it('makes the sender wait for the reader', async () => {
    const { opened, open } = source();
    const lines = readLogs(open, query, new AbortController().signal);
    const first = lines.next();
    await opened[0]!.sink.send(message('one'));
    await first;
    let isTaken = false;
    const sending = opened[0]!.sink.send(message('two')).then(() => {
      isTaken = true;
    });
    await settle();
    assert.equal(isTaken, false);
    await lines.next();
    await sending;
    await lines.return();
    assert.ok(opened[0]!.isClosed);
  });

  it('ends by its signal and frees the senders', async () => {
    const { opened, open } = source();
    const abort = new AbortController();
    const collected = collect(readLogs(open, { ...query, follow: true }, abort.signal));
    await settle();
    await opened[0]!.sink.send(message('one'));
    abort.abort();
    assert.deepEqual(await collected, ['one']);
    assert.ok(opened[0]!.isClosed);
    await opened[0]!.sink.send(message('late'));
  });

  it('frees a sender whose lines nobody took', async () => {
    const { opened, open } = source();
    const lines = readLogs(open, query, new AbortController().signal);
    const first = lines.next();
    const [taken, untaken] = [opened[0]!.sink.send(message('one')), opened[0]!.sink.send(message('two'))];
    await first;
    await lines.return();
    await Promise.all([taken, untaken]);
  });
});
