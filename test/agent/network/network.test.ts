import assert from 'node:assert/strict';
import { SimulatedEngine } from '../../../agent/engine/simulated.ts';
import { Gate } from '../../../agent/gate.ts';
import { Networks } from '../../../agent/network/network.ts';
import {
  attachedNetwork,
  engineNetwork,
  networkIdsOf,
  refuseDockersOverlay,
  remnantDetail,
  unusedNetworks,
  wantedAttachment,
} from '../../../agent/network/plan.ts';
import { RememberedFiles } from '../../../agent/secrets.ts';
import { TaskDriver } from '../../../agent/task.ts';
import { statusOfWire, type WireNetwork, type WireTask } from '../../../agent/wire.ts';
import { networkIdLabel } from '../../../proto/docker.ts';
import { ShoalError } from '../../../proto/errors.ts';
import { silentLog } from '../../../proto/ports.ts';
import { VirtualClock } from '../../simulation/clock.ts';
import { seededRandom } from '../../simulation/random.ts';
import { nodeId, startNode, wireTask } from '../node.ts';

const network = (id: string, name: string, over: Partial<WireNetwork> = {}): WireNetwork => ({
  id: id.padEnd(25, '0'),
  spec: { annotations: { name, labels: { 'com.docker.stack.namespace': 'app', other: 'x' } } },
  ipam: { configs: [{ family: 'IPV4', subnet: '10.0.1.0/24', gateway: '10.0.1.1' }] },
  ...over,
});
const front = network('net1', 'app_front');
const on = (...networks: WireNetwork[]) =>
  networks.map((each) => ({ network: each, addresses: ['10.0.1.5/24'] }));

describe('network plan', () => {
  it('keeps a name that is free, and puts the id behind one that is not', () => {
    const fresh = engineNetwork(front, []);
    assert.deepEqual(fresh, {
      name: 'app_front',
      labels: { [networkIdLabel]: front.id, 'com.docker.stack.namespace': 'app' },
      subnets: [{ subnet: '10.0.1.0/24', gateway: '10.0.1.1' }],
      internal: false,
      options: {},
    });
    assert.equal(engineNetwork(front, [{ name: 'app_front', labels: {} }]).name, 'app_front.net100000000');
    const own = { name: 'app_front.net100000000', labels: fresh.labels };
    assert.equal(engineNetwork(front, [{ name: 'app_front', labels: {} }, own]).name, own.name);
  });

  it('passes on what a bridge understands', () => {
    const options = { encrypted: '', 'com.docker.network.driver.mtu': '1400' };
    const spec = { annotations: { name: 'n' }, internal: true, driver_config: { name: 'overlay', options } };
    const made = engineNetwork({ ...front, spec }, []);
    assert.deepEqual(made.options, { 'com.docker.network.driver.mtu': '1400' });
    assert.equal(made.internal, true);
  });

  it("passes the engine's own modes through", () => {
    for (const [name, driver, mode] of [
      ['host', '', 'host'],
      ['none', '', 'none'],
      ['bridge', '', 'bridge'],
      ['anything', 'host', 'host'],
    ] as const) {
      const spec = { annotations: { name }, driver_config: { name: driver } };
      const task = wireTask('t1', '', { networks: on({ id: 'x', spec }) });
      assert.deepEqual(wantedAttachment(task), { kind: 'mode', mode });
      assert.deepEqual(networkIdsOf(task), []);
    }
    const named = wireTask('t1', '', { spec: { networks: [{ target: 'host' }] } });
    assert.deepEqual(wantedAttachment(named), { kind: 'mode', mode: 'host' });
    const other = wireTask('t1', '', { spec: { networks: [{ target: front.id }] }, networks: on(front) });
    assert.equal(wantedAttachment(other).kind, 'networks');
  });

  it('refuses Docker’s overlay and its ingress in words, and nothing else', () => {
    const overlay = network('net2', 'far', { driver_state: { name: 'overlay', options: {} } });
    const task = (...networks: WireNetwork[]) => wireTask('a', 'web:1', { networks: on(...networks) });
    assert.throws(() => refuseDockersOverlay(task(front, overlay)), /network far can't be had here/);
    const mesh = { ...overlay, spec: { ...overlay.spec, ingress: true } };
    assert.throws(() => refuseDockersOverlay(task(mesh)), /publish the port with mode=host/);
    refuseDockersOverlay(task(front, network('net3', 'host', { driver_state: { name: 'host' } })));
  });

  it('lets the service be found by its name, tasks.name and its aliases', () => {
    const attachment = { network: front, addresses: ['10.0.1.5/24'], aliases: ['db', 'web'] };
    assert.deepEqual(attachedNetwork(wireTask('t1'), attachment, 'app_front'), {
      name: 'app_front',
      addresses: ['10.0.1.5/24'],
      aliases: ['web', 'tasks.web', 'db'],
      driverOptions: {},
      nameservers: [],
    });
  });

  it('removes only what carries the id of a cluster network that nobody uses', () => {
    const existing = [
      { name: 'own', labels: {} },
      { name: 'used', labels: { [networkIdLabel]: 'a' } },
      { name: 'unused', labels: { [networkIdLabel]: 'b' } },
    ];
    assert.deepEqual(unusedNetworks(existing, new Set(['a'])), ['unused']);
  });
});

describe('networks', () => {
  const make = () => {
    const clock = new VirtualClock();
    const engine = new SimulatedEngine({ clock, random: seededRandom(1) });
    return { clock, engine, networks: new Networks(engine, clock, silentLog) };
  };

  it('tell which name servers the service of a task’s address names, as long as the task is there', () => {
    const networks = new Networks(
      new SimulatedEngine({ clock: new VirtualClock(), random: seededRandom(1) }),
      new VirtualClock(),
      silentLog,
    );
    const task = wireTask('t1', '', { networks: on(front) });
    const container = { ...task.spec?.container, dns_config: { nameservers: ['192.0.2.53'] } };
    const told: [string, readonly string[]][][] = [];
    networks.onNameservers((servers) => told.push([...servers]));
    networks.adopt({ ...task, spec: { ...task.spec, container } } as typeof task);
    assert.deepEqual(told.pop(), [[`${front.id!}/10.0.1.5`, ['192.0.2.53']]]);
    networks.release('t1');
    assert.deepEqual(told, [[]]);
  });

  it('are made once for many tasks, and removed some time after the last', async () => {
    const { clock, engine, networks } = make();
    const tasks = ['t1', 't2', 't3'].map((id) => wireTask(id, '', { networks: on(front) }));
    const attached = await Promise.all(tasks.map((task) => networks.attach(task)));
    assert.equal(attached.length, 3);
    assert.deepEqual(
      (await engine.listNetworks({})).map(({ name }) => name),
      ['app_front'],
    );
    networks.release('t1');
    networks.release('t2');
    await clock.run(60_000);
    assert.equal((await engine.listNetworks({})).length, 1);
    networks.release('t3');
    await networks.attach(wireTask('t4', '', { networks: on(front) }));
    await clock.run(60_000);
    assert.equal((await engine.listNetworks({})).length, 1);
    networks.release('t4');
    await clock.run(60_000);
    assert.deepEqual(await engine.listNetworks({}), []);
  });

  it('of one name in two clusters live side by side', async () => {
    const { engine, networks } = make();
    await networks.attach(wireTask('t1', '', { networks: on(front) }));
    const other = new Networks(engine, new VirtualClock(), silentLog);
    const attachment = await other.attach(wireTask('t2', '', { networks: on(network('net2', 'app_front')) }));
    assert.equal(attachment.kind === 'networks' && attachment.networks[0]!.name, 'app_front.net200000000');
  });

  it('that another daemon removed are made again for a task that needs them', async () => {
    const node = await startNode({ pullMs: [1_000, 1_000] });
    node.managers.assign(wireTask('t1', 'web:1', { networks: on(front) }));
    await node.clock.run(500);
    assert.equal(await node.engine.removeNetwork('app_front'), true);
    await node.untilState('t1', 'RUNNING');
    assert.equal((await node.engine.listNetworks({})).length, 1);
  });

  it('a start that fails for what somebody removed of the engine’s firewall is tried again when it is mended', async () => {
    const words = 'driver failed programming external connectivity: (iptables failed: iptables --wait …)';
    for (const [mendable, expected] of [
      [2, 'running'],
      [0, 'failed'],
    ] as const) {
      const clock = new VirtualClock();
      const engine = new SimulatedEngine({
        clock,
        random: seededRandom(3),
        startMs: [5, 20],
        pullMs: [1, 5],
      });
      let refusals = 2;
      const start = engine.start.bind(engine);
      engine.start = async (id) => {
        refusals -= 1;
        if (refusals >= 0) throw new ShoalError('invalid-argument', words);
        await start(id);
      };
      const networks = new Networks(engine, clock, silentLog);
      let mended = 0;
      networks.useDataPlane({
        network: async () => ({ name: 'front', nameservers: [] }),
        mendEngine: async (heard) => {
          assert.equal(heard, words);
          mended += 1;
          return mended <= mendable;
        },
        backlogTaken: async () => {},
      });
      const driver = driverOf(wireTask('t1'), engine, clock, networks);
      driver.start();
      await clock.runUntil(() => driver.status.state === expected, 60_000, expected);
      driver.abandon();
    }
  });
});

function driverOf(
  task: WireTask,
  engine: SimulatedEngine,
  clock: VirtualClock,
  networks: Networks,
): TaskDriver {
  return new TaskDriver(
    task,
    statusOfWire({ state: 'ASSIGNED' }),
    'absent',
    {
      engine,
      clock,
      log: silentLog,
      node: () => ({ id: nodeId, hostname: 'host-1', architecture: '', os: '' }),
      networks,
      files: new RememberedFiles(),
      payloads: { secret: () => undefined, config: () => undefined },
      gate: new Gate(1),
    },
    { onStatus() {}, onContainer() {}, onForgotten() {} },
  );
}

describe('a task that is to stop', () => {
  const task = wireTask('t1', 'web:1', { networks: on(front) });

  async function stopped(health: 'healthy' | 'unhealthy' | 'none', stop: (driver: TaskDriver) => void) {
    const clock = new VirtualClock();
    const engine = new SimulatedEngine({ clock, random: seededRandom(3), startMs: [5, 20], pullMs: [1, 5] });
    const done: string[] = [];
    const end = engine.stop.bind(engine);
    engine.stop = (id, graceMs) => {
      done.push('told to stop');
      return end(id, graceMs);
    };
    const inspect = engine.inspect.bind(engine);
    engine.inspect = async (id) => ({ ...(await inspect(id)), health });
    const networks = new Networks(engine, clock, silentLog);
    networks.useDataPlane({
      network: async () => ({ name: 'front', nameservers: [] }),
      mendEngine: async () => false,
      backlogTaken: async (pid) => {
        assert.ok(pid > 0);
        await new Promise<void>((resolve) => clock.after(500, resolve));
        done.push('took who waited');
      },
    });
    const driver = driverOf(task, engine, clock, networks);
    driver.start();
    if (health !== 'unhealthy') {
      await clock.runUntil(() => driver.status.state === 'running', 60_000, 'running');
      stop(driver);
    }
    await clock.runUntil(() => done.includes('told to stop'), 60_000, 'the stop');
    driver.abandon();
    return done;
  }

  for (const [what, stop] of [
    ['shut down', (driver: TaskDriver) => driver.update({ ...task, desired_state: 'SHUTDOWN' })],
    ['removed', (driver: TaskDriver) => driver.remove()],
  ] as const) {
    it(`takes who waits for it before it is told: ${what}`, async () => {
      assert.deepEqual(await stopped('none', stop), ['took who waited', 'told to stop']);
    });
  }

  it('is told at once when its managers are lost, and when it is unhealthy', async () => {
    assert.deepEqual(await stopped('none', (driver) => driver.isolate()), ['told to stop']);
    assert.deepEqual(await stopped('unhealthy', () => {}), ['told to stop']);
  });
});

describe('an overlay on an engine', () => {
  const overlay = {
    id: 'net1'.padEnd(25, '0'),
    name: 'front',
    vxlanId: 7,
    subnets: ['10.0.7.0/24'],
    gateways: ['10.0.7.2/24'],
    mtu: 1450,
    isInternal: false,
    isEncrypted: false,
    isIngress: false,
    labels: {},
    peers: [],
  };

  it('that remembers another’s bridge: it is named, unless a network of the engine has it', async () => {
    for (const [why, bridge, expected] of [
      ['networks have same bridge name', 'shoal7', 'shoal7'],
      ['networks have overlapping IPv4', 'shoal3', 'shoal3'],
      ['networks have overlapping IPv4', 'br-0123456789ab', undefined],
      ['networks have overlapping IPv4', 'shoal9', undefined],
    ] as const) {
      const clock = new VirtualClock();
      const engine = new SimulatedEngine({ clock, random: seededRandom(1) });
      const networks = new Networks(engine, clock, silentLog);
      await clock.runFor(
        networks.ensureOverlay({ ...overlay, id: 'net2'.padEnd(25, '0'), name: 'back', vxlanId: 9 }),
        1_000,
      );
      const [one, other] = ['1'.repeat(64), '2'.repeat(64)];
      const words = `cannot create network ${one} (shoal7): conflicts with network ${other} (${bridge}): ${why}`;
      engine.ensureNetwork = async () => {
        throw new ShoalError('invalid-argument', words);
      };
      const refused = await clock
        .runFor(networks.ensureOverlay(overlay), 1_000)
        .catch((error: unknown) => error);
      assert.ok(refused instanceof ShoalError);
      assert.equal(refused.message, words);
      assert.equal(refused.details?.[remnantDetail], expected, words);
    }
  });
});
