import assert from 'node:assert/strict';
import type { StateMachine } from '../../../manager/raft/contract.ts';
import { restoreInSlices, workInSlices } from '../../../manager/raft/slices.ts';
import type { Clock } from '../../../proto/ports.ts';

/** Every look at it is a millisecond later; pauses end at once, and are counted. */
class BusyClock implements Clock {
  pauses = 0;
  #nowMs = 0;

  now(): number {
    return this.monotonicMs();
  }

  monotonicMs(): number {
    this.#nowMs += 1;
    return this.#nowMs;
  }

  after(_delayMs: number, callback: () => void) {
    this.pauses += 1;
    setImmediate(callback);
    return { cancel: () => {} };
  }
}

describe('manager/raft/slices', () => {
  function machineOf(steps: number) {
    const taken: number[] = [];
    const machine: StateMachine = {
      apply: () => undefined,
      snapshot: () => new Uint8Array(),
      restore: () => assert.fail('it can be restored in steps'),
      *restoreSteps(index) {
        for (let step = 0; step < steps; step += 1) {
          taken.push(index);
          yield;
        }
      },
    };
    return { machine, taken };
  }

  it('restores a large state with pauses for others', async () => {
    const clock = new BusyClock();
    const { machine, taken } = machineOf(100);
    await restoreInSlices(clock, machine, 7, new Uint8Array());
    assert.deepEqual(taken, Array(100).fill(7));
    assert.ok(clock.pauses >= 10, `${clock.pauses} pauses`);
  });

  it('restores at once what can not be restored in steps', async () => {
    const clock = new BusyClock();
    const restored: number[] = [];
    const { restoreSteps: _, ...machine } = machineOf(0).machine;
    await restoreInSlices(clock, { ...machine, restore: (at) => restored.push(at) }, 3, new Uint8Array());
    assert.deepEqual([restored, clock.pauses], [[3], 0]);
  });

  it('takes no step more once it is given up', async () => {
    const clock = new BusyClock();
    const { machine, taken } = machineOf(1_000);
    await workInSlices(clock, machine.restoreSteps!(1, new Uint8Array()), () => clock.pauses === 2);
    assert.ok(taken.length > 0 && taken.length < 50, `${taken.length} steps`);
  });

  it('passes on why a step fails', async () => {
    const failing = (function* () {
      yield;
      throw new Error('damaged');
    })();
    await assert.rejects(workInSlices(new BusyClock(), failing), /damaged/);
  });
});
