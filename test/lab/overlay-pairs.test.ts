/**
 * Who may talk to whom, over IPv4 and IPv6, TCP and UDP: a stack of four services across three networks. From every task
 * on every host to every task of every other service: by the name and its virtual address, by the tasks' own names and
 * by an alias; and who shares no network has none of these.
 */
import assert from 'node:assert/strict';
import type { Service, Task } from '../../proto/docker.ts';
import { clientOf, formCluster, runningTasks } from './cluster.ts';
import { type Answered, type Asked, ask, enterTask, serve } from './exchange.ts';
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
const families = [4, 6] as const;
const protocols = ['tcp', 'udp'] as const;

function mayTalk(from: string, to: string): boolean {
  return networksOf[from]!.some((network) => networksOf[to]!.includes(network));
}

const aliasOf = (service: string) => `the-${service}`;

const composeFile = `
services:
${services
  .map(
    (name) => `  ${name}:
    image: busybox:lab
    command: ["sleep", "1000000"]
    stop_grace_period: 1s
    networks:
${networksOf[name]!.map((network) => `      ${network}: {aliases: [${aliasOf(name)}]}`).join('\n')}
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
  /** By host and service: what enters the task's network. */
  const enters = new Map<string, readonly string[]>();

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
    for (const host of lab.hosts) {
      for (const name of services) {
        const enter = await enterTask(host, `shop_${name}`);
        enters.set(`${host.name} ${name}`, enter);
        await serve(lab, enter, serverOf(host, name));
      }
    }
    addresses = await addressesOf(first);
  });

  after(async () => {
    await lab?.down();
  });

  const serverOf = (host: LabHost, service: string) => `${service}@${host.name}`;
  const allServersOf = (service: string) => lab.hosts.map((host) => serverOf(host, service));

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

  /** Asks from every task of every host; calls `check` with who asked, what, and what came of it. */
  async function fromEverywhere(
    questions: (from: string) => readonly Asked[],
    check: (from: string, asked: Asked, answered: Answered) => void,
  ): Promise<void> {
    const all = lab.hosts.map(async (host) => {
      // One after the other: rules are a host's own, and whoever asks there at the same time takes turns with the others.
      for (const from of services) {
        const asked = questions(from);
        const answers = await ask(lab, enters.get(`${host.name} ${from}`)!, asked);
        assert.equal(answers.length, asked.length);
        for (const [at, answered] of answers.entries()) check(serverOf(host, from), asked[at]!, answered);
      }
    });
    await Promise.all(all);
  }

  const shared = (from: string) => services.filter((to) => to !== from && mayTalk(from, to));

  for (const protocol of protocols) {
    it(`who shares a network: every task by the name’s virtual address, over ${protocol}`, async () => {
      let checked = 0;
      await fromEverywhere(
        (from) =>
          shared(from).flatMap((to) =>
            families.flatMap((family) =>
              [to, `shop_${to}`, aliasOf(to)].map((name) => ({
                ...{ to: name, family, protocol, servers: hostCount },
              })),
            ),
          ),
        (from, { to, family }, { addresses: found, servers, errors }) => {
          const service = services.find((name) => to.endsWith(name))!;
          const what = `${from} to ${to}, IPv${family}: ${JSON.stringify({ found, servers, errors })}`;
          assert.deepEqual(errors, [], what);
          // One virtual address for each network that both are on.
          assert.equal(found.length, 1, what);
          assert.ok(addresses[service]!.virtual.includes(found[0]!), what);
          assert.deepEqual(servers[found[0]!], allServersOf(service), what);
          checked += 1;
        },
      );
      assert.equal(checked, hostCount * 6 * families.length * 3);
    });

    it(`who shares a network: every task by its own name and address, over ${protocol}`, async () => {
      let checked = 0;
      await fromEverywhere(
        (from) =>
          shared(from).flatMap((to) => families.map((family) => ({ to: `tasks.${to}`, family, protocol }))),
        (from, { to, family }, { addresses: found, servers, errors }) => {
          const service = to.slice('tasks.'.length);
          const what = `${from} to ${to}, IPv${family}: ${JSON.stringify({ found, servers, errors })}`;
          assert.deepEqual(errors, [], what);
          assert.equal(found.length, hostCount, what);
          assert.deepEqual(Object.values(servers).flat().sort(), allServersOf(service), what);
          checked += 1;
        },
      );
      assert.equal(checked, hostCount * 6 * families.length);
    });
  }

  it('who shares none: no name of any kind', async () => {
    await fromEverywhere(
      (from) =>
        services
          .filter((to) => !mayTalk(from, to))
          .flatMap((to) =>
            families.flatMap((family) =>
              [to, `shop_${to}`, aliasOf(to), `tasks.${to}`].map((name) => ({
                to: name,
                family,
                servers: 0,
              })),
            ),
          ),
      (from, { to }, { addresses: found, errors }) => {
        assert.deepEqual(found, [], `${from} knows ${to}`);
        // The lab has nobody to ask for foreign names.
        assert.ok(['ENOTFOUND', 'ESERVFAIL'].includes(errors.join()), `${from} asks for ${to}: ${errors}`);
      },
    );
  });

  it('who shares none: no way to a virtual address or a task', async () => {
    for (const { virtual, tasks } of Object.values(addresses)) {
      assert.ok(virtual.length >= 2 && tasks.length >= 2 * hostCount);
    }
    await fromEverywhere(
      (from) =>
        services
          .filter((to) => !mayTalk(from, to))
          .flatMap((to) =>
            [...addresses[to]!.virtual, ...addresses[to]!.tasks].flatMap((one) =>
              protocols.map((protocol) => ({ to: one, protocol })),
            ),
          ),
      (from, { to, protocol }, { servers }) => {
        assert.deepEqual(Object.values(servers).flat(), [], `${from} reaches ${to} over ${protocol}`);
      },
    );
  });

  it('a virtual address answers nobody outside its network, the host included', async () => {
    const asked = addresses.db!.virtual.flatMap((to) => protocols.map((protocol) => ({ to, protocol })));
    for (const answered of await ask(lab, ['exec', lab.host(1).name], asked)) {
      assert.deepEqual(Object.values(answered.servers).flat(), []);
    }
  });
});
