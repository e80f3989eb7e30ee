import assert from 'node:assert/strict';
import { buffer } from 'node:stream/consumers';
import fc from 'fast-check';
import { Packr } from 'msgpackr';
import { realClock } from '../../../cli/runtime.ts';
import {
  type Backup,
  newBackupKey,
  openBackup,
  readBackupHead,
  sealBackup,
} from '../../../manager/backup/backup.ts';
import { planRestore } from '../../../manager/backup/restore.ts';
import { bootstrapCluster } from '../../../manager/ca/bootstrap.ts';
import { Dispatcher } from '../../../manager/dispatcher/dispatcher.ts';
import { decodeSnapshotData } from '../../../manager/raft/directory.ts';
import { MemoryDisk } from '../../../manager/raft/memory-disk.ts';
import { createSealer, openKeyFile } from '../../../manager/raft/seal.ts';
import { loadSnapshot } from '../../../manager/raft/snapshot.ts';
import { rehearse } from '../../../manager/rehearsal.ts';
import type { Change } from '../../../manager/store/change.ts';
import { createServiceChanges } from '../../../manager/store/service-change.ts';
import { Store } from '../../../manager/store/store.ts';
import { kinds } from '../../../manager/store/tables.ts';
import { verifyIdentity } from '../../../proto/certificate.ts';
import type { Cluster } from '../../../proto/docker.ts';
import { isShoalError } from '../../../proto/errors.ts';
import { asId, type NewId, type NodeId, newId } from '../../../proto/ids.ts';
import { silentLog } from '../../../proto/ports.ts';
import { VirtualClock } from '../../simulation/clock.ts';
import { seededRandom } from '../../simulation/random.ts';
import { oldFormats, placeOldFormat } from '../formats/formats.ts';
import { makeNode, makeSpec } from '../orchestrator/objects.ts';

const random = seededRandom(3);
const key = newBackupKey(random);
const now = Date.parse('2026-11-22T12:00:00Z');
const context = { clock: realClock, random, log: silentLog };

/** A cluster of one manager, two workers (one down) and a service, as a backup of index 41. */
async function makeBackup(...more: Change[]): Promise<Backup> {
  const made = await bootstrapCluster({ random, clock: realClock, nodeId: asId<NodeId>('m1') });
  const store = new Store();
  const ids: NewId = () => newId(random);
  const worker = (id: string, State: 'ready' | 'down'): Change => {
    const object = makeNode(id, { Spec: { Role: 'worker' }, Status: { State, Addr: '10.0.0.9' } });
    return { op: 'create', kind: 'node', object };
  };
  const changes = [
    ...made.changes,
    worker('w1', 'ready'),
    worker('w2', 'down'),
    ...createServiceChanges(makeSpec({ Name: 'web' }), now, ids).changes,
    ...more,
  ];
  const applied = store.applyEntry(40, { now, changes });
  assert.deepEqual(applied, { ok: true });
  return {
    head: {
      format: 1,
      clusterId: made.cluster.ID,
      createdAt: new Date(now).toISOString(),
      version: '0.1.0',
      sealedUnder: 'backup-key',
    },
    facts: { index: 41, term: 7, nodeId: 'm1', members: [{ raftId: 1, nodeId: 'm1', address: 'a:2377' }] },
    state: store.snapshot(),
  };
}

/** The state of an earlier version, of whose cluster the names and keys (a test's) are real ones instead. */
async function oldState(version: string): Promise<Buffer> {
  const disk = new MemoryDisk();
  placeOldFormat({ place: (name, data) => void disk.replace(name, data) }, version);
  const newest = (await disk.list()).filter((name) => name.startsWith('snapshot-')).at(-1)!;
  const [index = 0, term = 0] = newest.split('-').slice(1).map(Number);
  const sealer = createSealer(await openKeyFile(disk), random);
  const snapshot = await loadSnapshot(disk, sealer, [{ index, term }], silentLog, realClock);
  const packr = new Packr({ useRecords: false, moreTypes: false });
  const old = packr.unpack(decodeSnapshotData(snapshot!.data).state) as { tables: { cluster: Cluster[] } };
  const { cluster } = await bootstrapCluster({ random, clock: realClock });
  old.tables.cluster = old.tables.cluster.map((before) => ({ ...cluster, Version: before.Version }));
  return Buffer.from(packr.pack(old));
}

const seal = (backup: Backup, under = key): Promise<Buffer> => buffer(sealBackup(backup, under, random));
const codeIs = (code: string) => (error: unknown) => isShoalError(error) && error.code === code;

describe('backup: the sealed file', function () {
  this.timeout(30_000);

  it('gives back what was put in, whatever it is', async () => {
    const backup = await makeBackup();
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 700_000, size: 'max' }), async (state) => {
        const opened = await openBackup(await seal({ ...backup, state }), key);
        assert.deepEqual(opened.facts, backup.facts);
        assert.deepEqual(opened.head, backup.head);
        assert.ok(Buffer.from(state).equals(opened.state));
      }),
      { numRuns: 4 },
    );
  });

  it('takes a store’s state in pieces, which make the same store', async () => {
    const backup = await makeBackup();
    const store = new Store();
    store.restore(41, backup.state);
    const opened = await openBackup(
      await buffer(sealBackup({ ...backup, state: store.snapshotPieces() }, key, random)),
      key,
    );
    const again = new Store();
    again.restore(41, opened.state);
    assert.ok(Buffer.from(again.snapshot()).equals(store.snapshot()));
  });

  it('shows its head without the key, and nothing of the cluster’s state', async () => {
    const backup = await makeBackup();
    const file = await seal(backup);
    assert.deepEqual(readBackupHead(file), backup.head);
    for (const word of ['web', 'PRIVATE KEY', 'CERTIFICATE', 'SWMTKN', key]) {
      assert.equal(file.includes(word), false, word);
    }
    assert.notDeepEqual(file, await seal(backup), 'no two are sealed alike');
  });

  it('refuses a wrong key, damage anywhere, and what is no backup, each in words', async () => {
    const file = await seal(await makeBackup());
    await assert.rejects(openBackup(file, 'another'), codeIs('permission-denied'));
    await assert.rejects(openBackup(file, 'another'), /the key that was given or printed/);
    const headBytes = 12 + file.readUInt32BE(8);
    for (const at of [headBytes, file.length - 40, file.length - 1]) {
      const bent = Buffer.from(file);
      bent[at]! ^= 1;
      await assert.rejects(openBackup(bent, key), codeIs('corrupted'), `byte ${at}`);
    }
    const forged = Buffer.from(file.toString('latin1').replace('"0.1.0"', '"0.1.1"'), 'latin1');
    await assert.rejects(openBackup(forged, key), codeIs('corrupted'), 'the head is authenticated');
    await assert.rejects(openBackup(file.subarray(0, file.length - 1), key), codeIs('corrupted'));
    await assert.rejects(openBackup(file.subarray(0, 40), key), codeIs('corrupted'));
    await assert.rejects(openBackup(Buffer.from('FROM busybox\n'), key), /not a backup of a Shoal cluster/);
    const newer = Buffer.from(file.toString('latin1').replace('"format":1', '"format":2'), 'latin1');
    await assert.rejects(openBackup(newer, key), /format 2, and this version reads format 1/);
  });

  it('tells damage in words wherever a bit flips, and wherever the file ends', async () => {
    const file = await seal(await makeBackup());
    const codes = ['corrupted', 'permission-denied', 'invalid-argument', 'not-supported'];
    const isTold = (error: unknown) => isShoalError(error) && codes.includes(error.code);
    const headBytes = 12 + file.readUInt32BE(8);
    const flipped = (bit: number) => {
      const bent = Buffer.from(file);
      bent[bit >> 3]! ^= 1 << (bit & 7);
      return bent;
    };
    for (let bit = 0; bit < 8 * headBytes; bit += 1) {
      try {
        readBackupHead(flipped(bit));
      } catch (error) {
        assert.ok(isTold(error), `bit ${bit}: ${error}`);
      }
    }
    const anyBit = fc.integer({ min: 0, max: 8 * file.length - 1 });
    const anyEnd = fc.integer({ min: 0, max: file.length - 1 });
    const isRefused = (bytes: Buffer, what: string) => assert.rejects(openBackup(bytes, key), isTold, what);
    await fc.assert(
      fc.asyncProperty(anyBit, anyEnd, async (bit, end) => {
        await isRefused(flipped(bit), `bit ${bit}`);
        await isRefused(file.subarray(0, end), `${end} bytes`);
      }),
      { numRuns: 6 },
    );
    const damagedSalt = file.toString('latin1').replace('"salt"', '"sals"');
    await assert.rejects(
      openBackup(Buffer.from(damagedSalt, 'latin1'), key),
      /at its head: "salt" is missing/,
    );
  });
});

describe('backup: restored', function () {
  this.timeout(30_000);

  it('is the same cluster with one new manager; the old ones are down, workers are waited for', async () => {
    const backup = await makeBackup();
    const options = { now, random, availability: 'active' as const, awaitNodesMs: 60_000 };
    const plan = await planRestore(backup, options);
    const certificate = verifyIdentity(plan.identity);
    assert.equal(certificate.clusterId, backup.head.clusterId);
    assert.deepEqual([certificate.nodeId, certificate.role], [plan.nodeId, 'manager']);
    const store = new Store();
    store.restore(plan.restored.stateIndex, plan.restored.state);
    const before = store.cluster()!;
    assert.deepEqual(store.applyEntry(plan.restored.index, { now, changes: plan.changes }), { ok: true });
    // The old cluster may have gone on for as long: a version that it gave since is no version of this one.
    assert.ok(plan.restored.index >= backup.facts.index + 1_000_000);
    assert.ok(plan.restored.term > backup.facts.term);
    assert.deepEqual(store.cluster()!.JoinTokens, before.JoinTokens);
    assert.equal(store.cluster()!.TLSInfo.TrustRoot, before.TLSInfo.TrustRoot);
    const standing = store.list('node').map((node) => [node.ID, node.Spec.Role, node.Status.State]);
    assert.deepEqual(standing, [
      ['m1', 'worker', 'down'],
      ['w1', 'worker', 'disconnected'],
      ['w2', 'worker', 'down'],
      [plan.nodeId, 'manager', 'unknown'],
    ]);
  });

  it('gives workers the time that was asked for before they are down', async () => {
    const clock = new VirtualClock();
    const backup = await makeBackup();
    const awaitNodesMs = 60_000;
    const plan = await planRestore(backup, {
      now: clock.now(),
      random,
      availability: 'active',
      awaitNodesMs,
    });
    const store = new Store();
    store.restore(plan.restored.stateIndex, plan.restored.state);
    store.applyEntry(plan.restored.index, { now: clock.now(), changes: plan.changes });
    const propose = async (changes: readonly Change[]) => {
      store.applyEntry(store.index + 1, { now: clock.now(), changes });
      return store.index;
    };
    const dispatcher = new Dispatcher({ store, propose, clock, random, log: silentLog });
    dispatcher.start();
    const stateOf = () => store.get('node', asId<NodeId>('w1'))!.Status.State;
    await clock.run(awaitNodesMs - 1_000);
    assert.equal(stateOf(), 'disconnected');
    await clock.run(2_000);
    assert.equal(stateOf(), 'down');
    dispatcher.stop();
  });

  it('is rehearsed whole: restored, led, stopped and started again, in memory', async () => {
    const found = await rehearse(await makeBackup(), context);
    assert.deepEqual(found.faults, []);
    assert.deepEqual([found.services, found.counts.node], [['web'], 3]);
  });

  for (const version of oldFormats) {
    it(`is rehearsed whole when its state is in the format of ${version}`, async () => {
      const state = await oldState(version);
      const backup = await makeBackup();
      const store = new Store();
      store.restore(backup.facts.index, state);
      assert.notDeepEqual(Buffer.from(store.snapshot()), state, 'the format is another one');
      const found = await rehearse(await openBackup(await seal({ ...backup, state }), key), context);
      assert.deepEqual(found.faults, []);
      const held = kinds.map((kind) => store.count(kind));
      assert.deepEqual(Object.values(found.counts), held);
      assert.ok(store.count('config') > 0);
    });
  }

  it('is told at the rehearsal what is missing or does not fit', async () => {
    const SecretID = asId<never>('gone');
    const Secrets = [
      { SecretID, SecretName: 'password', File: { Name: 'p', UID: '0', GID: '0', Mode: 0o444 } },
    ];
    const spec = makeSpec({ Name: 'db' });
    const TaskTemplate = {
      ...spec.TaskTemplate,
      ContainerSpec: { ...spec.TaskTemplate.ContainerSpec, Secrets },
    };
    const backup = await makeBackup();
    const store = new Store();
    store.restore(backup.facts.index, backup.state);
    const service = store.list('service')[0]!;
    const other = await bootstrapCluster({ random, clock: realClock });
    const cluster = store.cluster()!;
    const Private = { ...cluster.Private, CaKeyPem: other.cluster.Private.CaKeyPem };
    // As no entry could make them: the store as it is found, damaged by hand.
    Object.assign(service.Spec, { ...spec, TaskTemplate });
    Object.assign(cluster, { Private, JoinTokens: other.cluster.JoinTokens });
    const { faults } = await rehearse({ ...backup, state: store.snapshot() }, context);
    assert.match(faults.join('\n'), /service db uses secret password, which is not in it/);
    assert.match(faults.join('\n'), /the Worker join token is not of the cluster's root/);
    assert.match(faults.join('\n'), /the CA's key signs nothing that the nodes trust/);
    const empty = await rehearse({ ...backup, state: new Store().snapshot() }, context);
    assert.deepEqual(empty.faults, ['it holds no cluster']);
  });
});
