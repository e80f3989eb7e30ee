import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { Desired, DesiredNetwork, DesiredService } from '../../../agent/network/desired.ts';
import { linksOf } from '../../../agent/network/links.ts';
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
  return { desired: state, actual, options };
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
