import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { realClock } from '../../../cli/runtime.ts';
import type { Disk } from '../../../manager/raft/contract.ts';
import { openDisk } from '../../../manager/raft/disk.ts';
import type { Clock } from '../../../proto/ports.ts';
import { SimulatedDisk } from '../../simulation/disk.ts';

const folders: string[] = [];

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'shoal-disk-'));
  folders.push(folder);
  return folder;
}

const makers: readonly (readonly [string, () => Promise<Disk>])[] = [
  ['the real disk', () => openDisk(join(newFolder(), 'raft'), realClock)],
  ['the simulated disk', async () => new SimulatedDisk()],
];

async function textOf(disk: Disk, name: string): Promise<string> {
  return Buffer.from(await disk.read(name)).toString();
}

for (const [name, make] of makers) {
  describe(`${name}, as the log needs it`, () => {
    it('appends, and lists what is there', async () => {
      const disk = await make();
      const file = await disk.create('b');
      await file.append(Buffer.from('one '));
      await file.append(Buffer.from('two'));
      await file.close();
      await (await disk.create('a')).close();
      assert.deepEqual(await disk.list(), ['a', 'b']);
      assert.equal(await textOf(disk, 'b'), 'one two');
    });

    it('keeps what is appended apart from what it writes ahead', async () => {
      const disk = await make();
      const file = await disk.create('long');
      const pieces = Array.from({ length: 60 }, (_, number) => Buffer.alloc(100_000, number + 1));
      for (const piece of pieces) await file.append(piece);
      const whole = Buffer.concat(pieces);
      const before = Buffer.from(await disk.read('long'));
      assert.ok(before.subarray(0, whole.length).equals(whole));
      assert.ok(before.subarray(whole.length).every((byte) => byte === 0));
      await file.close();
      assert.ok(whole.equals(Buffer.from(await disk.read('long'))), 'cut to what was appended');
    });

    it('reopens behind what is to be kept', async () => {
      const disk = await make();
      const file = await disk.create('log');
      await file.append(Buffer.from('kept and cut'));
      await file.close();
      const again = await disk.reopen('log', 4);
      await again.append(Buffer.from('!'));
      await again.close();
      assert.equal(await textOf(disk, 'log'), 'kept!');
    });

    it('truncates on create, replaces and removes', async () => {
      const disk = await make();
      await disk.replace('file', Buffer.from('old'));
      await disk.replace('file', Buffer.from('new'));
      assert.equal(await textOf(disk, 'file'), 'new');
      await (await disk.create('file')).close();
      assert.equal(await textOf(disk, 'file'), '');
      await disk.remove('file');
      await disk.remove('file');
      assert.deepEqual(await disk.list(), []);
    });
  });
}

describe('the real disk', () => {
  after(() => {
    for (const folder of folders) rmSync(folder, { recursive: true, force: true });
  });

  it('keeps its files to their owner, and clears away half-written ones', async () => {
    const folder = newFolder();
    writeFileSync(join(folder, 'file.tmp'), 'half');
    const disk = await openDisk(folder, realClock);
    await disk.replace('data-keys', Buffer.from('key'));
    await (await disk.create('log')).close();
    assert.deepEqual(await disk.list(), ['data-keys', 'log']);
    for (const name of ['data-keys', 'log']) assert.equal(statSync(join(folder, name)).mode & 0o777, 0o600);
  });

  it('says which path is full and what to do', async () => {
    const folder = newFolder();
    // /dev/full answers every write with ENOSPC, as a full disk does.
    symlinkSync('/dev/full', join(folder, 'log'));
    const file = await (await openDisk(folder, realClock)).create('log');
    await assert.rejects(async () => file.append(Buffer.from('x')), {
      code: 'disk-full',
      message: /cannot write .*log: no space is left.*free some space/,
    });
    await file.close();
  });

  it('is waited for on the spot while it is quick, and left to the pool when it is not', async () => {
    let flushMs = 0;
    let nowMs = 0;
    const clock: Clock = {
      ...realClock,
      monotonicMs: () => {
        nowMs += flushMs;
        return nowMs;
      },
    };
    const disk = await openDisk(newFolder(), clock);
    const file = await disk.create('log');
    const ways: string[] = [];
    const append = async (text: string): Promise<void> => {
      const flush = file.append(Buffer.from(text));
      ways.push(flush === undefined ? 'here' : 'pool');
      // Whichever way it went, it is durable from here on.
      await flush;
      assert.ok((await textOf(disk, 'log')).startsWith(expected + text));
      expected += text;
    };
    let expected = '';
    for (let number = 0; number < 400 && !ways.includes('here'); number += 1) await append(`${number},`);
    assert.deepEqual([ways.length > 16, ways.at(-1)], [true, 'here']);
    flushMs = 300;
    await append('slow,');
    flushMs = 0;
    await append('after');
    assert.deepEqual(ways.slice(-2), ['here', 'pool']);
    while (ways.at(-1) === 'pool') await append('.');
    await file.close();
    await assert.rejects(async () => file.append(Buffer.from('too late')), 'also on the spot');
    assert.equal(await textOf(disk, 'log'), expected);
  });
});
