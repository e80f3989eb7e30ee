import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { AppendFile } from '../../manager/raft/contract.ts';
import { VirtualClock } from './clock.ts';
import { SimulatedDisk } from './disk.ts';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const text = (disk: SimulatedDisk, name: string): string => new TextDecoder().decode(disk.contents(name));

async function appended(file: AppendFile, what: string): Promise<void> {
  await file.append(bytes(what));
}

describe('simulated disk', () => {
  it('keeps what was flushed and loses what was not, when the machine dies', async () => {
    const clock = new VirtualClock();
    const disk = new SimulatedDisk({ clock, flushMs: 5 });
    const file = await disk.create('log');
    await clock.runFor(appended(file, 'durable'), 10);
    const lost = appended(file, ' lost');
    disk.crash();
    await assert.rejects(clock.runFor(lost, 10), /crashed/);
    assert.equal(text(disk, 'log'), 'durable');
    await assert.rejects(async () => file.append(bytes('x')), /crashed/);
  });

  it('tears what was being written', async () => {
    const clock = new VirtualClock();
    const disk = new SimulatedDisk({ clock, flushMs: 5, tear: () => 0.5 });
    const file = await disk.create('log');
    appended(file, '12345678').catch(() => {});
    disk.crash();
    assert.equal(text(disk, 'log'), '1234');
  });

  it('replaces a file whole or not at all', async () => {
    const clock = new VirtualClock();
    const disk = new SimulatedDisk({ clock, flushMs: 5, tear: () => 0.5 });
    await clock.runFor(disk.replace('snapshot', bytes('old')), 10);
    disk.replace('snapshot', bytes('newer')).catch(() => {});
    disk.crash();
    assert.equal(text(disk, 'snapshot'), 'old');
  });

  it('fills up, and takes more when there is room', async () => {
    const disk = new SimulatedDisk();
    const file = await disk.create('log');
    await file.append(bytes('1234'));
    disk.limit(6);
    await assert.rejects(async () => file.append(bytes('5678')), { code: 'disk-full' });
    assert.equal(text(disk, 'log'), '123456');
    disk.limit(100);
    const again = await disk.reopen('log', 4);
    await again.append(bytes('5678'));
    assert.equal(text(disk, 'log'), '12345678');
  });

  it('holds what any order of appends, cuts and reads says it should', async () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant('append' as const), size: fc.nat(40) }),
      fc.record({ kind: fc.constant('cut' as const), size: fc.nat(60) }),
      fc.record({ kind: fc.constant('keep' as const), size: fc.constant(0) }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
        const disk = new SimulatedDisk();
        let file = await disk.create('log');
        let expected: number[] = [];
        const kept: { seen: Uint8Array; was: number[] }[] = [];
        for (const [at, { kind, size }] of steps.entries()) {
          if (kind === 'append') {
            const data = Uint8Array.from({ length: size }, () => at);
            await file.append(data);
            expected = [...expected, ...data];
          } else if (kind === 'cut') {
            const length = Math.min(size, expected.length);
            file = await disk.reopen('log', length);
            expected = expected.slice(0, length);
          } else kept.push({ seen: await disk.read('log'), was: expected });
        }
        assert.deepEqual([...disk.contents('log')], expected);
        for (const { seen, was } of kept) assert.deepEqual([...seen], was);
      }),
      { numRuns: 100, seed: 7 },
    );
  });
});
