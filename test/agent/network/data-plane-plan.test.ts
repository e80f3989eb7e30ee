import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { applyOperations, readActual } from '../../../agent/network/apply.ts';
import { type Desired, nothingDesired, withUpdate } from '../../../agent/network/desired.ts';
import { firewallCommands, forwardChain } from '../../../agent/network/firewall.ts';
import { Kernel } from '../../../agent/network/kernel.ts';
import { linkCommands, linksOf, noLinks } from '../../../agent/network/links.ts';
import { parseRuleset, rulesetCommands } from '../../../agent/network/nftables.ts';
import { type Actual, describeOperation, planDataPlane } from '../../../agent/network/reconcile.ts';
import { hexadecimalOf, rulesetOf } from '../../../agent/network/ruleset.ts';
import { tunnelAddress, tunnelOperations, tunnelsOf } from '../../../agent/network/tunnel.ts';
import { desired, endpoint, here, network, service } from './desired-objects.ts';

const options = { nodeId: here, local: '192.0.2.1' };

const nothingThere: Actual = {
  ruleset: new Map(),
  links: noLinks,
  tunnels: new Map(),
  bridges: new Set(),
  hairpins: new Map(),
  settings: new Map(),
  firewalls: {},
};

/** Two networks, one of them dual-stack and one the ingress; a service with two endpoints, one with none, one by port. */
const sample: Desired = desired(
  [
    network(4097, { isIngress: true }),
    network(4098, { subnets: ['10.60.2.0/24', 'fd00:60:2::/64'], gateways: ['10.60.2.254/24'] }),
  ],
  [
    service('web', {
      networks: [
        { networkId: 'net4098', virtualAddresses: ['10.60.2.2', 'fd00:60:2::2'], aliases: [] },
        { networkId: 'net4097', virtualAddresses: ['10.60.1.2'], aliases: [] },
      ],
      ports: [
        { name: '', protocol: 'tcp', targetPort: 80, publishedPort: 8080 },
        { name: '', protocol: 'udp', targetPort: 53, publishedPort: 5353 },
      ],
      endpoints: [
        endpoint('net4098', '10.60.2.10,fd00:60:2::10', {
          addresses: { net4098: ['10.60.2.10', 'fd00:60:2::10'], net4097: ['10.60.1.10'] },
        }),
        endpoint('net4098', '10.60.2.11', {
          nodeId: 'node-2',
          addresses: { net4098: ['10.60.2.11', 'fd00:60:2::11'], net4097: ['10.60.1.11'] },
        }),
      ],
    }),
    service('empty', {
      networks: [{ networkId: 'net4098', virtualAddresses: ['10.60.2.3'], aliases: [] }],
      ports: [{ name: '', protocol: 'tcp', targetPort: 80, publishedPort: 8081 }],
    }),
  ],
);

describe('the rules of a data plane', () => {
  it('spread a virtual address over the endpoints that are not draining', () => {
    const draining = withEndpoints(sample, (one) => ({ ...one, isDraining: one.nodeId === 'node-2' }));
    const rules = (state: Desired) =>
      rulesetOf(state, options).get('inet shoal')?.chains.get('vip4_4098_idweb')?.rules;
    assert.deepEqual(rules(sample), ['dnat ip to numgen inc mod 2 map { 0 : 10.60.2.10, 1 : 10.60.2.11 }']);
    assert.deepEqual(rules(draining), ['dnat ip to 10.60.2.10']);
  });

  it('give each endpoint its share where weights differ', () => {
    const weighted = (weights: readonly (number | undefined)[]) => {
      let at = 0;
      const state = withEndpoints(sample, (one) => {
        const weight = weights[at++ % weights.length];
        return weight === undefined ? one : { ...one, weight };
      });
      const chains = rulesetOf(state, options).get('inet shoal')?.chains;
      return [chains?.get('vip4_4098_idweb')?.rules, chains?.get('port_tcp_8080')?.rules];
    };
    assert.deepEqual(weighted([9, 1]), [
      ['dnat ip to numgen random mod 10 map { 0-8 : 10.60.2.10, 9 : 10.60.2.11 }'],
      [
        'meta nfproto 2 meta l4proto 6 dnat ip to numgen random mod 10 map { 0-8 : 10.60.1.10 . 80, 9 : 10.60.1.11 . 80 }',
      ],
    ]);
    assert.deepEqual(weighted([undefined, 2])[0], [
      'dnat ip to numgen random mod 3 map { 0 : 10.60.2.10, 1-2 : 10.60.2.11 }',
    ]);
    assert.deepEqual(weighted([7, 7]), weighted([undefined, undefined]), 'equal ones take turns');
  });

  it('refuse a virtual address and a port that nobody stands behind', () => {
    const table = rulesetOf(sample, options).get('inet shoal');
    const collection = (name: string) => [...(table?.collections.get(name)?.elements.keys() ?? [])];
    assert.deepEqual(collection('all4'), ['10.60.2.2', '10.60.1.2', '10.60.2.3']);
    assert.deepEqual(collection('vips4'), ['"shoal4098" . 10.60.2.2', '"shoal4097" . 10.60.1.2']);
    const refused = collection('published').filter((key) => !collection('ports').includes(key));
    assert.deepEqual(refused, ['6 . 8081']);
  });

  it('with shoal.ingress=local, send a port to the own tasks only', () => {
    const local = {
      ...sample,
      services: sample.services.map((one) => ({ ...one, options: { 'shoal.ingress': 'local' } })),
    };
    const rules = rulesetOf(local, options).get('inet shoal')?.chains.get('port_tcp_8080')?.rules;
    assert.deepEqual(rules, ['meta nfproto 2 meta l4proto 6 dnat ip to 10.60.1.10:80']);
  });

  it('with shoal.ingress=proxy-protocol, leave a port to the proxy, but for UDP', () => {
    const udp = { name: '', protocol: 'udp' as const, targetPort: 53, publishedPort: 5353 };
    const told = {
      ...sample,
      services: sample.services.map((one) => ({
        ...one,
        ports: [...one.ports, udp],
        options: { 'shoal.ingress': 'proxy-protocol' },
      })),
    };
    const table = rulesetOf(told, options).get('inet shoal');
    const keys = (name: string) => [...(table?.collections.get(name)?.elements.keys() ?? [])];
    assert.deepEqual(new Set([...keys('ports'), ...keys('published')]), new Set(['17 . 5353']));
    assert.equal(table?.chains.get('port_tcp_8080'), undefined);
  });

  it('name an IPv6 address as the number that it is', () => {
    assert.equal(hexadecimalOf('fd00:60:2::10'), '0xfd000060000200000000000000000010');
    assert.equal(hexadecimalOf('::1'), '0x1');
  });

  it('change by what differs, added before and removed after what refers to it', () => {
    const before = rulesetOf(sample, options);
    const after = rulesetOf({ ...sample, services: sample.services.slice(1) }, options);
    const commands = rulesetCommands(before, after);
    assert.ok(
      commands.indexOf(
        'delete element inet shoal vips4 { "shoal4098" . 10.60.2.2, "shoal4097" . 10.60.1.2 }',
      ) >= 0,
      commands.join('\n'),
    );
    assert.ok(
      commands.indexOf('delete chain inet shoal vip4_4098_idweb') >
        commands.indexOf(
          'delete element inet shoal vips4 { "shoal4098" . 10.60.2.2, "shoal4097" . 10.60.1.2 }',
        ),
    );
    assert.deepEqual(rulesetCommands(after, after), []);
  });
});

describe('updates of the managers', () => {
  it('replace what they name, and everything when complete', () => {
    const first = withUpdate(nothingDesired, {
      revision: '7',
      complete: true,
      networks: [
        { id: 'a', vxlan_id: 4097 },
        { id: 'b', vxlan_id: 4098 },
      ],
      services: [{ id: 's', endpoints: [{ task_id: 't', addresses: { a: '10.0.0.1,fd00::1' } }] }],
    });
    assert.deepEqual(first.services[0]?.endpoints[0]?.addresses, { a: ['10.0.0.1', 'fd00::1'] });
    const second = withUpdate(first, {
      revision: '8',
      removed_networks: ['a'],
      networks: [{ id: 'b', vxlan_id: 5 }],
    });
    assert.deepEqual(
      second.networks.map(({ id, vxlanId }) => [id, vxlanId]),
      [['b', 5]],
    );
    assert.equal(second.services, first.services);
    assert.deepEqual(withUpdate(second, { revision: '9', complete: true }).services, []);
  });
});

describe('the firewall of the engine', () => {
  const rules = [
    `-A ${forwardChain} -o shoal+ -m conntrack --ctstate DNAT -j ACCEPT`,
    `-A ${forwardChain} -i shoal+ -m conntrack --ctstate DNAT -j ACCEPT`,
  ];
  const whole = [
    '-P FORWARD DROP',
    `-N ${forwardChain}`,
    `-A FORWARD -j ${forwardChain}`,
    '-A FORWARD -j DOCKER',
    ...rules,
    `-A ${forwardChain} -i shoal4097 -o shoal4097 -j ACCEPT`,
  ];
  const bridges = ['shoal4097'];

  it('is left alone while our chain is whole and first, and mended else', () => {
    assert.deepEqual(firewallCommands(whole.join('\n'), bridges), []);
    assert.ok(firewallCommands('-P FORWARD DROP', bridges).includes(`-N ${forwardChain}`));
    const second = whole.map((line) => (line === '-A FORWARD -j DOCKER' ? '' : line));
    second.splice(1, 0, '-A FORWARD -j DOCKER');
    assert.ok(firewallCommands(second.join('\n'), bridges).includes(`-D FORWARD -j ${forwardChain}`));
  });

  it('loses our chain when there is no network any more', () => {
    assert.deepEqual(firewallCommands(whole.join('\n'), []), [
      '*filter',
      `-D FORWARD -j ${forwardChain}`,
      `-F ${forwardChain}`,
      `-X ${forwardChain}`,
      'COMMIT',
    ]);
    assert.deepEqual(firewallCommands('-P FORWARD ACCEPT', []), []);
  });

  it('is left without a chain while nothing in it refuses anything: iptables would make a table that stays', () => {
    assert.deepEqual(firewallCommands('-P INPUT ACCEPT\n-P FORWARD ACCEPT\n-P OUTPUT ACCEPT', bridges), []);
    const alone = whole.filter((line) => line !== '-A FORWARD -j DOCKER').slice(1);
    const commands = firewallCommands(['-P FORWARD ACCEPT', ...alone].join('\n'), bridges);
    assert.ok(commands.includes(`-X ${forwardChain}`), commands.join());
    assert.ok(firewallCommands('-P FORWARD ACCEPT\n-A FORWARD -j DROP', bridges).length > 0);
  });
});

describe('encrypted networks', () => {
  const keys: readonly string[] = [1, 2, 3].map((byte) => Buffer.alloc(32, byte).toString('base64'));
  const state = (announcement: string, isEncrypted = true): Desired =>
    desired(
      [
        network(4098, {
          isEncrypted,
          peers: [
            {
              nodeId: 'node-2',
              hostname: 'h2',
              underlay: '192.0.2.2',
              gateways: [],
              wireguardPublicKey: announcement,
            },
          ],
        }),
      ],
      [],
    );
  const own = [{ place: 0, key: keys[0]! }] as const;
  const vxlanOf = (given: Desired, withKeys = true) =>
    linksOf(given, new Set(['shoal4098']), {
      local: '192.0.2.1',
      ...(withKeys ? { keys: own } : {}),
    }).vxlans.get('vx4098');

  it('have no way to other hosts without a key, own or of the peer', () => {
    assert.equal(vxlanOf(state(`0:${keys[1]}`), false), undefined);
    assert.deepEqual(vxlanOf(state(''))?.peers, []);
    assert.deepEqual(vxlanOf(state('not a key'))?.peers, []);
  });

  it('are bound to the key in use and send to the peer’s, and both of the peer’s are heard', () => {
    const given = state(`1:${keys[2]},0:${keys[1]}`);
    const vxlan = vxlanOf(given);
    assert.equal(vxlan?.device, 'shwg0');
    assert.equal(vxlan?.local, tunnelAddress(keys[0]!));
    assert.deepEqual(vxlan?.peers, [tunnelAddress(keys[2]!)]);
    const tunnel = tunnelsOf(given, own).get('shwg0');
    assert.deepEqual(
      [...(tunnel?.peers ?? [])].map(([key, { endpoint }]) => [key, endpoint]),
      [
        [keys[2], '192.0.2.2:51841'],
        [keys[1], '192.0.2.2:51840'],
      ],
    );
    assert.deepEqual(tunnelOperations(new Map([['shwg0', tunnel!]]), tunnelsOf(given, own)), []);
    assert.equal(tunnelsOf(state('', false), own).size, 0);
  });

  it('are dropped by the rules outside of a tunnel, before anything is made', () => {
    const elements = rulesetOf(state(''), options).get('inet shoal')?.collections.get('secret')?.elements;
    assert.deepEqual([...(elements?.keys() ?? [])], ['0x1002']);
    assert.equal(planDataPlane(state(''), nothingThere, { ...options, keys: own })[0]?.kind, 'nft');
  });

  it('go on by the keys known before when a new leader does not know them yet', () => {
    const peers = (key: string) => [
      { id: 'a', encrypted: true, peers: [{ node_id: 'node-2', wireguard_public_key: key }] },
    ];
    const first = withUpdate(nothingDesired, { complete: true, networks: peers(`0:${keys[1]}`) });
    const second = withUpdate(first, { complete: true, networks: peers('') });
    assert.equal(second.networks[0]?.peers[0]?.wireguardPublicKey, `0:${keys[1]}`);
  });

  it('forget what was learned of an address that is no peer’s any more', () => {
    const before = linksOf(state(`0:${keys[1]}`), new Set(['shoal4098']), { local: '', keys: own });
    const after = linksOf(state(`1:${keys[2]}`), new Set(['shoal4098']), { local: '', keys: own });
    const entry = `02:00:00:00:00:01 dev vx4098 dst ${tunnelAddress(keys[1]!)}`;
    const { bridge } = linkCommands({ ...before, learned: new Set([entry]) }, after);
    assert.ok(bridge.includes(`fdb del ${entry} self`), bridge.join());
  });
});

describe('a plan in a kernel', () => {
  let host: ChildProcess;
  let kernel: Kernel;

  before(async function () {
    if (process.getuid?.() !== 0) return this.skip();
    // A network namespace of its own, which ends with its only process.
    host = spawn('unshare', ['--net', 'sh', '-c', 'echo ready; read -r _'], {
      stdio: ['pipe', 'pipe', 'ignore'],
    });
    await once(host.stdout!, 'data');
    kernel = new Kernel({ prefix: ['nsenter', `--net=/proc/${host.pid}/ns/net`] });
    await kernel.ip([
      'link add eth0 type veth peer name cable',
      'address add 192.0.2.1/24 dev eth0',
      'link set eth0 up',
      'link add shoal4097 type bridge',
      'link add shoal4098 type bridge',
      'address add 10.60.1.254/24 dev shoal4097',
      'address add 10.60.2.254/24 dev shoal4098',
      'link set shoal4097 up',
      'link set shoal4098 up',
    ]);
    // As the engine has it: what no rule lets through goes nowhere.
    await kernel.run('iptables', ['-P', 'FORWARD', 'DROP']);
    await kernel.nft(['add table ip other', 'add chain ip other mine']);
  });

  after(async () => {
    if (host === undefined) return;
    host.stdin?.end();
    await once(host, 'exit');
  });

  async function reconcile(state: Desired): Promise<string[]> {
    const operations = planDataPlane(state, await readActual(kernel, state), options);
    await applyOperations(kernel, operations);
    return operations.flatMap(describeOperation);
  }

  async function rest(state: Desired): Promise<string[]> {
    return planDataPlane(state, await readActual(kernel, state), options).flatMap(describeOperation);
  }

  it('leads to what was desired, at once and wholly', async () => {
    assert.notDeepEqual(await reconcile(sample), []);
    assert.deepEqual(await rest(sample), []);
  });

  it('follows each change', async () => {
    const draining = withEndpoints(sample, (one) => ({ ...one, isDraining: one.nodeId === 'node-2' }));
    const fewer = { ...sample, services: sample.services.slice(0, 1), networks: sample.networks.slice(0, 1) };
    const otherPeers = {
      ...sample,
      networks: sample.networks.map((one) => ({ ...one, peers: one.peers.slice(0, 1), mtu: 1370 })),
    };
    for (const state of [draining, sample, fewer, otherPeers, sample]) {
      await reconcile(state);
      assert.deepEqual(await rest(state), []);
    }
  });

  it('translates what stays on its bridge where the kernel lacks br_netfilter, and else does not', async () => {
    const lacking = { ...options, lacksBridgeFilter: true };
    const plan = async () => planDataPlane(sample, await readActual(kernel, sample), lacking);
    await applyOperations(kernel, await plan());
    assert.deepEqual(await plan(), []);
    const chain = () => kernel.run('nft', ['list', 'chain', 'inet', 'shoal', 'post']);
    assert.match(await chain(), /iifname \. oifname @same ct status dnat masquerade/);
    await reconcile(sample);
    assert.ok(!(await chain()).includes('@same'));
  });

  it('heals what was taken away or changed by others', async () => {
    for (const damage of [
      () => kernel.nft(['flush chain inet shoal pre']),
      () => kernel.nft(['delete element inet shoal vips4 { "shoal4098" . 10.60.2.2 }']),
      () => kernel.nft(['add rule inet shoal in drop']),
      () => kernel.nft(['delete table bridge shoal']),
      () => kernel.ip(['link delete vx4097']),
      () => kernel.ip(['link set vx4098 nomaster', 'route del local 10.60.2.2 dev shoal4098']),
      () => kernel.bridge(['fdb del 00:00:00:00:00:00 dev vx4098 dst 192.0.2.3 self permanent']),
      () => kernel.set(new Map([['net/ipv4/conf/shoal4097/route_localnet', '0']])),
      () => kernel.run('iptables', ['-F']),
    ]) {
      await damage();
      assert.notDeepEqual(await reconcile(sample), [], String(damage));
      assert.deepEqual(await rest(sample), [], String(damage));
    }
  });

  it('leaves nothing of ours, and what is not ours', async () => {
    await reconcile(nothingDesired);
    assert.deepEqual(await rest(nothingDesired), []);
    const listing = await kernel.run('nft', ['list', 'ruleset']);
    assert.ok(!listing.includes('shoal'), listing);
    assert.ok(listing.includes('table ip other'));
    assert.ok(!(await kernel.run('ip', ['link'])).includes('vx40'));
    assert.deepEqual(parseRuleset(listing), new Map());
  });
});

function withEndpoints(
  state: Desired,
  change: (
    one: Desired['services'][number]['endpoints'][number],
  ) => Desired['services'][number]['endpoints'][number],
): Desired {
  return {
    ...state,
    services: state.services.map((one) => ({ ...one, endpoints: one.endpoints.map(change) })),
  };
}
