import assert from 'node:assert/strict';
import { ReconcileLoop } from '../../../manager/orchestrator/loop.ts';
import { reconcilers } from '../../../manager/orchestrator/orchestrator.ts';
import { WakeTimes } from '../../../manager/orchestrator/wake-times.ts';
import type { Change, Propose } from '../../../manager/store/change.ts';
import type { Reconciler, Reconciliation } from '../../../manager/store/reconciler.ts';
import { Store } from '../../../manager/store/store.ts';
import { type ErrorCode, ShoalError } from '../../../proto/errors.ts';
import type { SecretId, ServiceId } from '../../../proto/ids.ts';
import { type Clock, silentLog } from '../../../proto/ports.ts';
import { settle, VirtualClock } from '../../simulation/clock.ts';
import { makeCluster, makeNode, makeRevision, makeService, makeSpec } from './objects.ts';

const random = {
  next: 0,
  bytes(count: number): Uint8Array {
    this.next += 1;
    return Uint8Array.from({ length: count }, (_, at) => (this.next >> (8 * (at % 4))) & 255);
  },
  float: () => 0.5,
};

/** A store behind a proposal that takes `latencyMs`, and remembers what was proposed. */
class Bench {
  readonly clock = new VirtualClock();
  readonly store = new Store();
  readonly proposed: (readonly Change[])[] = [];
  readonly refusals: ErrorCode[] = [];
  underWay = 0;
  mostUnderWay = 0;
  private index = 0;
  private readonly latencyMs: number;

  constructor(latencyMs = 1) {
    this.latencyMs = latencyMs;
  }

  apply(changes: readonly Change[]): void {
    this.index += 1;
    const result = this.store.applyEntry(this.index, { now: this.clock.now(), changes });
    if (!result.ok) throw new ShoalError(result.code, result.message);
  }

  propose: Propose = async (changes) => {
    this.underWay += 1;
    this.mostUnderWay = Math.max(this.mostUnderWay, this.underWay);
    this.proposed.push(changes);
    await new Promise<void>((resolve) => this.clock.after(this.latencyMs, resolve));
    this.underWay -= 1;
    const refusal = this.refusals.shift();
    if (refusal) throw new ShoalError(refusal, 'refused by the test');
    this.apply(changes);
    return this.index;
  };

  loop(
    list: readonly Reconciler[],
    finish?: ConstructorParameters<typeof ReconcileLoop>[0]['finish'],
  ): ReconcileLoop {
    const { store, propose, clock } = this;
    const options = { store, propose, clock, random, log: silentLog, reconcilers: list };
    return new ReconcileLoop(finish ? { ...options, finish } : options);
  }
}

/** `clock`, its wall clock off by so much. */
function skewed(clock: Clock, skewMs: () => number): Clock {
  return {
    now: () => clock.now() + skewMs(),
    monotonicMs: () => clock.monotonicMs(),
    after: (delayMs, action) => clock.after(delayMs, action),
  };
}

function secret(name: string): Change {
  const ID = name as SecretId;
  const meta = { Version: { Index: 0 }, CreatedAt: '', UpdatedAt: '' };
  return { op: 'create', kind: 'secret', object: { ...meta, ID, Spec: { Name: name, Labels: {} } } };
}

/** A reconciler that notes the keys it is asked about. */
function listener(over: Partial<Reconciler> = {}): Reconciler & { readonly asked: string[] } {
  const asked: string[] = [];
  return {
    name: 'listener',
    keysFor: (event) => (event.kind === 'secret' ? [event.object.ID] : []),
    allKeys: () => ['all'],
    reconcile: (_view, key) => {
      asked.push(key);
      return { changes: [] };
    },
    ...over,
    asked,
  };
}

describe('manager/orchestrator/loop', () => {
  it('looks at everything on start and after a snapshot, and at what changes in between', async () => {
    const bench = new Bench();
    const part = listener();
    const loop = bench.loop([part]);
    loop.start();
    await settle();
    assert.deepEqual(part.asked, ['all']);
    await bench.clock.run(100);
    bench.apply([secret('a'), secret('b')]);
    await settle();
    assert.deepEqual(part.asked, ['all', 'a', 'b'], 'an event after quiet is looked at directly');
    bench.store.restore(9, bench.store.snapshot());
    await bench.clock.run(20);
    assert.deepEqual(part.asked, ['all', 'a', 'b', 'all']);
    await loop.stop();
  });

  it('tells since when one clock has counted: from its start, and anew from each step of the clock', async () => {
    const bench = new Bench();
    let skewMs = 0;
    const clock = skewed(bench.clock, () => skewMs);
    const seen: (number | undefined)[] = [];
    const part = listener({
      reconcile: (_view, _key, _now, _newId, steadySince) => {
        if (seen.at(-1) !== steadySince) seen.push(steadySince);
        return { changes: [] };
      },
    });
    const loop = new ReconcileLoop({
      ...{ store: bench.store, propose: bench.propose, clock, random, log: silentLog },
      reconcilers: [part],
    });
    const look = async (): Promise<number> => {
      await bench.clock.run(1_000);
      bench.apply([secret(`s${clock.now()}`)]);
      await settle();
      return clock.now();
    };
    await bench.clock.run(500);
    const started = clock.now();
    loop.start();
    await look();
    assert.deepEqual(seen, [started]);
    skewMs = 30_000;
    const stepped = await look();
    await look();
    skewMs = -5_000;
    const back = await look();
    skewMs += 100; // As a clock is pulled straight.
    await look();
    assert.deepEqual(seen, [started, stepped, back]);
    await loop.stop();
  });

  it('looks at everything when its clock has stepped: it would wait for what is never told', async () => {
    const bench = new Bench();
    let skewMs = 0;
    const clock = skewed(bench.clock, () => skewMs);
    const part = listener({ reconcile: (_view, _key, now) => ({ changes: [], wakeAt: now + 1_000 }) });
    let asked = 0;
    const counting = {
      ...part,
      reconcile: (...args: Parameters<Reconciler['reconcile']>) => {
        asked += 1;
        return part.reconcile(...args);
      },
    };
    const loop = new ReconcileLoop({
      ...{ store: bench.store, propose: bench.propose, clock, random, log: silentLog },
      reconcilers: [counting],
    });
    loop.start();
    await settle();
    skewMs = -3_600_000;
    await bench.clock.run(3_500);
    assert.equal(asked, 4);
    await loop.stop();
  });

  it('gathers the events of busy times', async () => {
    const bench = new Bench();
    let rounds = 0;
    const part = listener({
      distinct: (keys) => {
        rounds += 1;
        return keys;
      },
    });
    const loop = bench.loop([part]);
    loop.start();
    await bench.clock.run(100);
    rounds = 0;
    for (let at = 0; at < 50; at += 1) {
      bench.apply([secret(`s${at}`)]);
      await bench.clock.run(1);
    }
    await bench.clock.run(20);
    assert.equal(part.asked.length, 51);
    assert.ok(rounds <= 7, `${rounds} rounds for 50 events in 50 ms`);
    await loop.stop();
  });

  it('proposes one thing at a time, and splits what is large', async () => {
    const bench = new Bench();
    const part = listener({
      reconcile: (view, key) =>
        key === 'all' && view.count('secret') === 0
          ? { changes: Array.from({ length: 4_500 }, (_, at) => secret(`s${at}`)) }
          : { changes: [] },
    });
    const loop = bench.loop([part]);
    loop.start();
    await bench.clock.run(100);
    assert.deepEqual(
      bench.proposed.map((changes) => changes.length),
      [2_000, 2_000, 500],
    );
    assert.equal(bench.mostUnderWay, 1);
    await loop.stop();
  });

  it('gives each reconciler its turn, with what the one before did in view', async () => {
    const bench = new Bench();
    const order: string[] = [];
    const maker = (name: string): Reconciler =>
      listener({
        name,
        keysFor: () => ['all'],
        reconcile: (view) => {
          if (view.count('secret') >= 6) return { changes: [] };
          order.push(`${name}${view.count('secret')}`);
          return { changes: [secret(`${name}${view.count('secret')}`)] };
        },
      });
    const loop = bench.loop([maker('a'), maker('b'), maker('c')]);
    loop.start();
    await bench.clock.run(100);
    assert.deepEqual(order, ['a0', 'b1', 'c2', 'a3', 'b4', 'c5']);
    await loop.stop();
  });

  describe('with a reconciler that decides in pieces', () => {
    /** Makes `a`, `b` and `c`, one a piece, and writes down what is there when each is decided. */
    function inPieces(bench: Bench) {
      const seen: string[] = [];
      const piece = (name: string, then: string | undefined): Reconciliation => {
        seen.push(`${name} after ${bench.store.list('secret').map(({ ID }) => ID)}`);
        const changes = bench.store.get('secret', name as SecretId) ? [] : [secret(name)];
        return then === undefined
          ? { changes }
          : { changes, rest: () => piece(then, then === 'b' ? 'c' : undefined) };
      };
      const reconcile = () => piece('a', 'b');
      return { seen, part: listener({ keysFor: () => [], reconcile }) };
    }

    it('asks for each when the one before is stored, and gives the others their turn in between', async () => {
      const bench = new Bench();
      const { seen, part } = inPieces(bench);
      const other = listener();
      const loop = bench.loop([part, other]);
      loop.start();
      await bench.clock.run(20);
      assert.deepEqual(seen, ['a after ', 'b after a', 'c after a,b']);
      assert.deepEqual(other.asked, ['all', 'a', 'b', 'c']);
      assert.deepEqual(
        bench.proposed.map((changes) => changes.length),
        [1, 1, 1],
      );
      await loop.stop();
    });

    it('begins anew when one is refused', async () => {
      const bench = new Bench();
      const { seen, part } = inPieces(bench);
      bench.refusals.push('out-of-sequence');
      const loop = bench.loop([part]);
      loop.start();
      await bench.clock.run(20);
      assert.deepEqual(seen, ['a after ', 'a after ', 'b after a', 'c after a,b']);
      await loop.stop();
    });

    it('begins anew when a snapshot was loaded meanwhile', async () => {
      const bench = new Bench();
      const { seen, part } = inPieces(bench);
      const loop = bench.loop([part]);
      loop.start();
      await settle();
      bench.store.restore(0, new Store().snapshot());
      await bench.clock.run(20);
      // The proposal that was under way arrives after the snapshot; a piece without changes ends no look.
      assert.deepEqual(seen, ['a after ', 'a after a', 'b after a', 'c after a,b']);
      await loop.stop();
    });
  });

  it('wakes a reconciler when it asked for it, and not when it has changed its mind', async () => {
    const bench = new Bench();
    const times: number[] = [];
    const start = bench.clock.now();
    const part = listener({
      keysFor: () => ['all'],
      reconcile: (view, _key, now) => {
        times.push(now - start);
        if (view.count('secret') > 0) return { changes: [] };
        return { changes: [], wakeAt: times.length === 1 ? start + 150_000 : start + 400_000 };
      },
    });
    const loop = bench.loop([part]);
    loop.start();
    await bench.clock.run(200_000);
    assert.deepEqual(times, [0, 150_000]);
    bench.apply([secret('a')]);
    await bench.clock.run(400_000);
    assert.deepEqual(times, [0, 150_000, 200_000]);
    await loop.stop();
  });

  it('decides anew after a conflict at once, and after other refusals with growing patience', async () => {
    const bench = new Bench();
    const part = listener({
      reconcile: (view) => ({ changes: view.count('secret') === 0 ? [secret('a')] : [] }),
    });
    bench.refusals.push('out-of-sequence', 'no-quorum', 'not-leader', 'internal');
    const loop = bench.loop([part]);
    loop.start();
    await bench.clock.run(3);
    assert.equal(bench.proposed.length, 2);
    await bench.clock.run(2_000);
    assert.equal(bench.proposed.length, 5);
    assert.equal(bench.store.count('secret'), 1);
    await loop.stop();
  });

  it('lets the others go on when one fails, and asks it again', async () => {
    const bench = new Bench();
    let faults = 0;
    const faulty = listener({
      reconcile: () => {
        faults += 1;
        throw new Error('a fault');
      },
    });
    const sound = listener();
    const loop = bench.loop([faulty, sound]);
    loop.start();
    await bench.clock.run(100);
    assert.deepEqual(sound.asked, ['all']);
    assert.equal(faults, 1);
    await bench.clock.run(5_000);
    assert.equal(faults, 2);
    await loop.stop();
  });

  it('hands every proposal to finish', async () => {
    const bench = new Bench();
    const part = listener({
      reconcile: (view) => ({ changes: view.count('secret') === 0 ? [secret('a')] : [] }),
    });
    const loop = bench.loop([part], (_view, changes) => [...changes, secret('b')]);
    loop.start();
    await bench.clock.run(100);
    assert.deepEqual(
      bench.store.list('secret').map((one) => one.ID as string),
      ['a', 'b'],
    );
    await loop.stop();
  });

  it('stops: in the middle of a proposal, of a pause, and of nothing', async () => {
    const bench = new Bench(50);
    const part = listener({ reconcile: (view) => ({ changes: [secret(`s${view.count('secret')}`)] }) });
    const loop = bench.loop([part]);
    loop.start();
    await settle();
    const stopped = loop.stop();
    await bench.clock.runFor(stopped, 60);
    assert.equal(bench.proposed.length, 1);
    bench.refusals.push('no-quorum');
    loop.start();
    await bench.clock.run(80);
    await bench.clock.runFor(loop.stop(), 1);
    await loop.stop();
    bench.apply([secret('late')]);
    await bench.clock.run(10_000);
    assert.equal(bench.proposed.length, 2);
    assert.equal(bench.clock.nextDueMs(), undefined, 'no timer is left behind');
  });

  it('brings a service to its replicas', async () => {
    const bench = new Bench();
    bench.apply([
      { op: 'create', kind: 'cluster', object: makeCluster() },
      { op: 'create', kind: 'node', object: makeNode('n1') },
    ]);
    const loop = bench.loop(reconcilers);
    loop.start();
    await bench.clock.run(100);
    const spec = makeSpec({ Mode: { Replicated: { Replicas: 3 } } });
    bench.apply([
      { op: 'create', kind: 'revision', object: makeRevision('s', 1, spec) },
      { op: 'create', kind: 'service', object: makeService('s', spec) },
    ]);
    await bench.clock.run(20);
    assert.equal(bench.store.find('task', 'service', 's').length, 3);
    const settledAt = bench.proposed.length;
    await bench.clock.run(100_000);
    assert.equal(bench.proposed.length, settledAt);
    bench.apply([{ op: 'remove', kind: 'service', id: 's' as ServiceId }]);
    await bench.clock.run(50);
    assert.equal(bench.store.count('task'), 0);
    await loop.stop();
  });
});

describe('manager/orchestrator/wake-times', () => {
  it('gives keys back in the order of their last set time', () => {
    const times = new WakeTimes();
    for (let at = 0; at < 100; at += 1) times.set(0, `k${at}`, (at * 37) % 101);
    times.set(0, 'k5', 500);
    times.set(0, 'k6', undefined);
    const all = Array.from({ length: 100 }, (_, at) => ({ key: `k${at}`, at: (at * 37) % 101 }));
    const expected = all
      .filter(({ key }) => key !== 'k5' && key !== 'k6')
      .sort((left, right) => left.at - right.at)
      .map(({ key }) => key);
    assert.deepEqual(
      times.takeDue(200).map(({ key }) => key),
      expected,
    );
    assert.equal(times.earliest(), 500);
    assert.deepEqual(times.takeDue(499), []);
    assert.deepEqual(
      times.takeDue(500).map(({ key }) => key),
      ['k5'],
    );
    assert.equal(times.earliest(), undefined);
  });
});
