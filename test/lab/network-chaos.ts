/**
 * Random operations and faults for the networks of a lab's cluster, from a seed: networks and services come and go while
 * agents and engines are killed, hosts cut off, and strangers flush, delete and change what is ours. Each fault begins,
 * lasts a moment, and is put right; what strangers did is for the agents to mend.
 */
import type { ApiClient } from '../../cli/client.ts';
import { seededRandom } from '../simulation/random.ts';
import { clientOf } from './cluster.ts';
import type { Lab, LabHost } from './lab.ts';

const maxNetworks = 5;
const maxServices = 5;
const maxReplicas = 3;
const firstPort = 9000;
const faultsAtATime = 2;
const second = 1e9;

interface MadeService {
  readonly networks: readonly string[];
  readonly port: number | undefined;
}

type Work = () => Promise<void>;

export interface ChaosOptions {
  readonly lab: Lab;
  /** The first so many hosts are managers; no more than a minority of them has a fault at a time. */
  readonly managers: number;
  readonly seed: number;
  /** Between one operation and the next, and how long a fault lasts, on average. */
  readonly gapMs: number;
  readonly lastsMs: number;
}

export class NetworkChaos {
  /** What was done, in words, in order. */
  readonly story: string[] = [];
  /** Faults that could not be put right, in words. */
  readonly troubles: string[] = [];
  /** Name → what it was made with. */
  readonly services = new Map<string, MadeService>();
  readonly #options: ChaosOptions;
  readonly #random: ReturnType<typeof seededRandom>;
  readonly #networks = new Set<string>();
  readonly #busy = new Set<LabHost>();
  readonly #under = new Set<Promise<void>>();
  #count = 0;

  constructor(options: ChaosOptions) {
    this.#options = options;
    this.#random = seededRandom(options.seed);
  }

  /** Does `count` of them; resolves when every fault is put right. */
  async run(count: number): Promise<void> {
    for (let done = 0; done < count; done += 1) {
      await this.#one();
      await this.#pause(this.#options.gapMs);
    }
    await Promise.all(this.#under);
    await this.#options.lab.script('heal');
  }

  async #one(): Promise<void> {
    const work = this.#pick([
      ...Array<Work>(3).fill(() => this.#createNetwork()),
      () => this.#removeNetwork(),
      ...Array<Work>(4).fill(() => this.#createService()),
      ...Array<Work>(4).fill(() => this.#scaleService()),
      ...Array<Work>(2).fill(() => this.#removeService()),
      ...Array<Work>(3).fill(() => this.#fault('agent killed', (host) => this.#killAgent(host))),
      ...Array<Work>(2).fill(() => this.#fault('engine killed', (host) => this.#killEngine(host))),
      ...Array<Work>(2).fill(() => this.#fault('cut off', (host) => this.#cutOff(host))),
      ...Array<Work>(5).fill(() => this.#stranger()),
    ])!;
    await work();
  }

  // ------------------------------------------------------------ what users do

  async #createNetwork(): Promise<void> {
    if (this.#networks.size >= maxNetworks) return this.#removeNetwork();
    const name = this.#name('net');
    const kind = this.#pick(['plain', 'plain', 'internal', 'ipv6', 'encrypted']);
    const made = await this.#ask(`network ${name} (${kind}) is made`, (client) =>
      client.post('/networks/create', {
        Name: name,
        Driver: 'overlay',
        Internal: kind === 'internal',
        EnableIPv6: kind === 'ipv6',
        Options: kind === 'encrypted' ? { encrypted: '' } : {},
      }),
    );
    if (made) this.#networks.add(name);
  }

  async #removeNetwork(): Promise<void> {
    const used = new Set([...this.services.values()].flatMap(({ networks }) => networks));
    const name = this.#pick([...this.#networks].filter((one) => !used.has(one)));
    if (name === undefined) return this.#stranger();
    // Tasks that are about to end may still be on it: then it stays.
    const isGone = await this.#ask(`network ${name} is removed`, (client) =>
      client.delete(`/networks/${name}`),
    );
    if (isGone) this.#networks.delete(name);
  }

  async #createService(): Promise<void> {
    if (this.#networks.size === 0) return this.#createNetwork();
    if (this.services.size >= maxServices) return this.#scaleService();
    const name = this.#name('svc');
    const networks = [...new Set([this.#pick([...this.#networks])!, this.#pick([...this.#networks])!])];
    const port = this.#random.float() < 0.5 ? firstPort + this.#count : undefined;
    const replicas = 1 + this.#random.integer(maxReplicas);
    const command = `mkdir /www; echo ${name} > /www/index.html; exec httpd -f -p 80 -h /www`;
    const body = {
      Name: name,
      TaskTemplate: {
        ContainerSpec: {
          Image: 'busybox:lab',
          Command: ['sh', '-c', command],
          StopGracePeriod: second,
          StopSignal: 'SIGKILL',
        },
        RestartPolicy: { Condition: 'any', Delay: second / 5 },
        Networks: networks.map((Target) => ({ Target })),
      },
      Mode: { Replicated: { Replicas: replicas } },
      ...(port === undefined
        ? {}
        : {
            EndpointSpec: {
              Ports: [
                { Protocol: 'tcp', TargetPort: 80, PublishedPort: port, PublishMode: 'ingress' as const },
              ],
            },
          }),
    };
    const words = `service ${name} of ${replicas} on ${networks}${port === undefined ? '' : ` by port ${port}`} is made`;
    if (await this.#ask(words, (client) => client.post('/services/create', body))) {
      this.services.set(name, { networks, port });
    }
  }

  async #scaleService(): Promise<void> {
    const name = this.#pick([...this.services.keys()]);
    if (name === undefined) return this.#createService();
    const replicas = this.#random.integer(maxReplicas + 1);
    await this.#ask(`service ${name} is scaled to ${replicas}`, async (client) => {
      const service = await client.get<{ Spec: object; Version: { Index: number } }>(`/services/${name}`);
      const spec = { ...service.Spec, Mode: { Replicated: { Replicas: replicas } } };
      await client.post(`/services/${name}/update`, spec, { version: String(service.Version.Index) });
    });
  }

  async #removeService(): Promise<void> {
    const name = this.#pick([...this.services.keys()]);
    if (name === undefined) return this.#createService();
    if (await this.#ask(`service ${name} is removed`, (client) => client.delete(`/services/${name}`))) {
      this.services.delete(name);
    }
  }

  /** Whether it was done; what a fault keeps from being done is part of the story. */
  async #ask(what: string, request: (client: ApiClient) => Promise<unknown>): Promise<boolean> {
    const calm = this.#options.lab.hosts
      .slice(0, this.#options.managers)
      .filter((host) => !this.#busy.has(host));
    const host = this.#pick(calm);
    if (host === undefined) return false;
    try {
      await request(clientOf(host));
      this.story.push(what);
      return true;
    } catch (error) {
      this.story.push(`${what}: refused on ${host.name}: ${error instanceof Error ? error.message : error}`);
      return false;
    }
  }

  // ------------------------------------------------------------ what goes wrong

  /** Begins a fault on a host that has none, and puts it right after a moment, while other things happen. */
  async #fault(what: string, begin: (host: LabHost) => Promise<Work>): Promise<void> {
    const { lab, managers, lastsMs } = this.#options;
    const isManager = (host: LabHost) => lab.hosts.indexOf(host) < managers;
    const busyManagers = [...this.#busy].filter(isManager).length;
    const mayBe = lab.hosts.filter(
      (host) =>
        !this.#busy.has(host) && (!isManager(host) || busyManagers + 1 <= Math.floor((managers - 1) / 2)),
    );
    const host = this.#under.size < faultsAtATime ? this.#pick(mayBe) : undefined;
    if (host === undefined) return this.#scaleService();
    this.#busy.add(host);
    this.story.push(`${host.name}: ${what}`);
    const undo = await begin(host);
    const lasts = lastsMs * (0.3 + 1.4 * this.#random.float());
    const work = new Promise((resolve) => setTimeout(resolve, lasts))
      .then(undo)
      .then(() => void this.story.push(`${host.name}: ${what}, put right`))
      .catch((error: unknown) => {
        this.troubles.push(`${host.name}: ${what}: ${error instanceof Error ? error.message : error}`);
      })
      .then(() => {
        this.#busy.delete(host);
        this.#under.delete(work);
      });
    this.#under.add(work);
  }

  async #killAgent(host: LabHost): Promise<Work> {
    await host.killShoald();
    return () => host.startShoald();
  }

  async #killEngine(host: LabHost): Promise<Work> {
    await this.#options.lab.script('crash', host.name);
    return async () => void (await this.#options.lab.script('start', host.name));
  }

  async #cutOff(host: LabHost): Promise<Work> {
    await this.#options.lab.script('partition', host.name);
    return async () => void (await this.#options.lab.script('heal', host.name));
  }

  /** Someone who does not know whose things these are. */
  async #stranger(): Promise<void> {
    const host = this.#pick(this.#options.lab.hosts)!;
    const command = this.#pick([
      'iptables -F',
      'iptables -F; iptables -X',
      'nft delete table inet shoal',
      'nft delete table bridge shoal',
      'nft flush chain inet shoal pre',
      'nft flush map inet shoal vips4',
      'nft flush set inet shoal same',
      'nft add rule inet shoal through counter drop',
      'nft flush ruleset',
      'iptables -t nat -F',
      'iptables -t nat -F; iptables -t nat -X',
      'ip link delete shwg0',
      'ip link delete shwg1',
      'for one in $(ip -o link show type vxlan | cut -d: -f2); do ip link delete $one; done',
      'for one in $(ip -o link show type vxlan | cut -d: -f2); do ip link set $one nomaster down; done',
      'for one in $(ip -o link show type vxlan | cut -d: -f2); do bridge fdb flush dev $one; done',
      'for one in $(ip -o link show type wireguard | cut -d: -f2); do ip link delete $one; done',
      'ip route show table local | grep "dev shoal" | grep -v kernel | while read one; do ip route del table local $one; done',
      'ls -d /sys/class/net/shoal* && echo 0 >/proc/sys/net/bridge/bridge-nf-call-iptables',
      'conntrack -F',
    ])!;
    this.story.push(`${host.name}: a stranger's ${command}`);
    // What is not there can't be deleted.
    await host.exec('sh', '-c', command).catch(() => {});
  }

  // ------------------------------------------------------------ chance

  #name(prefix: string): string {
    this.#count += 1;
    return `${prefix}${this.#count}`;
  }

  #pick<T>(list: readonly T[]): T | undefined {
    return list[this.#random.integer(list.length)];
  }

  #pause(averageMs: number): Promise<void> {
    return new Promise((resolve) => setTimeout(resolve, averageMs * (0.3 + 1.4 * this.#random.float())));
  }
}
