/** Large snapshots, written beside the loop: what stands on the real disk, and what of it is left when that fails. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { realClock, realRandom } from '../../../cli/runtime.ts';
import type { Disk, RaftNode, RaftTransport, StateMachine } from '../../../manager/raft/contract.ts';
import type { Snapshot } from '../../../manager/raft/core/types.ts';
import { openDisk } from '../../../manager/raft/disk.ts';
import { createRaftNode } from '../../../manager/raft/node.ts';
import { isShared, roomFor } from '../../../manager/raft/room.ts';
import { createSealer } from '../../../manager/raft/seal.ts';
import { Gathering } from '../../../manager/raft/slices.ts';
import { ChunkAssembly, loadSnapshot, saveSnapshot, snapshotName } from '../../../manager/raft/snapshot.ts';
import { silentLog } from '../../../proto/ports.ts';
import { waitFor } from '../../lab/lab.ts';
import { self, testKeys, testSealer } from './log-fixture.ts';

const largeBytes = 2.5 * 2 ** 22;
const word = 'a word of the state ';
const confState = { voters: [7], votersOutgoing: [], learners: [], learnersNext: [], autoLeave: false };

function largeSnapshot(index: number): Snapshot {
  return { metadata: { index, term: 2, confState }, data: roomFor(largeBytes).fill(`${index}: ${word}`) };
}

/** What a member uses of its disk, and that it has files sealed beside the loop. */
function watched(disk: Disk, sealedBeside: string[]): Disk {
  return {
    ...disk,
    replaceSealed: async (name, file) => {
      await disk.replaceSealed!(name, file);
      sealedBeside.push(name);
    },
  };
}

describe('large snapshots beside the loop', () => {
  let folder: string;
  let disk: Disk;
  let sealedBeside: string[];

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), 'shoal-sealed-'));
    sealedBeside = [];
    disk = watched(await openDisk(folder, realClock), sealedBeside);
  });

  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it('stand sealed on the disk, and are those that were saved', async () => {
    const snapshot = largeSnapshot(10);
    const name = snapshotName(snapshot.metadata);
    let turns = 0;
    const other = setInterval(() => {
      turns += 1;
    }, 0);
    await saveSnapshot(disk, testSealer(), snapshot, realClock);
    clearInterval(other);
    assert.ok(turns > 0, 'others had their turn');
    assert.deepEqual([sealedBeside, readdirSync(folder)], [[name], [name]]);
    assert.equal(statSync(join(folder, name)).mode & 0o777, 0o600);
    const bytes = Buffer.from(await disk.read(name));
    assert.ok(!bytes.includes(word), 'nothing of it can be read');
    assert.ok(!bytes.includes(Buffer.from(testKeys.keys.get(0)!)), 'its key is not there');
    const loaded = await loadSnapshot(disk, testSealer(2), [snapshot.metadata], silentLog, realClock);
    assert.deepEqual(loaded?.metadata, snapshot.metadata);
    assert.ok(Buffer.from(snapshot.data).equals(loaded!.data));
  });

  it('are the bytes that they are where nothing runs beside the loop', async () => {
    const snapshot = largeSnapshot(10);
    const name = snapshotName(snapshot.metadata);
    await saveSnapshot(disk, testSealer(), snapshot, realClock);
    const beside = Buffer.from(await disk.read(name));
    const { replaceSealed: _, ...alone } = disk;
    await saveSnapshot(alone, testSealer(), snapshot, realClock);
    assert.equal(sealedBeside.length, 1);
    assert.ok(beside.equals(await disk.read(name)));
  });

  it('use no nonce twice, and the data key of the moment', async () => {
    const keys = { ...testKeys, keys: new Map(testKeys.keys) };
    const sealer = createSealer(keys, realRandom);
    const nonces = new Set<string>();
    const numbers: (number | undefined)[] = [];
    for (const index of [1, 2, 3]) {
      if (index === 3)
        Object.assign(keys, { current: 1, keys: new Map([...keys.keys, [1, Buffer.alloc(32)]]) });
      await saveSnapshot(disk, sealer, largeSnapshot(index), realClock);
      const bytes = Buffer.from(await disk.read(snapshotName({ index, term: 2 })));
      numbers.push(bytes[12]);
      nonces.add(bytes.subarray(13, 25).toString('hex'));
      nonces.add(Buffer.from(sealer.seal(Buffer.from('a record'), 'place').subarray(1, 13)).toString('hex'));
    }
    assert.deepEqual([nonces.size, numbers], [6, [0, 0, 1]]);
  });

  it('leave the one from before, and nothing else, when the disk is full', async () => {
    const before = largeSnapshot(10);
    const name = snapshotName(before.metadata);
    await saveSnapshot(disk, testSealer(), before, realClock);
    // /dev/full answers every write with ENOSPC, as a full disk does.
    symlinkSync('/dev/full', join(folder, `${name}.tmp`));
    await assert.rejects(saveSnapshot(disk, testSealer(), largeSnapshot(10), realClock), {
      code: 'disk-full',
      message: /cannot write .*snapshot-0000000000000010-2: no space is left.*free some space/,
    });
    assert.deepEqual(readdirSync(folder), [name]);
    const loaded = await loadSnapshot(disk, testSealer(2), [before.metadata], silentLog, realClock);
    assert.ok(Buffer.from(before.data).equals(loaded!.data));
  });

  it('say what else the file system said', async () => {
    rmSync(folder, { recursive: true });
    await assert.rejects(saveSnapshot(disk, testSealer(), largeSnapshot(10), realClock), {
      code: 'ENOENT',
      message: /no such file or directory/,
    });
  });

  it('are made by a member while it goes on, and it starts again from them', async () => {
    const options = {
      disk,
      dataKeys: testKeys,
      clock: realClock,
      random: realRandom,
      log: silentLog,
      transport: nobody,
      snapshotEntries: 5,
      keepEntries: 2,
    };
    const state = new Words();
    const first = await createRaftNode({
      ...options,
      start: { kind: 'bootstrap', self },
      stateMachine: state,
    });
    await leads(first);
    for (let count = 0; count < 12; count += 1) await first.propose(Buffer.from(`word ${count},`));
    await waitFor('a snapshot beside the loop', 60_000, () => sealedBeside.length > 0);
    await first.propose(Buffer.from('the last word'));
    await first.stop();
    const again = new Words();
    const second = await createRaftNode({ ...options, start: { kind: 'restart' }, stateMachine: again });
    await leads(second);
    await second.readBarrier();
    assert.ok(again.restored > 0, 'from the snapshot');
    assert.equal(again.words, state.words);
    await second.stop();
  });
});

describe('room for snapshots', () => {
  it('is shared with other threads once there is much of it', async () => {
    assert.deepEqual([roomFor(2 ** 22 - 1), roomFor(2 ** 22)].map(isShared), [false, true]);
    const assembly = new ChunkAssembly(largeBytes);
    assembly.add(0, Buffer.alloc(largeBytes, 3));
    assert.deepEqual([isShared(assembly.whole()!), assembly.whole()![largeBytes - 1]], [true, 3]);
    const pieces = Array.from({ length: 10 }, (_, number) => Buffer.alloc(2 ** 20, number));
    const whole = await new Gathering(realClock, pieces).whole();
    assert.ok(isShared(whole) && Buffer.concat(pieces).equals(whole));
    assert.equal(isShared(await new Gathering(realClock, pieces.slice(0, 2)).whole()), false);
  });

  it('is given back, though nothing else has the collector look for it', async () => {
    const roomBytes = 2 ** 28;
    const before = process.memoryUsage().arrayBuffers;
    const kept = [1, 2, 3].map(() => roomFor(roomBytes));
    // What is young is collected by itself; snapshots grow old.
    for (let count = 0; count < 100; count += 1) await othersWork();
    kept.length = 0;
    // The collector hears of this one: it works beside the loop, and ends when it ends.
    roomFor(2 ** 22);
    await waitFor('the others to be given back', 60_000, async () => {
      await othersWork();
      return process.memoryUsage().arrayBuffers < before + roomBytes;
    });
  });
});

/** A turn in which memory is taken. */
async function othersWork(): Promise<void> {
  Array.from({ length: 50_000 }, String);
  await new Promise((resolve) => setImmediate(resolve));
}

const nobody: RaftTransport = {
  send: () => {},
  setMembers: () => {},
  forwardProposal: () => Promise.reject(new Error('there is nobody')),
  forwardReadIndex: () => Promise.reject(new Error('there is nobody')),
};

async function leads(node: RaftNode): Promise<void> {
  await waitFor('the member to lead', 60_000, () => node.status().role === 'leader');
}

/** A state of some words, and much air. */
class Words implements StateMachine {
  words = '';
  restored = 0;

  apply(_index: number, data: Uint8Array): undefined {
    this.words += Buffer.from(data).toString();
  }

  snapshot(): Uint8Array {
    return Buffer.concat([Buffer.from(this.words.padEnd(1_000)), Buffer.alloc(largeBytes)]);
  }

  restore(_index: number, data: Uint8Array): void {
    this.restored += 1;
    this.words = Buffer.from(data).subarray(0, 1_000).toString().trimEnd();
  }
}
