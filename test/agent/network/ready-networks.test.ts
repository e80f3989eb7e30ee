/** Networks that tasks wait for. */
import assert from 'node:assert/strict';
import type { Desired } from '../../../agent/network/desired.ts';
import { bridgeName } from '../../../agent/network/desired.ts';
import { ReadyNetworks, whyNotReady } from '../../../agent/network/ready-networks.ts';
import { isShoalError } from '../../../proto/errors.ts';
import { VirtualClock } from '../../simulation/clock.ts';
import { desired, network } from './desired-objects.ts';

const first = network(4097, { gateways: ['10.60.1.12/24', 'fd66::c/64'] });
const again = network(4097, { gateways: ['10.60.1.26/24', 'fd66::1a/64'] });
const names = new Map([[first.id, 'net']]);
const bridges = new Set([bridgeName(first)]);

describe('networks that tasks wait for', () => {
  let clock: VirtualClock;
  let wanted: Desired;
  let ready: ReadyNetworks;

  beforeEach(() => {
    clock = new VirtualClock();
    wanted = desired([first], []);
    ready = new ReadyNetworks(
      clock,
      (id) => wanted.networks.find((one) => one.id === id),
      (id) => whyNotReady(id, wanted, []),
    );
    ready.settle(wanted, names, bridges);
  });

  it('are as they are now once they are there', async () => {
    assert.deepEqual(await ready.wait(first.id), { name: 'net', nameservers: ['10.60.1.12'] });
  });

  it('that went and came again are waited for: this node has another address there, which answers names', async () => {
    const before = wanted;
    wanted = desired([again], []);
    const waiting = ready.wait(first.id);
    // A round about what was wanted before ends in between.
    ready.settle(before, names, bridges);
    ready.settle(wanted, names, bridges);
    assert.deepEqual(await waiting, { name: 'net', nameservers: ['10.60.1.26'] });
  });

  it('that went are not there any more, also before a round says so', async () => {
    wanted = desired([], []);
    const waiting = assert.rejects(ready.wait(first.id), (error) => isShoalError(error, 'unavailable'));
    await clock.run(20_000);
    await waiting;
  });
});
