import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { backlogTaken, backlogTimeoutMs, waitingIn } from '../../../agent/network/backlog.ts';
import { Kernel } from '../../../agent/network/kernel.ts';
import { realClock } from '../../../cli/runtime.ts';
import type { Clock } from '../../../proto/ports.ts';

const head =
  '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode';

describe('who stands before a program’s door', () => {
  it('is counted of each listener’s queue and of half-made connections, over IPv4 and IPv6', () => {
    const tcp = [
      head,
      '   0: 00000000:0050 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0        0 12 1 0 100 0 0 10 0',
      '   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13 1 0 100 0 0 10 0',
      // One that is established, with bytes that were not read: it is the program's.
      '   2: 0301000A:0050 0901000A:C350 01 00000000:00000010 00:00000000 00000000     0        0 14 1 0 20 4 30 10 -1',
      '   3: 0301000A:0050 0901000A:C351 03 00000000:00000000 01:00000001 00000000     0        0 0 1 0',
    ];
    const tcp6 = [
      head,
      `   0: ${'0'.repeat(32)}:0050 ${'0'.repeat(32)}:0000 0A 00000000:0000001F 00:00000000 00000000     0        0 15 1 0 100 0 0 10 0`,
    ];
    assert.equal(waitingIn([tcp.join('\n'), tcp6.join('\n')]), 3 + 1 + 31);
    assert.equal(waitingIn([head, '']), 0);
  });

  describe('of a process', () => {
    const kernel = new Kernel();
    const started: ChildProcess[] = [];
    const server = `
      require('node:net').createServer(() => console.log('taken')).listen(80, () => console.log('listens'))`;
    const client = `require('node:net').connect(80, '127.0.0.1', () => console.log('connected'))`;

    function start(...command: string[]): ChildProcess {
      const [program = '', ...rest] = command;
      const child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'inherit'] });
      started.push(child);
      return child;
    }

    /** A server that has stopped taking connections, with one that waits for it. */
    async function blocked(): Promise<ChildProcess> {
      const script = `ip link set lo up && exec "${process.execPath}" -e "$0"`;
      const child = start('unshare', '--net', 'sh', '-c', script, server);
      await once(child.stdout!, 'data');
      child.kill('SIGSTOP');
      const asker = start('nsenter', `--net=/proc/${child.pid}/ns/net`, process.execPath, '-e', client);
      await once(asker.stdout!, 'data');
      return child;
    }

    before(function () {
      if (process.getuid?.() !== 0) this.skip();
    });

    afterEach(async () => {
      for (const child of started.splice(0)) {
        if (child.exitCode !== null) continue;
        child.kill('SIGKILL');
        await once(child, 'close');
      }
    });

    it('is waited for until the program takes them', async () => {
      const child = await blocked();
      let looks = 0;
      const clock: Clock = {
        ...realClock,
        after: (waitMs, action) => {
          looks += 1;
          if (looks === 3) child.kill('SIGCONT');
          return realClock.after(waitMs, action);
        },
      };
      const taken = once(child.stdout!, 'data');
      await backlogTaken(kernel, clock, child.pid!);
      assert.ok(looks >= 3, `it was looked ${looks} times`);
      assert.match(String((await taken)[0]), /taken/);
    });

    it('is waited for no longer than a program may take, and not at all when there is no such process', async () => {
      const child = await blocked();
      let nowMs = 0;
      const clock: Clock = {
        ...realClock,
        monotonicMs: () => nowMs,
        after: (waitMs, action) => {
          nowMs += waitMs;
          return realClock.after(0, action);
        },
      };
      await backlogTaken(kernel, clock, child.pid!);
      assert.ok(nowMs >= backlogTimeoutMs, `given up after ${nowMs} ms`);
      nowMs = 0;
      await backlogTaken(kernel, clock, 2 ** 30);
      assert.equal(nowMs, 0);
    });
  });
});
