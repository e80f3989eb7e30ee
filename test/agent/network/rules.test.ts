import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { Desired, DesiredService } from '../../../agent/network/desired.ts';
import { Kernel } from '../../../agent/network/kernel.ts';
import { rulesetCommands } from '../../../agent/network/nftables.ts';
import { ruleChanges, withdrawnAddresses } from '../../../agent/network/reconcile.ts';
import { Rules } from '../../../agent/network/rules.ts';
import { rulesetOf } from '../../../agent/network/ruleset.ts';
import { realClock } from '../../../cli/runtime.ts';
import { desired, endpoint, here, network, service } from './desired-objects.ts';

const options = { nodeId: here };
const networks = [network(4097, { isIngress: true }), network(4098)];

const someService = fc.record({
  id: fc.integer({ min: 1, max: 4 }),
  endpoints: fc.uniqueArray(fc.integer({ min: 0, max: 3 }), { maxLength: 4 }),
  draining: fc.integer({ min: 0, max: 3 }),
  isPublished: fc.boolean(),
  isFar: fc.boolean(),
});

function made({
  id,
  endpoints,
  draining,
  isPublished,
  isFar,
}: typeof someService extends fc.Arbitrary<infer T> ? T : never): DesiredService {
  return service(`s${id}`, {
    networks: [
      { networkId: 'net4098', virtualAddresses: [`10.60.2.${id}`], aliases: [] },
      { networkId: 'net4097', virtualAddresses: [`10.60.1.${id}`], aliases: [] },
    ],
    ports: isPublished ? [{ name: '', protocol: 'tcp', targetPort: 80, publishedPort: 8000 + id }] : [],
    endpoints: endpoints.map((at) =>
      endpoint('net4098', '', {
        taskId: `t${id}-${at}`,
        nodeId: isFar ? 'node-2' : here,
        isDraining: at === draining,
        addresses: { net4098: [`10.60.2.${id * 10 + at}`], net4097: [`10.60.1.${id * 10 + at}`] },
      }),
    ),
  });
}

/** Lines in any order, and the elements of one in any order. */
function shuffled(commands: readonly string[]): string[] {
  return commands
    .map((command) =>
      command.replace(/\{ (.*) \}$/, (_, list: string) => `{ ${list.split(', ').sort().join(', ')} }`),
    )
    .sort();
}

/** Addresses that take new connections, sorted. */
function servingIn({ services }: Desired): string[] {
  return services
    .flatMap(({ endpoints }) => endpoints)
    .flatMap(({ isDraining, addresses }) => (isDraining ? [] : Object.values(addresses).flat()))
    .sort();
}

describe('changes of rules', () => {
  it('worked out of the services that changed are those worked out of everything', () => {
    const state = fc.uniqueArray(someService, { selector: ({ id }) => id, maxLength: 4 });
    fc.assert(
      fc.property(state, state, (before, after) => {
        const first = desired(networks, before.map(made));
        // What did not change is the same object, as updates of the managers leave it.
        const services = after.map((one) => {
          const same = before.findIndex((other) => JSON.stringify(other) === JSON.stringify(one));
          return same < 0 ? made(one) : first.services[same]!;
        });
        const second: Desired = { ...first, services };
        const still = servingIn(second);
        assert.deepEqual(
          withdrawnAddresses(first, second).sort(),
          servingIn(first).filter((address) => !still.includes(address)),
        );
        assert.deepEqual(
          shuffled(ruleChanges(first, second, options)),
          shuffled(rulesetCommands(rulesetOf(first, options), rulesetOf(second, options))),
        );
      }),
    );
  });

  it('are those of everything when networks change', () => {
    const first = desired(networks, [
      made({ id: 1, endpoints: [1], draining: 0, isPublished: true, isFar: false }),
    ]);
    const second = { ...first, networks: networks.slice(0, 1) };
    assert.deepEqual(
      ruleChanges(first, second, options),
      rulesetCommands(rulesetOf(first, options), rulesetOf(second, options)),
    );
  });
});

/** Where nothing stands, and every change succeeds. */
class EmptyKernel extends Kernel {
  override async run(): Promise<string> {
    return '';
  }
}

describe('the port for names', () => {
  for (const [how, asked] of [
    ['rules', {}],
    ['the proxy', { 'shoal.ingress': 'proxy-protocol' }],
  ] as const) {
    it(`is left to names where there are networks with names, and told of: published by ${how}`, async () => {
      const rules = new Rules(new EmptyKernel(), realClock, () => options);
      const ports = [{ name: '', protocol: 'tcp' as const, targetPort: 5353, publishedPort: 53 }];
      const state = desired(networks, [service('dns', { ports, options: asked })]);
      try {
        await rules.become(() => state, false);
        assert.deepEqual(
          [...rules.refusedPorts],
          [
            [
              'tcp/53',
              'port 53/tcp is where this node answers the names of its networks: publish another port',
            ],
          ],
        );
        assert.deepEqual(rules.allowed(state).services[0]?.ports, []);
        assert.equal(rules.proxied.size, 0);
      } finally {
        await rules.stop();
      }
    });
  }
});
