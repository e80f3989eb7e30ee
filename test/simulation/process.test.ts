import assert from 'node:assert/strict';
import { delay } from '../../proto/ports.ts';
import { VirtualClock } from './clock.ts';
import { SimulatedDisk } from './disk.ts';
import { diskOf, SimulatedProcess } from './process.ts';
import { passTime } from './turns.ts';

const made = (): { clock: VirtualClock; process: SimulatedProcess } => {
  const clock = new VirtualClock();
  return { clock, process: new SimulatedProcess(clock, () => 250) };
};

describe('simulated process', () => {
  it('reads a clock that is off, and timers that are not', async () => {
    const { clock, process } = made();
    assert.equal(process.now(), clock.now() + 250);
    await clock.runFor(delay(process, 40), 100);
    assert.equal(process.monotonicMs(), 40);
  });

  it('hears what it missed while it was paused in order, before all that is new', async () => {
    const { clock, process } = made();
    const heard: string[] = [];
    process.after(10, () => heard.push('first'));
    process.after(20, () => heard.push('second'));
    process.pause();
    await clock.run(30);
    assert.equal(heard.length, 0);
    process.resume();
    process.run(() => heard.push('third'));
    process.after(10, () => heard.push('fourth'));
    await clock.run(30);
    assert.deepEqual(heard, ['first', 'second', 'third', 'fourth']);
  });

  it('does not fire a timer that was called off while it was held', async () => {
    const { clock, process } = made();
    const heard: string[] = [];
    const timer = process.after(10, () => heard.push('called off'));
    process.pause();
    await clock.run(20);
    timer.cancel();
    process.resume();
    await clock.run(20);
    assert.deepEqual(heard, []);
  });

  it('falls silent when it is killed: timers, promises and its disk', async () => {
    const { clock, process } = made();
    const inner = new SimulatedDisk({ clock, flushMs: 5 });
    const disk = diskOf(process, inner);
    const heard: string[] = [];
    process.after(10, () => heard.push('timer'));
    void process.hold(delay(clock, 10)).then(() => heard.push('promise'));
    void disk.replace('file', new Uint8Array(1)).then(() => heard.push('flush'));
    process.kill();
    void disk.replace('other', new Uint8Array(1)).then(() => heard.push('later'));
    await clock.run(50);
    assert.deepEqual(heard, []);
    await assert.rejects(inner.read('other'));
  });
});

describe('passing time', () => {
  it('fires timers with promises settled between them, and stops when told', async () => {
    const clock = new VirtualClock();
    const heard: number[] = [];
    const loop = async (): Promise<void> => {
      for (;;) {
        await delay(clock, 1);
        await Promise.resolve();
        heard.push(clock.monotonicMs());
      }
    };
    void loop();
    await passTime(clock, () => clock.monotonicMs() >= 300);
    assert.equal(clock.monotonicMs(), 300);
    assert.deepEqual(
      heard.slice(0, 299),
      Array.from({ length: 299 }, (_, at) => at + 1),
    );
  });

  it('throws what a timer throws', async () => {
    const clock = new VirtualClock();
    clock.after(1, () => {
      throw new Error('a fault');
    });
    await assert.rejects(
      passTime(clock, () => false),
      /a fault/,
    );
  });
});
