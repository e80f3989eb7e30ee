import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { DataPlane } from '../../../agent/network/data-plane.ts';
import { Kernel } from '../../../agent/network/kernel.ts';
import { remnantDetail } from '../../../agent/network/plan.ts';
import { difference } from '../../../agent/network/questions.ts';
import type { EngineNetworks } from '../../../agent/network/round.ts';
import { realClock } from '../../../cli/runtime.ts';
import { isShoalError, ShoalError } from '../../../proto/errors.ts';
import type { EndpointsQuestion } from '../../../proto/generated/shoal/v1/EndpointsQuestion.ts';
import type { EndpointsReport } from '../../../proto/generated/shoal/v1/EndpointsReport.ts';
import type { EndpointsUpdate } from '../../../proto/generated/shoal/v1/EndpointsUpdate.ts';
import { type Clock, silentLog } from '../../../proto/ports.ts';
import { waitFor } from '../../lab/lab.ts';

const boundMs = 30_000;
/** No round comes for its time alone: whatever happens, happens on an event. */
const periodMs = 30_000;
const clockWithoutPeriods: Clock = {
  ...realClock,
  after: (waitMs, action) => (waitMs >= periodMs ? { cancel() {} } : realClock.after(waitMs, action)),
};
/** What takes a while to be given up is given up soon. */
const hastyClock: Clock = {
  ...realClock,
  after: (waitMs, action) => realClock.after(Math.min(waitMs, 300), action),
};

/** Hears nothing of what others do. */
class DeafKernel extends Kernel {
  override follow(): () => void {
    return () => {};
  }
}

/** `web` with an endpoint at each of `addresses`. */
function web(addresses: readonly string[], ports: readonly number[] = []) {
  return {
    id: 'web',
    name: 'web',
    networks: [{ network_id: 'net', virtual_addresses: ['10.60.1.2'] }],
    ports: ports.map((port) => ({ protocol: 'tcp', target_port: 80, published_port: port })),
    endpoints: addresses.map((address) => ({ task_id: address, node_id: 'n2', addresses: { net: address } })),
  };
}

function whole(revision: number, ...services: EndpointsUpdate['services'] & object): EndpointsUpdate {
  return {
    revision: String(revision),
    complete: true,
    networks: [
      {
        id: 'net',
        name: 'front',
        vxlan_id: 4097,
        subnets: ['10.60.1.0/24'],
        // The server of names listens in the test's own namespace.
        gateways: ['127.0.0.77/24'],
        mtu: 1450,
        ingress: true,
        peers: [{ node_id: 'n2', underlay: '192.0.2.2' }],
      },
    ],
    services,
  };
}

describe('a data plane', function () {
  this.timeout(60_000);
  let host: ChildProcess;
  let kernel: Kernel;
  let folder: string;
  let plane: DataPlane;
  let reports: EndpointsReport[];
  /** How long each update took. */
  let tookMs: number[];
  /** What the engine's work waits for. */
  let engineIsFree: Promise<void>;

  const networks: EngineNetworks = {
    ensureOverlay: async () => {
      await engineIsFree;
      await kernel.run('ip', ['link', 'add', 'shoal4097', 'type', 'bridge']).catch(() => {});
      await kernel.ip(['link set shoal4097 up']);
      return 'front';
    },
    pruneOverlays: async (ids) => {
      if (ids.has('net')) return new Set(['shoal4097']);
      await kernel.run('ip', ['link', 'delete', 'shoal4097']).catch(() => {});
      return new Set();
    },
  };

  function made(engine = networks, clock = realClock, itsKernel = kernel): DataPlane {
    const one = new DataPlane({
      kernel: itsKernel,
      networks: engine,
      clock,
      log: silentLog,
      folder,
      nodeId: () => 'n1',
      local: '192.0.2.1',
      onProgrammed: (ms) => tookMs.push(ms),
    });
    tookMs = [];
    reports = [];
    one.connect((report) => reports.push(report));
    return one;
  }

  /** Another one in place of the one that every test begins with. */
  async function anew(...other: Parameters<typeof made>): Promise<void> {
    await plane.stop();
    plane = made(...other);
    await plane.start();
  }

  const kernelPrefix = () => ['nsenter', `--net=/proc/${host.pid}/ns/net`];
  const confirmed = (revision: number) =>
    waitFor(`revision ${revision} to be confirmed: ${JSON.stringify(reports.at(-1))}`, boundMs, () =>
      reports.some((report) => report.revision === String(revision)),
    );
  const settled = () =>
    waitFor('nothing to be left to do', boundMs, async () => difference(await plane.look()).length === 0);
  const rulesOf = async (chain: string) => kernel.run('nft', ['list', 'chain', 'inet', 'shoal', chain]);

  before(async function () {
    if (process.getuid?.() !== 0) return this.skip();
    host = spawn('unshare', ['--net', 'sh', '-c', 'echo ready; read -r _'], {
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    await once(host.stdout!, 'data');
    kernel = new Kernel({ prefix: kernelPrefix() });
    await kernel.ip([
      'link add eth0 type veth peer name cable',
      'address add 192.0.2.1/24 dev eth0',
      'link set eth0 up',
    ]);
  });

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'shoal-data-plane-'));
    engineIsFree = Promise.resolve();
    plane = made();
    await plane.start();
  });

  afterEach(async () => {
    await plane.leave();
    await rm(folder, { recursive: true, force: true });
  });

  after(async () => {
    if (host === undefined) return;
    host.stdin?.end();
    await once(host, 'exit');
  });

  it('makes a network, tells of it, and is then as it should be', async () => {
    const ready = plane.network('net');
    plane.follow(whole(1, web(['10.60.1.11', '10.60.1.12'])));
    assert.deepEqual(await ready, { name: 'front', nameservers: ['127.0.0.77'] });
    await confirmed(1);
    await settled();
    assert.match(await rulesOf('vip4_4097_web'), /10\.60\.1\.11.*10\.60\.1\.12/);
  });

  it('withdraws an endpoint with what was sent to it and not answered; connections that stand go on', async () => {
    plane.follow(whole(1, web(['10.60.1.11', '10.60.1.12'])));
    await confirmed(1);
    const flow = (protocol: string, endpoint: string, port: number, ...more: string[]) =>
      kernel.run('sh', [
        '-c',
        [
          `conntrack -I -p ${protocol} -t 60 -s 10.60.1.99 -d 10.60.1.2 --sport ${port} --dport 80`,
          `-r ${endpoint} -q 10.60.1.99 --reply-port-src 80 --reply-port-dst ${port}`,
          ...more,
        ].join(' '),
      ]);
    await flow('tcp', '10.60.1.11', 1001, '--state SYN_SENT');
    await flow('tcp', '10.60.1.11', 1002, '--state ESTABLISHED -u ASSURED,SEEN_REPLY');
    await flow('udp', '10.60.1.11', 1003, '-u SEEN_REPLY');
    await flow('tcp', '10.60.1.12', 1004, '--state SYN_SENT');
    plane.follow(whole(2, web(['10.60.1.12'])));
    await confirmed(2);
    const left = await kernel.run('sh', ['-c', 'conntrack -L -d 10.60.1.2']);
    const ports = [...left.matchAll(/dst=10\.60\.1\.2 sport=(\d+)/g)].map(([, port]) => port);
    assert.deepEqual(ports.sort(), ['1002', '1004'], left);
  });

  it('withdraws an endpoint and says so while the engine is busy with something else', async () => {
    plane.follow(whole(1, web(['10.60.1.11', '10.60.1.12'])));
    await settled();
    let free = () => {};
    engineIsFree = new Promise((resolve) => {
      free = resolve;
    });
    plane.onEngine();
    plane.follow({ revision: '2', services: [web(['10.60.1.12'])] });
    await confirmed(2);
    assert.ok(!(await rulesOf('vip4_4097_web')).includes('10.60.1.11'));
    free();
    await settled();
  });

  it('confirms the last of many changes, and holds it', async () => {
    plane.follow(whole(1, web(['10.60.1.11'])));
    for (let revision = 2; revision <= 40; revision += 1) {
      plane.follow({ revision: String(revision), services: [web([`10.60.1.${100 + revision}`])] });
    }
    await confirmed(40);
    assert.match(await rulesOf('vip4_4097_web'), /10\.60\.1\.140/);
    const revisions = reports.map((report) => Number(report.revision));
    assert.deepEqual(
      revisions,
      [...revisions].sort((a, b) => a - b),
    );
    await settled();
  });

  it('goes on from what it was told in its last life, and needs no manager for it', async () => {
    plane.follow(whole(1, web(['10.60.1.11'])));
    await settled();
    await waitFor('the state to be on disk', boundMs, async () =>
      (await readFile(join(folder, 'network.json'), 'utf8')).includes('10.60.1.11'),
    );
    await plane.stop();
    await kernel.nft(['delete table inet shoal']);
    plane = made();
    await plane.start();
    await waitFor('the rules to be back', boundMs, async () =>
      (await rulesOf('vip4_4097_web')).includes('10.60.1.11'),
    );
    await settled();
  });

  it('does not take a port from another program, names the service, and takes it when it is free', async () => {
    await anew(networks, clockWithoutPeriods, new DeafKernel({ prefix: kernelPrefix() }));
    const other: Server = createServer().listen(0, '0.0.0.0');
    await once(other, 'listening');
    const { port } = other.address() as { port: number };
    plane.follow(whole(1, web(['10.60.1.11'], [port])));
    await confirmed(1);
    const ports = () => kernel.run('nft', ['list', 'map', 'inet', 'shoal', 'ports']);
    assert.ok(!(await ports()).includes(String(port)));
    await waitFor('the reason', boundMs, () =>
      reports.some(({ problems }) =>
        problems?.some((one) => one.service_id === 'web' && /held by another/.test(one.message ?? '')),
      ),
    );
    assert.equal(reports[0]?.problems_known, false, 'nothing was looked at yet');
    other.close();
    await once(other, 'close');
    await waitFor('the port', boundMs, async () => (await ports()).includes(String(port)));
    await waitFor('the reason to be gone', boundMs, () => {
      const last = reports.at(-1);
      return last?.problems_known === true && last.problems?.length === 0;
    });
  });

  it('takes a port itself whose tasks are to be told the client’s address, and leaves it to the rules again', async () => {
    const task = createServer({ allowHalfOpen: true }, (socket) => {
      socket.once('data', (header: Buffer) => socket.end(header.subarray(0, 20).toString('hex')));
    }).listen(0, '127.0.0.1');
    await once(task, 'listening');
    const free = createServer().listen(0, '0.0.0.0');
    await once(free, 'listening');
    const { port } = free.address() as AddressInfo;
    free.close();
    await once(free, 'close');
    const target = (task.address() as AddressInfo).port;
    const plain = web(['127.0.0.1'], [port]);
    const ports = plain.ports.map((one) => ({ ...one, target_port: target }));
    const told = { ...plain, ports, options: { 'shoal.ingress': 'proxy-protocol' } };
    const rules = () => kernel.run('nft', ['list', 'table', 'inet', 'shoal']);
    const ask = () => text(connect({ host: '127.0.0.1', port, localAddress: '127.0.0.5' }));
    plane.follow(whole(1, { ...plain, ports }));
    await confirmed(1);
    await settled();
    assert.ok((await rules()).includes(`port_tcp_${port}`));
    plane.follow({ revision: '2', services: [told] });
    await confirmed(2);
    await settled();
    assert.ok(!(await rules()).includes(String(port)), 'no rule is in its way');
    assert.equal(await ask(), '0d0a0d0a000d0a515549540a2111000c7f000005');
    assert.equal((await plane.kernelFigures()).connections.published_port, 1);
    plane.follow({ revision: '3', services: [{ ...told, endpoints: [] }] });
    await confirmed(3);
    await assert.rejects(ask(), { code: 'ECONNRESET' });
    plane.follow({ revision: '4', services: [{ ...plain, ports }] });
    await confirmed(4);
    await settled();
    assert.ok((await rules()).includes(`port_tcp_${port}`));
    assert.equal(reports.at(-1)?.problems?.length, 0);
    task.close();
  });

  it('tells of which network something is, as long as it is', async () => {
    let isRefusing = true;
    const ensure = networks.ensureOverlay;
    const refusing: EngineNetworks = {
      ...networks,
      ensureOverlay: async (network) => {
        if (isRefusing) throw new ShoalError('conflict', 'the engine refuses');
        return ensure(network);
      },
    };
    await anew(refusing, hastyClock);
    plane.follow(whole(1, web(['10.60.1.11'])));
    await waitFor('the reason', boundMs, () =>
      reports
        .at(-1)
        ?.problems?.some(
          (one) => one.network_id === 'net' && one.message === 'network front: the engine refuses',
        ),
    );
    const waits = await plane.network('net').catch((error: unknown) => error);
    assert.ok(isShoalError(waits, 'failed-precondition'), String(waits));
    assert.equal(waits.message, 'network front: the engine refuses; no task on it can run on this node');
    await assert.rejects(plane.network('other'), { code: 'unavailable', details: { network: 'other' } });
    isRefusing = false;
    await waitFor('the reason to be gone', boundMs, () => reports.at(-1)?.problems?.length === 0);
  });

  it('makes what somebody removed of the engine’s own firewall, for the engine can make no network without', async () => {
    const lacking: EngineNetworks = {
      ...networks,
      // As the engine does: one command after the other, and the first failure in its words.
      ensureOverlay: async (network) => {
        const bridge = 'shoal4097';
        for (const command of [
          `iptables --wait -I FORWARD -o ${bridge} -j DOCKER`,
          `iptables --wait -t nat -A DOCKER -i ${bridge} -j RETURN`,
        ]) {
          await kernel.run('sh', ['-c', command]).catch((error: Error) => {
            const words = `iptables failed: ${command}: ${error.message}`;
            throw new ShoalError('invalid-argument', `Failed to program FILTER chain: ${words}`);
          });
        }
        return networks.ensureOverlay(network);
      },
    };
    await anew(lacking, hastyClock);
    plane.follow(whole(1, web(['10.60.1.11'])));
    await waitFor('the network', boundMs, () => plane.network('net'));
    assert.equal(await plane.mendEngine('the engine has other troubles'), false);
    // The plane may put one back in between.
    const flush = 'iptables -F; iptables -X && iptables -t nat -F; iptables -t nat -X';
    await waitFor('the chains to go', boundMs, async () => (await kernel.run('sh', ['-c', flush])) === '');
  });

  it('leaves nothing that holds off a bridge, and no stranger’s interface is taken for that', async () => {
    const refusing: EngineNetworks = {
      ensureOverlay: async () => {
        throw new ShoalError('conflict', 'refused', { details: { [remnantDetail]: 'shoal4098' } });
      },
      pruneOverlays: async () => new Set(),
    };
    await anew(refusing, hastyClock);
    await kernel.ip(['link add shoal4099 type veth peer name other']);
    plane.follow(whole(1, web(['10.60.1.11'])));
    const links = async () =>
      (await kernel.run('ip', ['-o', 'link'])).match(/ (shoal\d+)(?=[:@])/g)?.map((one) => one.trim());
    await waitFor('the bridge to be held off', boundMs, async () => (await links())?.includes('shoal4098'));
    plane.follow({ revision: '2', removed_networks: ['net'], removed_services: ['web'] });
    await confirmed(2);
    await settled();
    assert.deepEqual(await links(), ['shoal4099']);
    await kernel.ip(['link delete shoal4099']);
  });

  it('takes a bridge away that the engine left, and none that a network of it has', async () => {
    const half = { ...networks, pruneOverlays: async () => new Set(['shoal4099']) };
    await anew(half);
    await kernel.ip(['link add shoal4099 type bridge', 'link add mine type bridge']);
    plane.follow(whole(1, web(['10.60.1.11'])));
    await confirmed(1);
    await settled();
    plane.follow({ revision: '2', removed_networks: ['net'], removed_services: ['web'] });
    await confirmed(2);
    await settled();
    const links = await kernel.run('ip', ['-o', 'link']);
    assert.deepEqual(links.match(/(shoal|vx)\d+|mine/g), ['shoal4099', 'mine'], links);
    await kernel.ip(['link delete shoal4099', 'link delete mine']);
  });

  const strangers: readonly [string, string][] = [
    ['flushes all of nftables', 'nft flush ruleset'],
    ['deletes a rule', 'nft flush chain inet shoal pre'],
    ['deletes an interface', 'ip link delete vx4097'],
    ['takes an interface out of its bridge', 'ip link set vx4097 nomaster down'],
    ['deletes a route', 'ip route del table local 10.60.1.2 dev shoal4097'],
    ['flushes iptables', 'iptables -F'],
    [
      'loads iptables anew, as firewalld does',
      'iptables -P FORWARD DROP; iptables -F; iptables -X; iptables -I FORWARD -j REJECT',
    ],
  ];
  for (const [what, command] of strangers) {
    it(`heals on the event when somebody ${what}`, async () => {
      const hands = new Kernel({ prefix: kernelPrefix() });
      const changes = () => [...hands.changes.values()].reduce((sum, count) => sum + count, 0);
      await anew(networks, clockWithoutPeriods, hands);
      await kernel.run('sh', ['-c', 'iptables -P FORWARD DROP']);
      plane.follow(whole(1, web(['10.60.1.11'])));
      await confirmed(1);
      await settled();
      const before = changes();
      await kernel.run('sh', ['-c', command]);
      await settled();
      // It may be healed before anybody can look at the harm: that there was some is seen of the healing.
      assert.ok(changes() > before, 'it did harm');
      await kernel.run('sh', ['-c', 'iptables -F; iptables -P FORWARD ACCEPT']);
    });
  }

  it('gives the host its settings back, also those that its last life changed', async () => {
    const path = 'net/bridge/bridge-nf-call-iptables';
    await kernel.set(new Map([[path, '0']]));
    const value = async () => (await kernel.settings([path])).get(path);
    plane.follow(whole(1, web(['10.60.1.11'])));
    await waitFor('the setting to be ours', boundMs, async () => (await value()) === '1');
    await settled();
    await plane.stop();
    plane = made();
    await plane.start();
    await settled();
    await plane.leave();
    assert.equal(await value(), '0');
    await assert.rejects(readFile(join(folder, 'settings-before.json')), { code: 'ENOENT' });
  });

  it('gives the host its settings back after an engine that was away has let go of the network, too', async () => {
    const noted = 'net/bridge/bridge-nf-call-iptables';
    await kernel.set(new Map([[noted, '0']]));
    const value = async () => (await kernel.settings([noted])).get(noted);
    let isAway = false;
    const engine: EngineNetworks = {
      ensureOverlay: networks.ensureOverlay,
      pruneOverlays: async (ids) => {
        if (isAway) throw new ShoalError('unavailable', 'the engine is away');
        return networks.pruneOverlays(ids);
      },
    };
    await anew(engine, hastyClock);
    plane.follow(whole(1, web(['10.60.1.11'])));
    await settled();
    assert.equal(await value(), '1');
    isAway = true;
    plane.follow({ revision: '2', removed_networks: ['net'], removed_services: ['web'] });
    await confirmed(2);
    await waitFor('the engine to be missed', boundMs, () => (reports.at(-1)?.problems?.length ?? 0) > 0);
    // As the engine does for a network that it still has when it starts.
    await kernel.set(new Map([[noted, '1']]));
    isAway = false;
    await waitFor('the setting to be the host’s', boundMs, async () => (await value()) === '0');
    await settled();
  });

  it('tells how it stands, and what the kernel counted', async () => {
    plane.follow(whole(1, web(['10.60.1.11', '10.60.1.12'])));
    await settled();
    plane.follow({ revision: '2', services: [web(['10.60.1.12'])] });
    assert.ok(plane.figures().lagMs >= 0);
    await confirmed(2);
    const { revision, endpoints, services, networks: count, problems, lagMs } = plane.figures();
    assert.deepEqual([revision, endpoints, services, count, problems, lagMs], [2, 1, 1, 1, 0, 0]);
    assert.equal(tookMs.length, 2);
    const before = await plane.kernelFigures();
    assert.deepEqual(before.drops, { stranger: 0, unencrypted: 0, isolated: 0, refused: 0 });
    assert.ok(before.trackedMax > 0);
    // The host asks for a virtual address, which answers on its own network alone.
    await kernel.run('sh', ['-c', 'ip link set lo up; curl -s -m 5 http://10.60.1.2/ || true']);
    assert.ok((await plane.kernelFigures()).drops.refused > 0);
  });

  it('answers what a manager asks with a report, and changes nothing by it', async () => {
    await anew(networks, realClock, new DeafKernel({ prefix: kernelPrefix() }));
    plane.follow(whole(1, web(['10.60.1.11'])));
    await settled();
    const ask = async (question: EndpointsQuestion) => {
      await plane.answer(question);
      return reports.at(-1)?.answer;
    };
    const empty = await ask({ id: '5', difference: {} });
    assert.deepEqual(empty, { question_id: '5', revision: '1', operations: [] });
    await kernel.nft([
      'flush chain inet shoal vip4_4097_web',
      'delete element inet shoal peers4 { 192.0.2.2 }',
    ]);
    await kernel.ip(['link set vx4097 mtu 1400']);
    const { operations } = (await ask({ id: '6', difference: {} })) ?? {};
    assert.deepEqual(operations, [
      'nft add rule inet shoal vip4_4097_web dnat ip to 10.60.1.11',
      'nft add element inet shoal peers4 { 192.0.2.2 }',
      'ip link set vx4097 mtu 1450 master shoal4097 up',
    ]);
    assert.deepEqual((await ask({ id: '7', difference: {} }))?.operations, operations, 'nothing was done');
    assert.match((await ask({ id: '8' }))?.error ?? '', /does not know the question/);
  });

  it('leaves nothing, and refuses who waits for a network', async () => {
    plane.follow(whole(1, web(['10.60.1.11'])));
    await settled();
    const waits = assert.rejects(plane.network('other'), (error) => isShoalError(error, 'unavailable'));
    await plane.leave();
    await waits;
    const listing = await kernel.run('nft', ['list', 'ruleset']);
    assert.ok(!/(inet|bridge) shoal/.test(listing), listing);
    assert.ok(!/shoal\d|vx\d/.test(await kernel.run('ip', ['link'])));
  });
});
