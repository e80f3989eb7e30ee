import assert from 'node:assert/strict';
import { Attachments } from '../../../agent/network/attachments.ts';
import { isShoalError, ShoalError } from '../../../proto/errors.ts';
import { silentLog } from '../../../proto/ports.ts';
import { settle, VirtualClock } from '../../simulation/clock.ts';
import { seededRandom } from '../../simulation/random.ts';

const lookMs = 10_000;
const makingMs = 120_000;

function begin(used = new Set<string>()) {
  const clock = new VirtualClock();
  let told = 0;
  const attachments = new Attachments({
    clock,
    random: seededRandom(1),
    log: silentLog,
    ready: async (id) => {
      if (id !== 'net1') throw new ShoalError('unavailable', `network ${id} is not ready`);
      return { name: 'front', nameservers: ['10.1.0.254'] };
    },
    onChange: () => {
      told += 1;
    },
    addressesInUse: async () => used,
  });
  attachments.start();
  const pass = async (ms: number) => {
    await clock.run(ms);
    await settle();
  };
  const ids = () => (attachments.requests() ?? []).map(({ id }) => id ?? '');
  const word = (id: string, address: string, network = 'net1') => ({
    id,
    network_id: network,
    addresses: [`${address}/24`],
  });
  return { attachments, clock, used, pass, ids, word, told: () => told };
}

describe('networks for plain containers', () => {
  it('are asked for, and given with the managers’ address', async () => {
    const { attachments, ids, word, told } = begin();
    attachments.answered([]);
    const before = told();
    const network = attachments.attach('front', ['one']);
    assert.equal(told(), before + 1);
    assert.deepEqual(attachments.requests(), [{ id: ids()[0], network: 'front', names: ['one'] }]);
    attachments.answered([word(ids()[0]!, '10.1.0.9')]);
    const { name, addresses, nameservers, release } = await network;
    assert.deepEqual([name, addresses, nameservers], ['front', ['10.1.0.9/24'], ['10.1.0.254']]);
    release();
    assert.deepEqual(ids(), []);
  });

  it('are refused in the managers’ words, and asked for no longer', async () => {
    const { attachments, ids } = begin();
    attachments.answered([]);
    const refused = assert.rejects(attachments.attach('front', []), (error) => {
      return isShoalError(error, 'permission-denied') && error.message === 'no';
    });
    attachments.answered([{ id: ids()[0]!, problem: 'no', problem_code: 'permission-denied' }]);
    await refused;
    assert.deepEqual(ids(), []);
  });

  it('are not waited for for ever: without managers, or a bridge', async () => {
    const { attachments, pass, ids, word } = begin();
    const late = assert.rejects(attachments.attach('front', []), (error) =>
      isShoalError(error, 'unavailable'),
    );
    await pass(lookMs);
    await late;
    attachments.answered([]);
    const broken = assert.rejects(attachments.attach('back', []), /net2 is not ready/);
    attachments.answered([word(ids()[0]!, '10.1.0.9', 'net2')]);
    await broken;
    assert.deepEqual(ids(), []);
  });

  it('are kept while a container has the address, or is being made', async () => {
    const { attachments, used, pass, ids, word } = begin();
    attachments.answered([]);
    const one = attachments.attach('front', []);
    attachments.answered([word(ids()[0]!, '10.1.0.9')]);
    await one;
    await pass(lookMs);
    assert.equal(ids().length, 1, 'being made');
    used.add('10.1.0.9');
    await pass(makingMs * 2);
    assert.equal(ids().length, 1, 'there');
    used.clear();
    await pass(lookMs);
    assert.equal(ids().length, 0, 'gone');
    const brief = attachments.attach('front', []);
    attachments.answered([word(ids()[0]!, '10.1.0.11')]);
    (await brief).made();
    await pass(lookMs);
    assert.equal(ids().length, 0, 'made, and gone before it was looked for');
    const never = attachments.attach('front', []);
    attachments.answered([word(ids()[0]!, '10.1.0.10')]);
    await never;
    await pass(makingMs + lookMs);
    assert.equal(ids().length, 0, 'never made');
  });

  it('of an earlier life are learned from the managers, and only then is anything asked for', async () => {
    const { attachments, used, pass, ids, word } = begin(new Set(['10.1.0.9']));
    assert.equal(attachments.requests(), undefined);
    attachments.answered([word('old', '10.1.0.9'), word('gone', '10.1.0.10')]);
    assert.deepEqual(ids(), ['old', 'gone']);
    await pass(lookMs);
    assert.deepEqual(ids(), ['old']);
    used.clear();
    await pass(lookMs);
    assert.deepEqual(ids(), []);
  });

  it('stay while the engine can’t tell', async () => {
    const { attachments, used, pass, ids, word } = begin();
    attachments.answered([word('old', '10.1.0.9')]);
    used.add = () => used;
    Object.defineProperty(used, 'has', {
      value: () => {
        throw new Error('no engine');
      },
    });
    await pass(lookMs * 3);
    assert.deepEqual(ids(), ['old']);
  });
});
