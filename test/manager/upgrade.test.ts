/** What earlier versions wrote is read, gone on with, and recovered from by this one. */
import assert from 'node:assert/strict';
import { Manager } from '../../manager/manager.ts';
import type { RaftStart } from '../../manager/raft/contract.ts';
import { openKeyFile } from '../../manager/raft/seal.ts';
import { newMeta } from '../../manager/store/change.ts';
import { isShoalError } from '../../proto/errors.ts';
import { type ConfigId, type NodeId, newId } from '../../proto/ids.ts';
import { silentLog } from '../../proto/ports.ts';
import { VirtualClock } from '../simulation/clock.ts';
import { SimulatedDisk } from '../simulation/disk.ts';
import { seededRandom } from '../simulation/random.ts';
import { oldFormats, placeOldFormat } from './formats/formats.ts';

const nodeId = 'node000000000000000000001' as NodeId;
const self = { raftId: 1, nodeId, address: '192.168.0.1:2377' };

class Bed {
  readonly clock = new VirtualClock();
  readonly disk = new SimulatedDisk({ clock: this.clock, flushMs: 0.3 });
  manager!: Manager;
  readonly #ids = seededRandom(99);
  #starts = 0;

  async start(start: RaftStart): Promise<Manager> {
    this.#starts += 1;
    const alone = () => Promise.reject(new Error('there is nobody else'));
    const starting = Manager.start({
      nodeId,
      start,
      disk: this.disk,
      dataKeys: await this.clock.runFor(openKeyFile(this.disk), 1_000),
      transport: {
        setMembers() {},
        isConnected: () => false,
        send() {},
        forwardProposal: alone,
        forwardReadIndex: alone,
      },
      clock: this.clock,
      random: seededRandom(this.#starts),
      log: silentLog,
      tuning: { snapshotEntries: 40, keepEntries: 10 },
      onFailure: (error) => assert.fail(String(error)),
    });
    this.manager = await this.clock.runFor(starting, 10_000);
    await this.clock.runUntil(() => this.manager.isLeader(), 10_000, 'it leads');
    await this.clock.runFor(this.manager.readBarrier(), 10_000);
    return this.manager;
  }

  kill(): void {
    this.manager.stop({ orderly: false }).catch(() => {});
    this.disk.crash();
  }

  async create(Name: string): Promise<void> {
    const object = {
      ...newMeta(newId<ConfigId>(this.#ids)),
      Spec: { Name, Labels: {}, Data: 'eA==' },
    };
    await this.clock.runFor(this.manager.propose([{ op: 'create', kind: 'config', object }]), 10_000);
  }
}

function check({ store }: Manager): void {
  const counts = (['cluster', 'node', 'network', 'secret', 'service', 'revision'] as const).map((kind) =>
    store.count(kind),
  );
  assert.deepEqual(counts, [1, 2, 1, 12, 4, 6]);
  const names = store.list('config').map(({ Spec }) => Spec.Name);
  for (let number = 1; number <= 15; number += 1)
    assert.ok(names.includes(`config-${number}`), `config-${number}`);
  const images = store
    .list('service')
    .map(({ Spec, PreviousSpec }) => [
      Spec.TaskTemplate.ContainerSpec.Image,
      PreviousSpec?.TaskTemplate.ContainerSpec.Image,
    ]);
  assert.deepEqual(images, [
    ['web:2', 'web:1'],
    ['web:2', 'web:1'],
    ['web:1', undefined],
    ['web:1', undefined],
  ]);
}

describe('what earlier versions wrote', () => {
  for (const version of oldFormats) {
    describe(version, () => {
      it('is opened, gone on with, and opened again', async () => {
        const bed = new Bed();
        placeOldFormat(bed.disk, version);
        const old = await bed.disk.list();
        check(await bed.start({ kind: 'restart' }));
        for (let number = 1; number <= 30; number += 1) await bed.create(`new-${number}`);
        bed.kill();
        const manager = await bed.start({ kind: 'restart' });
        check(manager);
        assert.ok(manager.store.find('config', 'name', 'new-30').length === 1);
        const written = (await bed.disk.list()).filter((name) => name.startsWith('snapshot-'));
        assert.ok(!written.every((name) => old.includes(name)), 'a snapshot of this version was written');
        await bed.clock.runFor(manager.stop({ orderly: true }), 5_000);
      });

      it('is recovered from by force', async () => {
        const bed = new Bed();
        placeOldFormat(bed.disk, version);
        const manager = await bed.start({ kind: 'force-new-cluster', self: { ...self, raftId: 77 } });
        check(manager);
        await bed.create('new');
        await bed.clock.runFor(manager.stop({ orderly: true }), 5_000);
      });

      it('with a flipped bit is refused, and not taken for the end', async () => {
        const bed = new Bed();
        placeOldFormat(bed.disk, version);
        bed.disk.flipBit('log-0000000001', 5_000);
        await assert.rejects(bed.start({ kind: 'restart' }), (error) => isShoalError(error, 'corrupted'));
      });
    });
  }
});
