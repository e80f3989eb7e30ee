/** Which messages leave at once, and what becomes of the leader's notices of commits. */
import assert from 'node:assert/strict';
import type { Message } from '../../../manager/raft/core/types.ts';
import { Outbox } from '../../../manager/raft/outbox.ts';
import { VirtualClock } from '../../simulation/clock.ts';
import { entry } from './log-fixture.ts';

const head = { from: 1, term: 1 };
const notice = (to: number, commit: number): Message => ({
  ...head,
  type: 'MsgApp',
  to,
  index: 5,
  entries: [],
  commit,
});
const append = (to: number, commit: number): Message => ({ ...notice(to, commit), entries: [entry(6)] });

describe('raft: the outbox', () => {
  let clock: VirtualClock;
  let sent: string[];
  let isAwaited: boolean;
  let outbox: Outbox;

  beforeEach(() => {
    clock = new VirtualClock();
    sent = [];
    isAwaited = false;
    outbox = new Outbox({
      clock,
      isAwaited: () => isAwaited,
      send: (to, messages) => {
        const what = messages.map(
          ({ type, commit = '', entries = [] }) => `${type} ${entries.length}/${commit}`,
        );
        sent.push(`${clock.monotonicMs()}: ${to}: ${what.join(', ')}`);
      },
    });
  });

  it('sends what is for one member together, in order, at once', () => {
    const beat: Message = { ...head, type: 'MsgHeartbeat', to: 2, commit: 3 };
    outbox.send([append(2, 4), append(3, 4), beat]);
    assert.deepEqual(sent, ['0: 2: MsgApp 1/4, MsgHeartbeat 0/3', '0: 3: MsgApp 1/4']);
  });

  it('lets a notice of a commit wait for three milliseconds', async () => {
    outbox.send([notice(2, 5), notice(3, 5)]);
    await clock.run(2.9);
    assert.deepEqual(sent, []);
    await clock.run(10);
    assert.deepEqual(sent, ['3: 2: MsgApp 0/5', '3: 3: MsgApp 0/5']);
  });

  it('drops a notice when a newer append to that member says as much', async () => {
    outbox.send([notice(2, 5), notice(3, 5)]);
    await clock.run(1);
    outbox.send([append(2, 5)]);
    outbox.send([notice(3, 6)]);
    await clock.run(10);
    assert.deepEqual(sent, ['1: 2: MsgApp 1/5', '3: 3: MsgApp 0/6']);
  });

  it('gives every notice its whole time, though others went before', async () => {
    outbox.send([notice(2, 5)]);
    await clock.run(2);
    outbox.send([append(2, 5)]);
    outbox.send([notice(2, 6)]);
    await clock.run(10);
    assert.deepEqual(sent, ['2: 2: MsgApp 1/5', '5: 2: MsgApp 0/6']);
  });

  it('holds nothing back that someone at another member waits for', () => {
    outbox.send([notice(2, 5)]);
    isAwaited = true;
    outbox.send([notice(2, 6), notice(3, 6)]);
    assert.deepEqual(sent, ['0: 2: MsgApp 0/6', '0: 3: MsgApp 0/6']);
  });

  it('sends what it holds when it is to end', async () => {
    outbox.send([notice(2, 5)]);
    outbox.flush();
    outbox.flush();
    await clock.run(10);
    assert.deepEqual(sent, ['0: 2: MsgApp 0/5']);
  });
});
