import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { Desired, DesiredNetwork, DesiredService } from '../../../agent/network/desired.ts';
import { linksOf } from '../../../agent/network/links.ts';
import { bothFamilies, proxiedPortsOfMesh } from '../../../agent/network/proxied.ts';
import { difference } from '../../../agent/network/questions.ts';
import { settingsOf } from '../../../agent/network/reconcile.ts';
import { type Ruleset, rulesetOf, type Table } from '../../../agent/network/ruleset.ts';
import type { Sight, Trace } from '../../../agent/network/trace.ts';
import { traceFromOutside } from '../../../agent/network/trace-published.ts';
import { desired, endpoint, here, network, service } from './desired-objects.ts';

const options = { nodeId: here, local: '192.0.2.1' };
const net = 'net4097';
const there = { nodeId: 'node-2', hostname: 'h2' };

/** A kernel that holds `state` wholly. */
function held(state: Desired): Sight {
  const bridges = new Set(state.networks.map(({ vxlanId }) => `shoal${vxlanId}`));
  const actual = {
    ruleset: rulesetOf(state, options),
    links: linksOf(state, bridges, options),
    tunnels: new Map(),
    bridges,
    hairpins: new Map<string, boolean>(),
    settings: settingsOf(state, bridges),
    firewalls: {},
  };
  const proxied = new Map(
    [...proxiedPortsOfMesh(state)].map(([port, one]) => [port, { ...one, host: bothFamilies }] as const),
  );
  return { desired: state, actual, options, proxied };
}

/** `web` on port 8080, with a task here and one on node 2. */
function state(fields: Partial<DesiredService> = {}, ofNetwork: Partial<DesiredNetwork> = {}): Desired {
  const ingress = network(4097, {
    subnets: ['10.60.1.0/24', 'fd00:60:1::/64'],
    isIngress: true,
    ...ofNetwork,
  });
  return desired(
    [ingress],
    [
      service('web', {
        ports: [{ name: '', protocol: 'tcp', targetPort: 80, publishedPort: 8080 }],
        endpoints: [
          endpoint(net, '10.60.1.10,fd00:60:1::10', { taskId: 'w1', name: 'web.1' }),
          endpoint(net, '10.60.1.11,fd00:60:1::11', { taskId: 'w2', name: 'web.2', slot: 2, ...there }),
        ],
        ...fields,
      }),
    ],
  );
}

const asked = { port: 8080, protocol: 'tcp', isIpv6: false } as const;

function wordsOf({ steps, ways }: Trace): string[] {
  const all = [
    ...steps,
    ...ways.flatMap((way) => [...way.steps, ...way.targets.flatMap((one) => one.steps)]),
  ];
  return all.map(({ text, breaks }) => `${breaks ? '✘ ' : ''}${text}`);
}

const inet = 'inet shoal';
function withTable(sight: Sight, change: (table: Table) => Partial<Table>): Sight {
  const table = sight.actual.ruleset.get(inet)!;
  const ruleset: Ruleset = new Map([...sight.actual.ruleset, [inet, { ...table, ...change(table) }]]);
  return { ...sight, actual: { ...sight.actual, ruleset } };
}

describe('a trace from outside', () => {
  it('follows a published port to each of its tasks, and says whom they see', () => {
    const trace = traceFromOutside(asked, held(state()));
    assert.deepEqual(wordsOf(trace), [
      'service web publishes port 8080/tcp',
      'nftables sends it on to 2 tasks, to each in turn (chain port_tcp_8080)',
      'stays on this node, on bridge shoal4097',
      'the task sees the address of the client',
      'by vx4097 to h2 (192.0.2.2), UDP port 4789',
      'the task sees the address of this node in place of the client’s',
    ]);
    const addressesOf = (one: Trace) =>
      one.ways.flatMap(({ targets }) => targets.map((each) => each.address));
    assert.deepEqual(addressesOf(trace), ['10.60.1.10', '10.60.1.11']);
    const six = traceFromOutside({ ...asked, isIpv6: true }, held(state()));
    assert.deepEqual(addressesOf(six), ['fd00:60:1::10', 'fd00:60:1::11']);
  });

  it('follows it to one task alone, over both families', () => {
    const only = [endpoint(net, '10.60.1.10,fd00:60:1::10', { taskId: 'w1', name: 'web.1' })];
    for (const isIpv6 of [false, true]) {
      const [way] = traceFromOutside({ ...asked, isIpv6 }, held(state({ endpoints: only }))).ways;
      assert.deepEqual(
        way?.targets.map(({ taskId, address }) => [taskId, address]),
        [['w1', isIpv6 ? 'fd00:60:1::10' : '10.60.1.10']],
      );
    }
  });

  it('goes to the own tasks alone where the service wants it so', () => {
    const local = { options: { 'shoal.ingress': 'local' } };
    assert.deepEqual(wordsOf(traceFromOutside(asked, held(state(local)))), [
      'service web publishes port 8080/tcp, on nodes that run a task of it',
      'nftables sends it on to a task (chain port_tcp_8080)',
      'stays on this node, on bridge shoal4097',
      'the task sees the address of the client',
    ]);
    const elsewhere = [endpoint(net, '10.60.1.11', { taskId: 'w2', name: 'web.2', ...there })];
    assert.equal(
      wordsOf(traceFromOutside(asked, held(state({ ...local, endpoints: elsewhere })))).at(-1),
      '✘ service web has no healthy task on this node, and shoal.ingress=local: the connection is refused',
    );
  });

  describe('by the agent’s proxy', () => {
    const told = { options: { 'shoal.ingress': 'proxy-protocol' } };
    const lacking = /^the kernel is not as the managers want it/;

    it('says that it takes the connection, and how the task knows the client', () => {
      const header =
        'a PROXY protocol header (version 2) tells the task the address of the client; the connection itself is this node’s';
      for (const isIpv6 of [false, true]) {
        const trace = traceFromOutside({ ...asked, isIpv6 }, held(state(told)));
        assert.deepEqual(wordsOf(trace), [
          'service web publishes port 8080/tcp',
          'the TCP proxy of shoald takes it, no rule of nftables, and passes it on to 2 tasks, to each in turn',
          'stays on this node, on bridge shoal4097',
          header,
          'by vx4097 to h2 (192.0.2.2), UDP port 4789',
          header,
        ]);
      }
      assert.deepEqual(difference(held(state(told))), []);
    });

    it('follows a connection to a task on a node without rules, and gives shares', () => {
      const far = endpoint('', '', {
        ...{ taskId: 'w2', name: 'web.2', addresses: {}, weight: 3, ...there },
        host: { address: '192.0.2.2', ports: { '80': 32_001 } },
      });
      const own = endpoint(net, '10.60.1.10', { taskId: 'w1', name: 'web.1', weight: 1 });
      const trace = traceFromOutside(asked, held(state({ ...told, endpoints: [own, far] })));
      const words = wordsOf(trace);
      assert.match(words[1] ?? '', /passes it on to 2 tasks, to each its share$/);
      assert.equal(words[4], 'to port 32001/tcp of h2 (192.0.2.2), whose engine passes it on');
    });

    it('says where it breaks: nobody listens, nobody serves, no IPv6, a rule of before', () => {
      const sight = held(state(told));
      const silent = { ...sight, proxied: new Map() };
      const silence = wordsOf(traceFromOutside(asked, silent));
      assert.match(silence[0] ?? '', lacking);
      assert.equal(silence.at(-1), '✘ the TCP proxy of shoald does not listen on port 8080/tcp');
      assert.deepEqual(difference(silent), [
        'shoald proxy tcp/8080 to 10.60.1.10:80, 10.60.1.11:80 with a PROXY protocol header',
      ]);
      const nobody = wordsOf(traceFromOutside(asked, held(state({ ...told, endpoints: [] }))));
      assert.match(
        nobody.at(-1) ?? '',
        /^✘ service web has no healthy task: the TCP proxy of shoald .* resets it$/,
      );
      const [entry] = [...sight.proxied.values()];
      const ipv4 = { ...sight, proxied: new Map([[8080, { ...entry!, host: '0.0.0.0' }]]) };
      assert.match(
        wordsOf(traceFromOutside({ ...asked, isIpv6: true }, ipv4)).at(-1) ?? '',
        /^✘ the TCP proxy of shoald listens on port 8080\/tcp over IPv4 alone/,
      );
      const before = held(state());
      const ruled = { ...sight, actual: before.actual };
      const words = wordsOf(traceFromOutside(asked, ruled));
      assert.match(words[0] ?? '', lacking);
      assert.ok(
        words.some((text) => text.startsWith('nftables sends it on to 2 tasks')),
        words.join('\n'),
      );
      assert.deepEqual(difference({ ...before, proxied: sight.proxied }), ['shoald proxy close tcp/8080']);
    });
  });

  const breaks: [string, RegExp, Sight, Partial<typeof asked>?][] = [
    ['nobody publishes it', /^✘ no rule of this node is for port 8080\/tcp$/, held(state({ ports: [] }))],
    [
      'nobody stands behind it',
      /^✘ service web has no healthy task: .* refused$/,
      held(state({ endpoints: [] })),
    ],
    [
      'there is no such network',
      /^✘ the managers have told .* no ingress/,
      held(state({}, { isIngress: false })),
    ],
    [
      'the network has no IPv6',
      /^✘ network network-4097 has no IPv6: /,
      held(state({}, { subnets: ['10.60.1.0/24'] })),
      { isIpv6: true } as object,
    ],
    [
      'no task has an IPv6 address',
      /^✘ chain port_tcp_8080 of table inet shoal sends nothing on over IPv6$/,
      held(state({ endpoints: [endpoint(net, '10.60.1.10')] })),
      { isIpv6: true } as object,
    ],
    [
      'the bridge is gone',
      /^✘ the bridge shoal4097 .* is not there$/,
      (() => {
        const sight = held(state());
        return { ...sight, actual: { ...sight.actual, bridges: new Set<string>() } };
      })(),
    ],
    [
      'the chain that asks was flushed',
      /^✘ the rules for published ports do not stand in the kernel/,
      withTable(held(state()), ({ chains }) => ({
        chains: new Map([...chains, ['pre', { hook: '', rules: [] }]]),
      })),
    ],
    [
      'the port has no rule',
      /^✘ no rule in the kernel sends port 8080\/tcp on$/,
      withTable(held(state()), ({ collections }) => ({
        collections: new Map([
          ...collections,
          ['ports', { ...collections.get('ports')!, elements: new Map() }],
        ]),
      })),
    ],
    [
      'the rule is old',
      /^✘ the managers told this node of no task with 10\.60\.1\.99/,
      withTable(held(state()), ({ chains }) => ({
        chains: new Map([...chains, ['port_tcp_8080', { hook: '', rules: ['dnat ip to 10.60.1.99:80'] }]]),
      })),
    ],
  ];
  for (const [title, expected, sight, fields] of breaks) {
    it(`says where it breaks: ${title}`, () => {
      const words = wordsOf(traceFromOutside({ ...asked, ...fields }, sight));
      assert.match(words.find((text) => text.startsWith('✘')) ?? 'nothing broke', expected);
    });
  }

  it('ends at each task that takes connections and at no other, in a kernel as it should be', () => {
    const one = fc.record({ isHere: fc.boolean(), isDraining: fc.boolean() });
    fc.assert(
      fc.property(fc.array(one, { maxLength: 12 }), fc.boolean(), fc.boolean(), (tasks, isLocal, isIpv6) => {
        const endpoints = tasks.map(({ isHere, isDraining }, at) =>
          endpoint(net, `10.60.1.${100 + at},fd00:60:1::${100 + at}`, {
            taskId: `t${at}`,
            nodeId: isHere ? here : 'node-2',
            isDraining,
          }),
        );
        const wants = isLocal ? { 'shoal.ingress': 'local' } : {};
        const trace = traceFromOutside({ ...asked, isIpv6 }, held(state({ endpoints, options: wants })));
        const ended = trace.ways.flatMap(({ targets }) =>
          targets.filter(({ steps }) => !steps.some((step) => step.breaks)).map(({ taskId }) => taskId),
        );
        const serving = endpoints
          .filter(({ isDraining, nodeId }) => !isDraining && (!isLocal || nodeId === here))
          .map(({ taskId }) => taskId);
        assert.deepEqual(ended.sort(), serving.sort());
      }),
    );
  });
});
