import assert from 'node:assert/strict';
import fc from 'fast-check';
import { arrivalAt } from '../../../agent/network/arrival.ts';
import type { Desired, DesiredNetwork } from '../../../agent/network/desired.ts';
import { linksOf } from '../../../agent/network/links.ts';
import { type Actual, planDataPlane, settingsOf } from '../../../agent/network/reconcile.ts';
import { type Ruleset, rulesetOf, type Table } from '../../../agent/network/ruleset.ts';
import { type Connection, type Sight, type Trace, traceFrom } from '../../../agent/network/trace.ts';
import { tunnelsOf } from '../../../agent/network/tunnel.ts';
import { desired, endpoint, here, network, service } from './desired-objects.ts';

const keyOf = (byte: number) => Buffer.alloc(32, byte).toString('base64');
const options = { nodeId: here, local: '192.0.2.1', keys: [{ place: 0 as const, key: keyOf(1) }] };

/** A kernel that holds `state` wholly. */
function held(state: Desired): Sight & { actual: { -readonly [K in keyof Actual]: Actual[K] } } {
  const bridges = new Set(state.networks.map(({ vxlanId }) => `shoal${vxlanId}`));
  const actual = {
    ruleset: rulesetOf(state, options),
    links: linksOf(state, bridges, options),
    tunnels: tunnelsOf(state, options.keys),
    bridges,
    hairpins: new Map<string, boolean>(),
    settings: settingsOf(state, bridges),
    firewalls: {},
  };
  assert.deepEqual(planDataPlane(state, actual, options), []);
  return { desired: state, actual, options, proxied: new Map() };
}

const peersWithKeys = network(1).peers.map((peer, at) => ({
  ...peer,
  wireguardPublicKey: `0:${keyOf(at + 2)}`,
}));

/** `web` behind a virtual address with a task here and one on node 2, `db` without one on node 2, on each kind of network. */
function state(fields: Partial<DesiredNetwork> = {}): Desired {
  const front = network(4097, {
    subnets: ['10.60.1.0/24', 'fd00:60:1::/64'],
    peers: peersWithKeys,
    ...fields,
  });
  const net = 'net4097';
  const there = { nodeId: 'node-2', hostname: 'h2' };
  return desired(
    [front, network(4098)],
    [
      service('web', {
        networks: [{ networkId: net, virtualAddresses: ['10.60.1.2', 'fd00:60:1::2'], aliases: ['www'] }],
        endpoints: [
          endpoint(net, '10.60.1.10,fd00:60:1::10', { taskId: 'w1', name: 'web.1' }),
          endpoint(net, '10.60.1.11,fd00:60:1::11', { taskId: 'w2', name: 'web.2', slot: 2, ...there }),
        ],
      }),
      service('db', {
        networks: [{ networkId: net, virtualAddresses: [], aliases: [] }],
        endpoints: [endpoint(net, '10.60.1.20', { taskId: 'd1', name: 'db.1', ...there })],
      }),
      service('idle', { networks: [{ networkId: net, virtualAddresses: ['10.60.1.3'], aliases: [] }] }),
      service('other', {
        networks: [{ networkId: 'net4098', virtualAddresses: ['10.60.2.2'], aliases: [] }],
        endpoints: [endpoint('net4098', '10.60.2.10')],
      }),
    ],
  );
}

function asks(name: string, fields: Partial<Connection> = {}): Connection {
  return {
    addresses: new Map([['net4097', ['10.60.1.30', 'fd00:60:1::30']]]),
    name,
    isIpv6: false,
    ...fields,
  };
}

/** All of a trace's words, in order; what breaks begins with ✘. */
function wordsOf({ steps, ways }: Trace): string[] {
  const all = [
    ...steps,
    ...ways.flatMap((way) => [...way.steps, ...way.targets.flatMap((one) => one.steps)]),
  ];
  return all.map(({ text, breaks }) => `${breaks ? '✘ ' : ''}${text}`);
}

const inet = 'inet shoal';
function withTable(ruleset: Ruleset, change: (table: Table) => Partial<Table>): Ruleset {
  const table = ruleset.get(inet)!;
  return new Map([...ruleset, [inet, { ...table, ...change(table) }]]);
}
const without = <V>(map: ReadonlyMap<string, V>, key: string) =>
  new Map([...map].filter(([one]) => one !== key));

describe('a trace', () => {
  it('follows a virtual address to each of its tasks, here and elsewhere', () => {
    const trace = traceFrom(asks('web'), held(state()));
    assert.deepEqual(wordsOf(trace), [
      'the name web is 10.60.1.2, the virtual address of service web on network network-4097',
      'nftables sends it on to 2 tasks, to each in turn (chain vip4_4097_idweb)',
      'stays on this node, on bridge shoal4097',
      'by vx4097 to h2 (192.0.2.2), UDP port 4789',
    ]);
    assert.deepEqual(
      trace.ways[0]?.targets.map(({ taskId, nodeId, address }) => [taskId, nodeId, address]),
      [
        ['w1', here, '10.60.1.10'],
        ['w2', 'node-2', '10.60.1.11'],
      ],
    );
  });

  it('follows aliases, tasks’ own names, IPv6 and encrypted networks', () => {
    const sight = held(state());
    const endsOf = (trace: Trace) => trace.ways.flatMap(({ targets }) => targets.map(({ taskId }) => taskId));
    assert.deepEqual(endsOf(traceFrom(asks('www'), sight)), ['w1', 'w2']);
    assert.deepEqual(endsOf(traceFrom(asks('web.2'), sight)), ['w2']);
    assert.deepEqual(endsOf(traceFrom(asks('db'), sight)), ['d1']);
    const six = traceFrom(asks('web', { isIpv6: true }), sight);
    assert.deepEqual(
      six.ways.map(({ address }) => address),
      ['fd00:60:1::2'],
    );
    assert.deepEqual(endsOf(six), ['w1', 'w2']);
    const secret = traceFrom(asks('db'), held(state({ isEncrypted: true })));
    assert.deepEqual(wordsOf(secret).at(-1), 'by vx4097 in WireGuard (shwg0) to h2 (192.0.2.2)');
  });

  it('says that a task reaches itself', () => {
    const self = asks('web', { addresses: new Map([['net4097', ['10.60.1.10']]]) });
    assert.ok(wordsOf(traceFrom(self, held(state()))).includes('it is the asking task itself'));
  });

  it('breaks at the name when there is none for the task', () => {
    const sight = held(state());
    const last = (connection: Connection) => wordsOf(traceFrom(connection, sight)).at(-1) ?? '';
    assert.match(
      last(asks('other')),
      /^✘ no service, alias or task on the task’s networks has the name other/,
    );
    assert.match(last(asks('db', { isIpv6: true })), /^✘ the name db has no IPv6 address/);
    assert.match(
      last(asks('web', { addresses: new Map([['gone', ['10.9.9.9']]]) })),
      /^✘ the managers have told/,
    );
  });

  const breaks: [string, string, RegExp, (actual: Actual) => Partial<Actual>, Partial<DesiredNetwork>?][] = [
    ['nobody stands behind it', 'idle', /^✘ service idle has no healthy task .* refused$/, () => ({})],
    ['the bridge is gone', 'web', /^✘ the bridge shoal4097 .* is not there$/, () => ({ bridges: new Set() })],
    [
      'bridges pass no rules',
      'web',
      /^✘ packets on bridges .* net\.bridge\.bridge-nf-call-iptables is 0$/,
      ({ settings }) => ({ settings: new Map([...settings, ['net/bridge/bridge-nf-call-iptables', '0']]) }),
    ],
    [
      'nobody answers for the address',
      'web',
      /^✘ this node does not answer for 10\.60\.1\.2 on bridge shoal4097$/,
      ({ links }) => ({ links: { ...links, routes: new Set() } }),
    ],
    [
      'the chain that asks was flushed',
      'web',
      /^✘ the rules for virtual addresses do not stand/,
      ({ ruleset }) => ({
        ruleset: withTable(ruleset, ({ chains }) => ({
          chains: new Map([...chains, ['pre', { hook: '', rules: [] }]]),
        })),
      }),
    ],
    [
      'the tables are gone',
      'web',
      /^✘ the rules for virtual addresses do not stand/,
      () => ({ ruleset: new Map() }),
    ],
    [
      'the address has no rule',
      'web',
      /^✘ no rule in the kernel sends 10\.60\.1\.2 on$/,
      ({ ruleset }) => ({
        ruleset: withTable(ruleset, ({ collections }) => ({
          collections: new Map([
            ...collections,
            ['vips4', { ...collections.get('vips4')!, elements: new Map() }],
          ]),
        })),
      }),
    ],
    [
      'the chain is empty',
      'web',
      /^✘ chain vip4_4097_idweb of table inet shoal is empty$/,
      ({ ruleset }) => ({
        ruleset: withTable(ruleset, ({ chains }) => ({
          chains: new Map([...chains, ['vip4_4097_idweb', { hook: '', rules: [] }]]),
        })),
      }),
    ],
    [
      'the rule is old',
      'web',
      /^✘ the managers told this node of no task with 10\.60\.1\.99/,
      ({ ruleset }) => ({
        ruleset: withTable(ruleset, ({ chains }) => ({
          chains: new Map([...chains, ['vip4_4097_idweb', { hook: '', rules: ['dnat ip to 10.60.1.99'] }]]),
        })),
      }),
    ],
    [
      'the interface is gone',
      'db',
      /^✘ the interface vx4097 to other hosts is not there$/,
      ({ links }) => ({ links: { ...links, vxlans: without(links.vxlans, 'vx4097') } }),
    ],
    [
      'the interface is down',
      'db',
      /^✘ the interface vx4097 is down, or no port of bridge shoal4097$/,
      ({ links }) => ({
        links: { ...links, vxlans: new Map([['vx4097', { ...links.vxlans.get('vx4097')!, bridge: '' }]]) },
      }),
    ],
    [
      'the other host is no peer',
      'db',
      /^✘ the interface vx4097 has no way to h2 \(192\.0\.2\.2\)$/,
      ({ links }) => ({
        links: { ...links, vxlans: new Map([['vx4097', { ...links.vxlans.get('vx4097')!, peers: [] }]]) },
      }),
    ],
    [
      'the bridge lets nothing pass',
      'db',
      /^✘ no rule lets packets pass on bridge shoal4097$/,
      ({ ruleset }) => ({
        ruleset: withTable(ruleset, ({ collections }) => ({
          collections: new Map([
            ...collections,
            ['same', { ...collections.get('same')!, elements: new Map() }],
          ]),
        })),
      }),
    ],
    [
      'the tunnel is gone',
      'db',
      /^✘ WireGuard \(shwg0\) does not know the key of h2/,
      () => ({ tunnels: new Map() }),
      { isEncrypted: true },
    ],
    [
      'the other host’s key is not known',
      'db',
      /^✘ the key of h2 \(192\.0\.2\.2\) is not known here$/,
      () => ({}),
      { isEncrypted: true, peers: network(1).peers },
    ],
    [
      'the managers know of no way',
      'db',
      /^✘ the managers told this node of no way to node node-2/,
      () => ({}),
      { peers: [] },
    ],
  ];
  for (const [title, name, expected, change, fields] of breaks) {
    it(`says where it breaks: ${title}`, () => {
      const sight = held(state(fields));
      const trace = traceFrom(asks(name), { ...sight, actual: { ...sight.actual, ...change(sight.actual) } });
      assert.match(wordsOf(trace).find((text) => text.startsWith('✘')) ?? 'nothing broke', expected);
    });
  }

  it('says when the kernel is not as it should be, though the connection goes', () => {
    const sight = held(state());
    const links = {
      ...sight.actual.links,
      routes: new Set([...sight.actual.links.routes, '10.9.9.9 dev shoal4098']),
    };
    const [first] = wordsOf(traceFrom(asks('web'), { ...sight, actual: { ...sight.actual, links } }));
    assert.match(first ?? '', /^the kernel is not as the managers want it/);
  });

  it('ends at each task that takes connections and at no other, in a kernel as it should be', () => {
    const one = fc.record({ isHere: fc.boolean(), isDraining: fc.boolean() });
    fc.assert(
      fc.property(fc.array(one, { maxLength: 12 }), fc.boolean(), (tasks, isVirtual) => {
        const endpoints = tasks.map(({ isHere, isDraining }, at) =>
          endpoint('net4097', `10.60.1.${100 + at}`, {
            taskId: `t${at}`,
            name: `app.${at}`,
            nodeId: isHere ? here : 'node-2',
            isDraining,
          }),
        );
        const networks = [
          { networkId: 'net4097', virtualAddresses: isVirtual ? ['10.60.1.2'] : [], aliases: [] },
        ];
        const trace = traceFrom(
          asks('app'),
          held(desired([network(4097)], [service('app', { networks, endpoints })])),
        );
        const ended = trace.ways.flatMap(({ targets }) =>
          targets
            .filter(({ steps }) => !steps.some(({ breaks: isEnd }) => isEnd))
            .map(({ taskId }) => taskId),
        );
        const serving = endpoints.filter(({ isDraining }) => !isDraining).map(({ taskId }) => taskId);
        assert.deepEqual(ended.sort(), serving.sort());
      }),
    );
  });
});

describe('an arrival', () => {
  const files = new Map([
    [
      'tcp',
      '  sl  local_address\n   0: 0B00007F:9C41 00000000:0000 0A 0\n   1: 00000000:0050 00000000:0000 0A 0\n   2: 0100007F:1F90 00000000:0000 0A 0\n   3: 0A013C0A:0051 00000000:0000 0A 0\n   4: 0A013C0A:0052 0B013C0A:0050 01 0\n',
    ],
    [
      'tcp6',
      '   0: 00000000000000000000000000000000:0BB8 00000000000000000000000000000000:0000 0A 0\n   1: 000000000000000000000000010000A0:0BB9 0:0000 0A 0\n',
    ],
    ['udp', '   0: 00000000:0035 00000000:0000 07 0\n'],
    ['udp6', ''],
    ['fib_trie', 'Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.60.1.10\n        /32 host LOCAL\n'],
    ['if_inet6', 'fd000060000100000000000000000010 02 40 00 80     eth0\n'],
  ]);
  const at = (port: number, fields: Partial<Parameters<typeof arrivalAt>[0]> = {}) => ({
    ...{
      fromNodeId: 'node-2',
      networkId: 'net4097',
      address: '10.60.1.10',
      port,
      protocol: 'tcp' as const,
      files,
    },
    ...fields,
  });
  const lastOf = (arrival: ReturnType<typeof at>, sight: Sight = held(state())) => {
    const { text, breaks } = arrivalAt(arrival, sight).at(-1)!;
    return `${breaks ? '✘ ' : ''}${text}`;
  };

  it('is taken by a program that listens on the address, on all, or in IPv6 on all', () => {
    for (const port of [80, 81, 3000])
      assert.equal(lastOf(at(port)), `a program of the task listens on port ${port}/tcp`);
    assert.equal(lastOf(at(53, { protocol: 'udp' })), 'a program of the task listens on port 53/udp');
    assert.equal(
      lastOf(at(3000, { address: 'fd00:60:1::10' })),
      'a program of the task listens on port 3000/tcp',
    );
    assert.deepEqual(
      arrivalAt(at(80), held(state())).map(({ text }) => text),
      ['comes in from h2 (192.0.2.2) to bridge shoal4097', 'a program of the task listens on port 80/tcp'],
    );
    assert.match(lastOf(at(80, { fromNodeId: here })), /listens/);
  });

  it('breaks when nobody listens, and says where somebody does', () => {
    assert.equal(
      lastOf(at(5432)),
      '✘ no program of the task listens on port 5432/tcp; it listens on 3000/tcp, 80/tcp, 81/tcp',
    );
    assert.equal(lastOf(at(8080)), '✘ a program of the task listens on port 8080/tcp for 127.0.0.1 alone');
    assert.equal(lastOf(at(82)).startsWith('✘ no program'), true, 'a connection is no listener');
    assert.equal(
      lastOf(at(80, { protocol: 'udp' })),
      '✘ no program of the task listens on port 80/udp; it listens on 53/udp',
    );
    assert.match(
      lastOf(at(80, { address: '10.60.1.1' })),
      /^✘ the task’s container does not have the address 10\.60\.1\.1$/,
    );
    assert.equal(lastOf(at(80, { files: undefined })), 'whether a program listens there can’t be seen');
  });

  it('breaks when the host lets nothing in from there, or nothing out again', () => {
    const sight = held(state());
    const stranger = withTable(sight.actual.ruleset, ({ collections }) => ({
      collections: new Map([
        ...collections,
        ['peers4', { ...collections.get('peers4')!, elements: new Map() }],
      ]),
    }));
    const dropping = { ...sight, actual: { ...sight.actual, ruleset: stranger } };
    assert.match(lastOf(at(80), dropping), /^✘ packets from h2 \(192\.0\.2\.2\) are dropped/);
    const vxlans = without(sight.actual.links.vxlans, 'vx4097');
    const cut = { ...sight, actual: { ...sight.actual, links: { ...sight.actual.links, vxlans } } };
    assert.match(lastOf(at(80), cut), /^✘ the interface vx4097 to other hosts is not there/);
    assert.match(
      lastOf(at(80, { networkId: 'unknown' })),
      /^✘ the managers have not told this node of the network yet/,
    );
    assert.match(
      lastOf(at(80), { ...sight, actual: { ...sight.actual, bridges: new Set() } }),
      /^✘ the bridge/,
    );
  });

  it('comes in through WireGuard on an encrypted network', () => {
    const sight = held(state({ isEncrypted: true }));
    assert.match(arrivalAt(at(80), sight)[0]?.text ?? '', /through WireGuard$/);
    const { actual } = sight;
    assert.match(lastOf(at(80), { ...sight, actual: { ...actual, tunnels: new Map() } }), /^✘ WireGuard/);
  });
});
