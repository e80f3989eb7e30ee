/** Who may talk to whom, over IPv4 and IPv6: a stack of four services across three networks, from every host. */
import assert from 'node:assert/strict';
import type { Service, Task } from '../../proto/docker.ts';
import { clientOf, formCluster, runningTasks } from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

const hostCount = 5;
/** The networks of each service. */
const networksOf: Readonly<Record<string, readonly string[]>> = {
  gate: ['front'],
  web: ['front', 'middle'],
  app: ['middle', 'back'],
  db: ['back'],
};
const services = Object.keys(networksOf);

function mayTalk(from: string, to: string): boolean {
  return networksOf[from]!.some((network) => networksOf[to]!.includes(network));
}

/** A web server in each task that tells the service's name. */
const composeFile = `
services:
${services
  .map(
    (name) => `  ${name}:
    image: busybox:lab
    command: ["sh", "-c", "mkdir /www; echo ${name} > /www/index.html; exec httpd -f -p 80 -h /www"]
    stop_grace_period: 1s
    networks: [${networksOf[name]!.join(', ')}]
    deploy: {mode: global}
`,
  )
  .join('')}
networks:
  front: {enable_ipv6: true}
  middle: {enable_ipv6: true}
  back: {enable_ipv6: true, internal: true}
`;

describe('lab: who may talk to whom', () => {
  let lab: Lab;
  let addresses: Record<string, { virtual: string[]; tasks: string[] }>;

  before(async function () {
    const missing = labMissing();
    if (missing) return this.skip();
    lab = await Lab.up(hostCount, 'shoal-lab-pairs');
    await formCluster(lab, 3);
    const first = lab.host(1);
    await first.shoalReading(composeFile, 'stack', 'deploy', '-c', '-', 'shop');
    for (const name of services) {
      await waitFor(`shop_${name} to run on every host`, 120_000, async () => {
        return (await runningTasks(first, `shop_${name}`)).length === hostCount;
      });
    }
    addresses = await addressesOf(first);
  });

  after(async () => {
    await lab?.down();
  });

  /** What an outsider may have learnt of every service: its virtual addresses and those of its tasks. */
  async function addressesOf(host: LabHost) {
    const client = clientOf(host);
    const found: Record<string, { virtual: string[]; tasks: string[] }> = {};
    const networks = await client.get<{ Id: string; Name: string }[]>('/networks');
    const inStack = new Set(networks.filter(({ Name }) => Name.startsWith('shop_')).map(({ Id }) => Id));
    const bare = (address: string) => address.replace(/\/\d+$/, '');
    for (const name of services) {
      const service = await client.get<Service>(`/services/shop_${name}`);
      const tasks = await client.get<Task[]>('/tasks', {
        filters: JSON.stringify({ service: { [service.ID]: true }, 'desired-state': { running: true } }),
      });
      found[name] = {
        virtual: (service.Endpoint.VirtualIPs ?? [])
          .filter(({ NetworkID }) => inStack.has(NetworkID))
          .map(({ Addr }) => bare(Addr)),
        tasks: tasks.flatMap((task) =>
          (task.NetworksAttachments ?? []).flatMap(({ Addresses }) => Addresses.map(bare)),
        ),
      };
    }
    return found;
  }

  /** Runs `script` in a service's container on `host`. */
  async function inside(host: LabHost, service: string, script: string): Promise<string[]> {
    const filter = ['--filter', `label=com.docker.swarm.service.name=shop_${service}`];
    const { stdout: id } = await host.engine('ps', '-q', ...filter);
    const { stdout } = await host.engine('exec', id.split('\n')[0]!, 'sh', '-c', script);
    return stdout.split('\n').filter(Boolean).sort();
  }

  /** Says `WHAT=ANSWER` of the web server at an address. */
  const ask = `ask() { echo "$2=$(printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 $1 80 2>/dev/null | tail -1)"; };`;

  it('who shares a network, by name: over IPv4 and IPv6, from every host', async () => {
    for (const host of lab.hosts) {
      for (const from of services) {
        const targets = services.filter((to) => mayTalk(from, to));
        const script = targets.flatMap((to) => [
          `a=$(nslookup -type=a ${to} | sed -n 's/^Address: //p' | head -1); ask $a ${to}.v4 &`,
          `b=$(nslookup -type=aaaa ${to} | sed -n 's/^Address: //p' | head -1); case $b in *:*) ask $b ${to}.v6 & ;; *) echo ${to}.v6=noname ;; esac`,
        ]);
        const expected = targets.flatMap((to) => [`${to}.v4=${to}`, `${to}.v6=${to}`]).sort();
        const answers = await inside(host, from, `${ask} ${script.join('\n')}\nwait`);
        assert.deepEqual(answers, expected, `${from} on ${host.name}`);
      }
    }
  });

  it('who shares none: no name, and no way to a virtual address or a task', async () => {
    const asked = lab.hosts.map(async (host) => {
      for (const from of services) {
        const targets = services.filter((to) => !mayTalk(from, to));
        const names = targets.map(
          (to) =>
            `nslookup ${to} >/dev/null 2>&1 && echo ${to} has a name; nslookup tasks.${to} >/dev/null 2>&1 && echo tasks.${to} has a name`,
        );
        const ways = targets.flatMap((to) =>
          [...addresses[to]!.virtual, ...addresses[to]!.tasks].map((one) => `ask ${one} ${to}.${one} &`),
        );
        assert.ok(targets.length === 0 || ways.length >= 2 * hostCount);
        const answers = await inside(host, from, `${ask} ${[...names, ...ways].join('\n')}\nwait`);
        assert.deepEqual(
          answers.filter((line) => !line.endsWith('=')),
          [],
          `${from} on ${host.name}`,
        );
      }
    });
    await Promise.all(asked);
  });

  it('a virtual address answers nobody outside its network, the host included', async () => {
    const [host] = lab.hosts;
    for (const one of addresses.db!.virtual) {
      const url = `http://${one.includes(':') ? `[${one}]` : one}/`;
      await assert.rejects(host!.exec('curl', '-s', '-m', '3', url), one);
    }
  });
});
