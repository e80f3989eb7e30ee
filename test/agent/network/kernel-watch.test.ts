import assert from 'node:assert/strict';
import { chainsLackedIn } from '../../../agent/network/engine-chains.ts';
import { Kernel } from '../../../agent/network/kernel.ts';
import { changerOf, isLoss, KernelWatch } from '../../../agent/network/kernel-watch.ts';
import { silentLog } from '../../../proto/ports.ts';
import { VirtualClock } from '../../simulation/clock.ts';

describe('what others do to the kernel’s network', () => {
  it('is read from what nft and ip print', () => {
    assert.equal(changerOf('# new generation 12 by process 27090 (iptables-restor)'), 'iptables-restor');
    assert.equal(changerOf('delete rule inet shoal c handle 4'), undefined);
    const link = (flags: string, rest: string) => `3: vx4097: <${flags}> mtu 1450 qdisc noqueue ${rest}`;
    for (const [line, expected] of [
      ['Deleted 3: vx4097: <BROADCAST> mtu 1450 qdisc noop state DOWN', true],
      ['Deleted 9: shwg0: <POINTOPOINT,NOARP> mtu 1440 state DOWN', true],
      ['Deleted 9: eth0: <BROADCAST> mtu 1500 state DOWN', false],
      [link('BROADCAST,MULTICAST,UP,LOWER_UP', 'master shoal4097 state UNKNOWN'), false],
      [link('BROADCAST,MULTICAST,UP,LOWER_UP', 'state UNKNOWN'), true],
      [link('BROADCAST,MULTICAST', 'master shoal4097 state DOWN'), true],
      ['Deleted local 10.0.1.2 dev shoal4097 table local scope host ', true],
      ['Deleted local fde0:d94b:1f8c::2 dev shoal4097 table local proto kernel metric 0', true],
      ['Deleted fe80::/64 dev shoal4097 proto kernel metric 256 pref medium', false],
      ['Deleted multicast ff00::/8 dev shoal4097 table local proto kernel', false],
      ['local 10.0.1.2 dev shoal4097 table local scope host ', false],
    ] as const) {
      assert.equal(isLoss(line), expected, line);
    }
  });

  /** A kernel whose tools print what the test says. */
  class TalkingKernel extends Kernel {
    readonly tell = new Map<string, (line: string) => void>();
    readonly end = new Map<string, (reason: string) => void>();
    readonly made = new Map<'nft' | 'iptables-restore', number>();
    override get changes() {
      return this.made;
    }
    override follow(
      tool: string,
      _: readonly string[],
      onLine: (line: string) => void,
      onEnd: (reason: string) => void,
    ): () => void {
      this.tell.set(tool, onLine);
      this.end.set(tool, onEnd);
      return () => {};
    }
  }

  function watched() {
    const clock = new VirtualClock();
    const kernel = new TalkingKernel();
    const looks: number[] = [];
    const onChange = () => looks.push(clock.monotonicMs());
    const watch = new KernelWatch({ kernel, clock, log: silentLog, onChange });
    watch.start();
    const changed = (name: string) => kernel.tell.get('nft')!(`# new generation 1 by process 2 (${name})`);
    return { clock, kernel, watch, looks, changed };
  }

  it('is looked at soon, and once for what comes together', async () => {
    const { clock, looks, changed, kernel } = watched();
    changed('iptables');
    changed('nft');
    kernel.tell.get('ip')!('Deleted 3: vx4097: <BROADCAST> mtu 1450 qdisc noop state DOWN');
    await clock.run(5_000);
    assert.equal(looks.length, 1);
  });

  it('is told from what this agent did itself', async () => {
    const { clock, looks, changed, kernel } = watched();
    kernel.made.set('nft', 2).set('iptables-restore', 1);
    changed('nft');
    changed('nft');
    changed('iptables-restor');
    await clock.run(5_000);
    assert.equal(looks.length, 0, 'all of it was ours');
    kernel.made.set('nft', 3);
    changed('nft');
    changed('nft');
    await clock.run(5_000);
    assert.equal(looks.length, 1, 'one was not');
  });

  it('costs a look ever more seldom where it goes on and on, and soon again after a pause', async () => {
    const { clock, looks, changed } = watched();
    for (let second = 0; second < 300; second += 1) {
      changed('iptables');
      await clock.run(1_000);
    }
    assert.ok(looks.length >= 5 && looks.length <= 20, `${looks.length} looks`);
    await clock.run(120_000);
    const before = looks.length;
    changed('iptables');
    await clock.run(1_000);
    assert.equal(looks.length, before + 1);
  });

  it('may have happened while nothing was heard', async () => {
    const { clock, looks, kernel, watch } = watched();
    kernel.end.get('nft')!('nft: killed');
    await clock.run(10_000);
    assert.equal(looks.length, 1);
    watch.stop();
    kernel.end.get('ip')!('ip: killed');
    await clock.run(100_000);
    assert.equal(looks.length, 1, 'nobody listens any more');
  });
});

describe('chains that the engine lacks', () => {
  it('are those of its own that its words name', () => {
    const failed = (words: string) => `driver failed: (iptables failed: ${words} (exit status 2))`;
    for (const [words, expected] of [
      [
        "iptables --wait -I FORWARD -o shoal4096 -j DOCKER: iptables v1.8.9 (nf_tables): Chain 'DOCKER' does not exist",
        ['filter DOCKER'],
      ],
      [
        'iptables --wait -t nat -A DOCKER -p tcp -d 0/0 --dport 80 -j DNAT --to-destination 1.2.3.4:80: iptables: No chain/target/match by that name.',
        ['nat DOCKER'],
      ],
      [
        'iptables --wait -I DOCKER-ISOLATION-STAGE-1 -i br0 ! -o br0 -j DOCKER-ISOLATION-STAGE-2: iptables: No chain/target/match by that name.',
        ['filter DOCKER-ISOLATION-STAGE-1', 'filter DOCKER-ISOLATION-STAGE-2'],
      ],
      ['iptables --wait -I FORWARD -j MINE: iptables: No chain/target/match by that name.', []],
      ['iptables --wait -A DOCKER -j ACCEPT: Permission denied', []],
      ['no such image', []],
    ] as const) {
      const found = chainsLackedIn(failed(words)).map(({ table, name }) => `${table} ${name}`);
      assert.deepEqual(found, expected, words);
    }
  });
});
