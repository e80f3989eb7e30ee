/**
 * The data plane in network namespaces, two hosts of them with our data plane between and no engine: throughput and
 * latency through a virtual address and a published port against the direct connection (the limit: nine tenths of it)
 * and against docker-proxy; and how long 1,000 services of 10 endpoints each take to stand in the kernel, and a change
 * of one among them. Swarm's ingress is IPVS' work; on a kernel without it the bench says so.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DataPlane } from '../../agent/network/data-plane.ts';
import { Kernel } from '../../agent/network/kernel.ts';
import { difference } from '../../agent/network/questions.ts';
import { realClock } from '../../cli/runtime.ts';
import type { EndpointsUpdate } from '../../proto/generated/shoal/v1/EndpointsUpdate.ts';
import { silentLog } from '../../proto/ports.ts';
import { waitFor } from '../lab/lab.ts';
import type { Bench, BenchOptions } from './bench.ts';
import type { Metric } from './report.ts';
import { type StreamResult, streamProgram } from './stream.ts';

const defaultRuns = 5;
const askMs = 1_500;
const boundMs = 60_000;
const serverPort = 80;
const publishedPort = 18_080;
const proxyPort = 18_081;
const proxies = ['/usr/bin/docker-proxy', '/usr/sbin/docker-proxy', '/usr/libexec/docker/docker-proxy'];
const bridge = 'shoal4097';

export const dataplane: Bench = {
  name: 'dataplane',
  description: 'throughput through virtual address and published port; 1,000 services programmed',
  missing: () => {
    if (process.getuid?.() !== 0) return 'network namespaces need root';
    return proxies.some((path) => existsSync(path)) ? undefined : 'there is no docker-proxy';
  },
  run: async (options) => {
    if (!existsSync('/proc/net/ip_vs')) {
      options.progress('the kernel has no IPVS (or it is not loaded): Swarm’s ingress is not measured');
    }
    return [...(await traffic(options)), ...(await programming(options))];
  },
};

/** A network namespace, which ends with its only process. */
class Namespace {
  readonly kernel: Kernel;
  readonly enter: readonly string[];
  private readonly process: ChildProcess;
  private readonly started: ChildProcess[] = [];

  private constructor(process: ChildProcess) {
    this.process = process;
    this.enter = ['nsenter', `--net=/proc/${process.pid}/ns/net`];
    this.kernel = new Kernel({ prefix: this.enter });
  }

  get pid(): number {
    return this.process.pid ?? 0;
  }

  static async make(): Promise<Namespace> {
    const process = spawn('unshare', ['--net', 'sh', '-c', 'ip link set lo up; echo ready; read -r _'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    await once(process.stdout, 'data');
    return new Namespace(process);
  }

  start(...command: string[]): ChildProcess {
    const [program = '', ...rest] = [...this.enter, ...command];
    // The fourth is where docker-proxy tells its parent that it listens.
    const child = spawn(program, rest, { stdio: ['ignore', 'pipe', 'inherit', 'pipe'] });
    this.started.push(child);
    return child;
  }

  async end(): Promise<void> {
    for (const child of this.started) child.kill('SIGKILL');
    this.process.stdin?.end();
    if (this.process.exitCode === null) await once(this.process, 'exit');
  }
}

/** A data plane in a namespace, with bridges where an engine would make them. */
class Plane {
  readonly plane: DataPlane;
  private revision = 0;
  private confirmed = '';
  private readonly folder: string;

  private constructor({ kernel }: Namespace, nodeId: string, local: string, folder: string) {
    this.folder = folder;
    this.plane = new DataPlane({
      kernel,
      networks: {
        ensureOverlay: async () => {
          await kernel.run('ip', ['link', 'add', bridge, 'type', 'bridge']).catch(() => '');
          await kernel.ip([`link set ${bridge} up`]);
          return bridge;
        },
        pruneOverlays: async () => new Set([bridge]),
      },
      clock: realClock,
      log: silentLog,
      folder,
      nodeId: () => nodeId,
      local,
    });
    this.plane.connect((report) => {
      this.confirmed = report.revision ?? '';
    });
  }

  static async start(namespace: Namespace, nodeId: string, local: string): Promise<Plane> {
    const one = new Plane(namespace, nodeId, local, await mkdtemp(join(tmpdir(), 'shoal-bench-plane-')));
    await one.plane.start();
    return one;
  }

  /** Milliseconds from the update to the word that its rules stand. */
  async follow(update: EndpointsUpdate): Promise<number> {
    this.revision += 1;
    const revision = String(this.revision);
    const began = performance.now();
    this.plane.follow({ ...update, revision });
    while (this.confirmed !== revision) {
      if (performance.now() - began > boundMs) throw new Error('the data plane does not confirm');
      await new Promise((resolve) => setImmediate(resolve));
    }
    return performance.now() - began;
  }

  async settled(): Promise<void> {
    await waitFor(
      'the plan to be done',
      boundMs,
      async () => difference(await this.plane.look()).length === 0,
    );
  }

  async end(): Promise<void> {
    await this.plane.leave();
    await rm(this.folder, { recursive: true, force: true });
  }
}

function networkOf(own: string, peer: string): NonNullable<EndpointsUpdate['networks']>[number] {
  return {
    id: 'net',
    name: 'front',
    vxlan_id: 4097,
    subnets: ['10.60.0.0/16'],
    // The server of names is this process', outside of the namespaces.
    gateways: [own === '192.0.2.1' ? '127.0.0.81/8' : '127.0.0.82/8'],
    mtu: 1450,
    ingress: true,
    peers: [{ node_id: peer, underlay: peer }],
  };
}

async function traffic({ runs = defaultRuns, progress }: BenchOptions): Promise<Metric[]> {
  const spaces = [
    await Namespace.make(),
    await Namespace.make(),
    await Namespace.make(),
    await Namespace.make(),
  ];
  const [near, far, client, server] = spaces as [Namespace, Namespace, Namespace, Namespace];
  const planes: Plane[] = [];
  try {
    await near.kernel.ip([
      `link add eth0 type veth peer name eth0 netns ${far.pid}`,
      'address add 192.0.2.1/24 dev eth0',
      'link set eth0 up',
    ]);
    await far.kernel.ip(['address add 192.0.2.2/24 dev eth0', 'link set eth0 up']);
    planes.push(
      await Plane.start(near, '192.0.2.1', '192.0.2.1'),
      await Plane.start(far, '192.0.2.2', '192.0.2.2'),
    );
    const service = {
      id: 'web',
      name: 'web',
      networks: [{ network_id: 'net', virtual_addresses: ['10.60.0.2'] }],
      ports: [{ protocol: 'tcp', target_port: serverPort, published_port: publishedPort }],
      endpoints: [{ task_id: 't1', node_id: '192.0.2.2', addresses: { net: '10.60.0.20' } }],
    };
    for (const [plane, own, peer] of [
      [planes[0]!, '192.0.2.1', '192.0.2.2'],
      [planes[1]!, '192.0.2.2', '192.0.2.1'],
    ] as const) {
      await plane.follow({ complete: true, networks: [networkOf(own, peer)], services: [service] });
      await plane.settled();
    }
    for (const [host, inside, address, own] of [
      [near, client, '10.60.0.10', '10.60.255.1'],
      [far, server, '10.60.0.20', '10.60.255.2'],
    ] as const) {
      await host.kernel.ip([
        `address add ${own}/16 dev ${bridge}`,
        `link add veth0 mtu 1450 type veth peer name eth0 mtu 1450 netns ${inside.pid}`,
        `link set veth0 master ${bridge} up`,
      ]);
      await host.kernel.set(new Map([['net/ipv4/ip_forward', '1']]));
      await inside.kernel.ip([
        `address add ${address}/16 dev eth0`,
        'link set eth0 up',
        `route add default via ${own}`,
      ]);
    }
    await once(server.start(process.execPath, streamProgram, 'serve', String(serverPort)).stdout!, 'data');
    const proxy = proxies.find((path) => existsSync(path))!;
    near.start(
      ...[proxy, '-proto', 'tcp', '-host-ip', '0.0.0.0', '-host-port', String(proxyPort)],
      ...['-container-ip', '10.60.0.20', '-container-port', String(serverPort)],
    );
    const ways = {
      direct: ['10.60.0.20', serverPort],
      vip: ['10.60.0.2', serverPort],
      mesh: ['10.60.255.1', publishedPort],
      proxy: ['10.60.255.1', proxyPort],
    } as const;
    const found: Record<keyof typeof ways, StreamResult[]> = { direct: [], vip: [], mesh: [], proxy: [] };
    for (let run = 0; run < runs; run += 1) {
      for (const [way, [address, port]] of Object.entries(ways)) {
        const result = await askedBy(client, address, port);
        found[way as keyof typeof ways].push(result);
        progress(`${way}: ${JSON.stringify(result)}`);
      }
    }
    return compared(found);
  } finally {
    for (const plane of planes) await plane.end();
    for (const space of spaces) await space.end();
  }
}

async function askedBy(client: Namespace, address: string, port: number): Promise<StreamResult> {
  const child = client.start(process.execPath, streamProgram, 'ask', address, String(port), String(askMs));
  let output = '';
  child.stdout?.on('data', (data: Buffer) => {
    output += data.toString();
  });
  await once(child, 'close');
  return JSON.parse(output) as StreamResult;
}

function compared(found: Record<'direct' | 'vip' | 'mesh' | 'proxy', StreamResult[]>): Metric[] {
  const metrics: Metric[] = [];
  for (const way of ['vip', 'mesh'] as const) {
    for (const [against, least] of [['direct', 0.9] as const, ['proxy', 1] as const]) {
      for (const [measure, unit] of [
        ['connectionsPerSecond', '1/s'],
        ['megabytesPerSecond', 'MB/s'],
        ['roundTripUs', 'µs'],
      ] as const) {
        metrics.push({
          name: `${way}-against-${against}-${measure}`,
          unit,
          ours: found[way].map((one) => one[measure]),
          peer: found[against].map((one) => one[measure]),
          limit:
            measure === 'roundTripUs'
              ? { kind: 'ratio', atMost: 1 / least }
              : { kind: 'ratio-least', atLeast: least },
        });
      }
    }
  }
  return metrics;
}

const many = { services: 1_000, endpoints: 10 };
const programmedMs = 3_000;
const changedMs = 150;

async function programming({ runs = defaultRuns, progress }: BenchOptions): Promise<Metric[]> {
  const whole: number[] = [];
  const changes: number[] = [];
  for (let run = 0; run < runs; run += 1) {
    const space = await Namespace.make();
    const plane = await Plane.start(space, '192.0.2.1', '192.0.2.1');
    try {
      await plane.settled();
      const services = Array.from({ length: many.services }, (_, at) => serviceAt(at, many.endpoints));
      whole.push(
        await plane.follow({ complete: true, networks: [networkOf('192.0.2.1', '192.0.2.2')], services }),
      );
      await plane.settled();
      for (let change = 0; change < 5; change += 1) {
        changes.push(await plane.follow({ services: [serviceAt(change * 7, many.endpoints - 1)] }));
      }
      progress(
        `programmed in ${whole.at(-1)?.toFixed(0)} ms, changes ${changes
          .slice(-5)
          .map((ms) => ms.toFixed(0))
          .join(' ')} ms`,
      );
    } finally {
      await plane.end();
      await space.end();
    }
  }
  return [
    {
      name: 'services-programmed',
      unit: 'ms',
      ours: whole,
      peer: [],
      limit: { kind: 'worst', atMost: programmedMs },
    },
    {
      name: 'change-among-them',
      unit: 'ms',
      ours: changes,
      peer: [],
      limit: { kind: 'worst', atMost: changedMs },
    },
  ];
}

function serviceAt(at: number, endpoints: number): NonNullable<EndpointsUpdate['services']>[number] {
  const [high, low] = [at >> 8, at & 255];
  return {
    id: `service${at}`,
    name: `service-${at}`,
    networks: [{ network_id: 'net', virtual_addresses: [`10.61.${high}.${low}`] }],
    endpoints: Array.from({ length: endpoints }, (_, slot) => ({
      task_id: `task${at}-${slot}`,
      name: `service-${at}.${slot}`,
      node_id: `192.0.2.${1 + (slot % 5)}`,
      slot,
      addresses: { net: `10.${64 + high}.${low}.${slot + 10}` },
    })),
  };
}
