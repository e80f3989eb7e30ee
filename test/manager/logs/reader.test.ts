import assert from 'node:assert/strict';
import { type LogEntry, type LogQuery, type OpenLogs, readLogs } from '../../../manager/logs/reader.ts';
import { ShoalError } from '../../../proto/errors.ts';
import { settle, VirtualClock } from '../../simulation/clock.ts';

const query: LogQuery = { serviceIds: ['s'], taskIds: [], stdout: true, stderr: true, follow: false };

const clock = new VirtualClock();

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
    const lines = readLogs(
      open,
      { ...query, tail: 2, sinceMs: 1_500.25 },
      new AbortController().signal,
      clock,
    );
    const first = lines.next();
    await opened[0]!.sink.send(message('one\n'));
    assert.deepEqual((await first).value, {
      kind: 'line',
      stream: 'stderr',
      timestamp: '1970-01-01T00:00:01.000000005Z',
      nodeId: 'n',
      serviceId: 's',
      taskId: 't',
      attributes: {},
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
    const lines = readLogs(open, query, new AbortController().signal, clock);
    const first = lines.next();
    void opened[0]!.sink.send(message('one'));
    void opened[0]!.sink.send(message('two'));
    opened[0]!.sink.end(
      new ShoalError('unavailable', 'warning: incomplete log stream.', { details: { incomplete: 'yes' } }),
    );
    assert.equal(`${(await first).value?.data}`, 'one');
    assert.equal(`${(await lines.next()).value?.data}`, 'two');
    await assert.rejects(lines.next(), /incomplete log stream/);
  });

  it('makes the sender wait for the reader', async () => {
    const { opened, open } = source();
    const lines = readLogs(open, query, new AbortController().signal, clock);
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
    const collected = collect(readLogs(open, { ...query, follow: true }, abort.signal, clock));
    await settle();
    await opened[0]!.sink.send(message('one'));
    abort.abort();
    assert.deepEqual(await collected, ['one']);
    assert.ok(opened[0]!.isClosed);
    await opened[0]!.sink.send(message('late'));
  });

  it('frees a sender whose lines nobody took', async () => {
    const { opened, open } = source();
    const lines = readLogs(open, query, new AbortController().signal, clock);
    const first = lines.next();
    const [taken, untaken] = [opened[0]!.sink.send(message('one')), opened[0]!.sink.send(message('two'))];
    await first;
    await lines.return();
    await Promise.all([taken, untaken]);
  });

  describe('when the leader changes', () => {
    const at = (seconds: number, text: string, taskId = 't') => ({
      messages: [
        {
          context: { node_id: 'n', task_id: taskId, service_id: 's' },
          timestamp: { seconds: String(seconds), nanos: 0 },
          stream: 'LOG_STREAM_STDOUT' as const,
          data: Buffer.from(text),
        },
      ],
    });
    const lost = () => new ShoalError('not-leader', 'logs are read through the leader');

    async function until(what: () => boolean): Promise<void> {
      for (let turn = 0; turn < 1_000 && !what(); turn++) {
        await clock.run(100);
      }
      assert.ok(what());
    }

    it('goes on through the next one, without a line lost or told twice', async () => {
      const { opened, open } = source();
      const abort = new AbortController();
      const told: string[] = [];
      const reading = (async () => {
        for await (const { data } of readLogs(open, { ...query, follow: true }, abort.signal, clock)) {
          told.push(Buffer.from(data).toString());
        }
      })();
      await settle();
      await opened[0]!.sink.send(at(1, 'a'));
      await opened[0]!.sink.send(at(2, 'b'));
      await opened[0]!.sink.send(at(2, 'c'));
      opened[0]!.sink.end(lost());
      await until(() => opened.length === 2);
      assert.ok(opened[0]!.isClosed);
      assert.equal(opened[1]!.request.options?.tail, '0');
      for (const [second, text] of [
        [1, 'a'],
        [2, 'b'],
        [2, 'c'],
        [2, 'd'],
        [3, 'e'],
      ] as const) {
        await opened[1]!.sink.send(at(second, text));
      }
      await opened[1]!.sink.send(at(1, 'of another task', 'u'));
      opened[1]!.sink.end(lost());
      await until(() => opened.length === 3);
      await opened[2]!.sink.send(at(3, 'e'));
      await opened[2]!.sink.send(at(4, 'f'));
      abort.abort();
      await reading;
      assert.deepEqual(told, ['a', 'b', 'c', 'd', 'e', 'of another task', 'f']);
    });

    it('asks for the last minute only once the past is behind it, and not for the tail again', async () => {
      const { opened, open } = source();
      const abort = new AbortController();
      const told: string[] = [];
      const startMs = clock.now();
      const reading = (async () => {
        const followed = { ...query, follow: true, tail: 0 };
        for await (const { data } of readLogs(open, followed, abort.signal, clock)) {
          told.push(Buffer.from(data).toString());
        }
      })();
      await settle();
      await clock.run(200_000);
      opened[0]!.sink.end(lost());
      await until(() => opened.length === 2);
      const { tail, since } = opened[1]!.request.options ?? {};
      assert.equal(tail, '0');
      assert.ok(Number(since?.seconds) * 1000 >= startMs + 200_000 - 60_000 - 1_000);
      await opened[1]!.sink.send(at(startMs / 1000 - 5, 'from before'));
      await opened[1]!.sink.send(at(startMs / 1000 + 190, 'missed'));
      abort.abort();
      await reading;
      assert.deepEqual(told, ['missed']);
    });

    it('a reader that does not follow gives up after a while, one that follows does not', async () => {
      let tries = 0;
      const open: OpenLogs = () => {
        tries++;
        throw new ShoalError('no-quorum', 'no manager leads');
      };
      let error: unknown;
      void collect(readLogs(open, query, new AbortController().signal, clock)).catch((failure: unknown) => {
        error = failure;
      });
      await until(() => error !== undefined);
      assert.match(String(error), /no manager leads/);
      assert.ok(tries > 2);
    });

    it('does not try again what is refused', async () => {
      const open: OpenLogs = () => {
        throw new ShoalError('invalid-argument', 'a log request must name a service');
      };
      const lines = readLogs(open, { ...query, follow: true }, new AbortController().signal, clock);
      await assert.rejects(lines.next(), /must name a service/);
    });
  });
});
