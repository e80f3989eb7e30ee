import assert from 'node:assert/strict';
import {
  createKeyFile,
  createSealer,
  keyFileName,
  keyFileState,
  openKeyFile,
  sealKeyFile,
  withNewDataKey,
} from '../../../manager/raft/seal.ts';
import { isShoalError } from '../../../proto/errors.ts';
import { newUnlockKey } from '../../../proto/identity.ts';
import { SimulatedDisk } from '../../simulation/disk.ts';
import { seededRandom } from '../../simulation/random.ts';
import { testKeys, testSealer } from './log-fixture.ts';

const random = seededRandom(5);
const text = Buffer.from('a secret of the cluster');

describe('sealing', () => {
  it('opens what it sealed, at its place only', () => {
    const sealed = testSealer().seal(text, 'log@12');
    assert.ok(!Buffer.from(sealed).includes('secret'));
    assert.deepEqual(Buffer.from(testSealer(3).open(sealed, 'log@12')), text);
    assert.throws(() => testSealer().open(sealed, 'log@13'));
  });

  it('refuses every flipped bit', () => {
    const sealed = testSealer().seal(text, 'here');
    for (let bit = 0; bit < sealed.length * 8; bit += 1) {
      const flipped = Uint8Array.from(sealed);
      flipped[bit >> 3] = flipped[bit >> 3]! ^ (1 << (bit & 7));
      assert.throws(() => testSealer().open(flipped, 'here'), `bit ${bit}`);
    }
  });

  it('never uses a nonce twice', () => {
    const sealer = testSealer();
    const nonces = new Set<string>();
    for (let count = 0; count < 1000; count += 1) {
      nonces.add(Buffer.from(sealer.seal(text, 'here').subarray(1, 13)).toString('hex'));
    }
    assert.equal(nonces.size, 1000);
  });

  it('opens records of an older data key after a new one was made', () => {
    const sealed = createSealer(testKeys, random).seal(text, 'here');
    const newer = withNewDataKey(testKeys, random);
    assert.deepEqual(Buffer.from(createSealer(newer, random).open(sealed, 'here')), text);
    const sealedAnew = createSealer(newer, random).seal(text, 'here');
    assert.throws(() => createSealer(testKeys, random).open(sealedAnew, 'here'), /data key 1 is not in/);
  });
});

describe('data keys on disk', () => {
  it('open without a key as long as autolock is off', async () => {
    const disk = new SimulatedDisk();
    assert.equal(await keyFileState(disk), 'absent');
    const dataKeys = await createKeyFile(disk, random);
    assert.equal(await keyFileState(disk), 'open');
    const opened = await openKeyFile(disk);
    assert.deepEqual(Buffer.from(opened.keys.get(0)!), Buffer.from(dataKeys.keys.get(0)!));
  });

  it('are locked by autolock, in Docker words, until the right key comes', async () => {
    const disk = new SimulatedDisk();
    const unlockKey = newUnlockKey(random);
    assert.match(unlockKey, /^SWMKEY-1-[A-Za-z0-9+/]{43}$/);
    const dataKeys = await createKeyFile(disk, random, unlockKey);
    assert.equal(await keyFileState(disk), 'locked');
    assert.ok(!Buffer.from(disk.contents(keyFileName)).includes(Buffer.from(dataKeys.keys.get(0)!)));
    for (const wrong of [undefined, '', newUnlockKey(random), 'SWMKEY-1-short', 'nonsense']) {
      await assert.rejects(openKeyFile(disk, wrong), (error) => {
        assert.ok(isShoalError(error, 'locked'));
        assert.match(error.message, /^Swarm is encrypted and needs to be unlocked before it can be used\. /);
        return true;
      });
    }
    assert.deepEqual(
      Buffer.from((await openKeyFile(disk, unlockKey)).keys.get(0)!),
      Buffer.from(dataKeys.keys.get(0)!),
    );
  });

  it('go over to another unlock key, and back to none, with the log untouched', async () => {
    const disk = new SimulatedDisk();
    const dataKeys = await createKeyFile(disk, random);
    const sealed = createSealer(dataKeys, random).seal(text, 'here');
    const [first, second] = [newUnlockKey(random), newUnlockKey(random)];
    await sealKeyFile(disk, random, dataKeys, first);
    await sealKeyFile(disk, random, await openKeyFile(disk, first), second);
    await assert.rejects(openKeyFile(disk, first), (error) => isShoalError(error, 'locked'));
    await sealKeyFile(disk, random, await openKeyFile(disk, second));
    const opened = createSealer(await openKeyFile(disk), random).open(sealed, 'here');
    assert.deepEqual(Buffer.from(opened), text);
    await assert.rejects(sealKeyFile(disk, random, dataKeys, 'nonsense'), (error) =>
      isShoalError(error, 'invalid-argument'),
    );
  });

  it('are refused when the file is damaged', async () => {
    const disk = new SimulatedDisk();
    disk.place(keyFileName, Buffer.from('not a key file'));
    await assert.rejects(openKeyFile(disk), (error) => isShoalError(error, 'corrupted'));
  });
});
