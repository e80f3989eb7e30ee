import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { Desired, DesiredService } from '../../../agent/network/desired.ts';
import { type Answer, Names, type QuestionType } from '../../../agent/network/names.ts';
import { desired, endpoint, network, service } from './desired-objects.ts';

const front = 'net4097';
const back = 'net4098';
const probe = { networkId: front, address: '10.60.1.90' };
/** A plain container on the network, which is nobody's task. */
const stranger = { networkId: front, address: '10.60.1.200' };
const outsider = { networkId: back, address: '10.60.2.90' };

const web = service('app_web', {
  networks: [{ networkId: front, virtualAddresses: ['10.60.1.2', 'fd00:1::2'], aliases: ['web', 'Shop'] }],
  ports: [{ name: 'http', protocol: 'tcp', targetPort: 80, publishedPort: 8080 }],
  endpoints: [
    endpoint(front, '10.60.1.11,fd00:1::11', { taskId: 'a1', name: 'app_web.1', slot: 1, hostname: 'h1' }),
    endpoint(front, '10.60.1.12', { taskId: 'a2', name: 'app_web.2', slot: 2, hostname: 'h2' }),
    endpoint(front, '10.60.1.13', {
      taskId: 'a3',
      name: 'app_web.3',
      slot: 3,
      hostname: 'h2',
      isDraining: true,
    }),
  ],
});
const db = service('db.main', {
  networks: [{ networkId: back, virtualAddresses: [], aliases: [] }],
  endpoints: [endpoint(back, '10.60.2.21', { taskId: 'd1', name: 'db.main.1' })],
});
const probes = service('probe', {
  networks: [
    { networkId: front, virtualAddresses: ['10.60.1.9'], aliases: [] },
    { networkId: back, virtualAddresses: ['10.60.2.9'], aliases: [] },
  ],
  endpoints: [
    endpoint(front, '10.60.1.90', {
      taskId: 'p1',
      name: 'probe.1',
      addresses: { [front]: ['10.60.1.90'], [back]: ['10.60.2.91'] },
    }),
  ],
});
const state = desired([network(4097), network(4098)], [web, db, probes]);

function namesOf(from: Desired): Names {
  const names = new Names();
  names.follow(from);
  return names;
}

/** An answer in a line: addresses or targets, sorted; else its kind. */
function line(answer: Answer): string {
  if (answer.kind !== 'records') return answer.kind;
  return answer.records
    .map((record) =>
      record.type === 'SRV'
        ? `${record.target}:${record.port}`
        : record.type === 'PTR'
          ? record.target
          : record.address,
    )
    .sort()
    .join(' ');
}

function ask(from: Desired, name: string, type: QuestionType = 'A', asker = probe): string {
  return line(namesOf(from).answer({ name, type }, asker));
}

describe('names of a network', () => {
  const table: readonly [what: string, name: string, type: QuestionType, answer: string][] = [
    ['a service', 'app_web', 'A', '10.60.1.2'],
    ['in IPv6', 'app_web', 'AAAA', 'fd00:1::2'],
    ['an alias, in any letters', 'SHOP', 'A', '10.60.1.2'],
    ['with the root’s dot', 'web.', 'A', '10.60.1.2'],
    ['of a type it has none of', 'web', 'other', 'none'],
    ['in IPv6 where it has none', 'db.main', 'AAAA', 'none'],
    ['without a virtual address', 'db.main', 'A', '10.60.2.21'],
    ['its tasks, less those that are to stop', 'tasks.web', 'A', '10.60.1.11 10.60.1.12'],
    ['its tasks by the whole name', 'tasks.app_web', 'AAAA', 'fd00:1::11'],
    ['a task by its slot', 'web.2', 'A', '10.60.1.12'],
    ['by slot and id', 'app_web.2.a2', 'A', '10.60.1.12'],
    ['of a name with a dot', 'db.main.1', 'A', '10.60.2.21'],
    ['those on a host', 'web.h1', 'A', '10.60.1.11'],
    ['a slot that is draining', 'web.3', 'A', 'foreign'],
    ['a slot that is not', 'web.7', 'A', 'foreign'],
    ['SRV by the port’s name', '_http._tcp.web', 'SRV', 'app_web.1.a1:80 app_web.2.a2:80'],
    ['SRV by its number', '_80._tcp.web', 'SRV', 'app_web.1.a1:80 app_web.2.a2:80'],
    ['SRV by a number that is not published', '_5432._tcp.db.main', 'SRV', 'db.main.1.d1:5432'],
    ['SRV by a name that nothing has', '_smtp._tcp.web', 'SRV', 'none'],
    ['SRV of a port out of range', '_70000._tcp.web', 'SRV', 'none'],
    ['SRV asked as an address', '_http._tcp.web', 'A', 'none'],
    ['PTR of a task', '12.1.60.10.in-addr.arpa', 'PTR', 'app_web.2.a2'],
    ['PTR of a service', '2.1.60.10.in-addr.arpa', 'PTR', 'app_web'],
    ['PTR in IPv6', `1.1.${'0.'.repeat(22)}1.0.0.0.0.0.d.f.ip6.arpa`, 'PTR', 'app_web.1.a1'],
    ['PTR of an address that is nobody’s', '77.1.60.10.in-addr.arpa', 'PTR', 'foreign'],
    ['a reverse name asked as an address', '12.1.60.10.in-addr.arpa', 'A', 'none'],
    ['a name of the world', 'example.com', 'A', 'foreign'],
    ['tasks of nothing', 'tasks.example', 'A', 'foreign'],
  ];
  for (const [what, name, type, answer] of table) {
    it(`${what}: ${type} ${name}`, () => assert.equal(ask(state, name, type), answer));
  }

  it('are those of the asker’s own networks: of all of a task’s, of one for who is no task', () => {
    assert.equal(ask(state, 'db.main', 'A', probe), '10.60.2.21');
    assert.equal(ask(state, 'db.main', 'A', stranger), 'foreign');
    assert.equal(ask(state, 'web', 'A', outsider), 'foreign');
    assert.equal(ask(state, '12.1.60.10.in-addr.arpa', 'PTR', outsider), 'foreign');
    assert.equal(ask(state, '_http._tcp.web', 'SRV', outsider), 'foreign');
  });

  it('are not of the ingress network, which services that publish ports all share', () => {
    const both = { ...web, networks: [...web.networks, { ...web.networks[0]!, networkId: back }] };
    const published = desired([network(4097), network(4098, { isIngress: true })], [both, probes, db]);
    assert.equal(ask(published, 'web', 'A', probe), '10.60.1.2');
    assert.equal(ask(published, 'db.main', 'A', probe), 'foreign');
    assert.equal(ask(published, 'web', 'A', outsider), 'foreign');
    assert.equal(ask(published, '21.2.60.10.in-addr.arpa', 'PTR', probe), 'foreign');
  });

  it('are those of plain containers, too, where they are', () => {
    const containers = [{ names: ['plain', 'Nick'], addresses: ['10.60.1.201', 'fd00:1::201'] }];
    const before = { ...state, networks: [network(4097, { containers }), network(4098)] };
    assert.equal(ask(before, 'plain'), '10.60.1.201');
    assert.equal(ask(before, 'nick', 'AAAA', stranger), 'fd00:1::201');
    assert.equal(ask(before, 'plain', 'A', outsider), 'foreign');
    const names = namesOf(before);
    names.follow(state);
    assert.equal(line(names.answer({ name: 'plain', type: 'A' }, probe)), 'foreign');
  });

  it('after any changes are those of a server that knows only the last state', () => {
    const address = fc.integer({ min: 1, max: 4 });
    const someService = fc
      .record({
        id: fc.integer({ min: 0, max: 2 }),
        name: fc.constantFrom('a', 'b', 'c'),
        alias: fc.constantFrom('x', 'a'),
        vip: address,
        task: address,
        net: fc.constantFrom(front, back),
      })
      .map(
        ({ id, name, alias, vip, task, net }): DesiredService =>
          service(name, {
            id: `id${id}`,
            networks: [{ networkId: net, virtualAddresses: [`10.0.0.${id * 8 + vip}`], aliases: [alias] }],
            endpoints: [endpoint(net, `10.0.1.${id * 8 + task}`, { taskId: `t${id}` })],
          }),
      );
    const someState = fc.uniqueArray(someService, { selector: ({ id }) => id, maxLength: 3 });
    const questions = ['a', 'b', 'c', 'x', 'tasks.a', 'tasks.x', 'a.1'].map(
      (name) => ({ name, type: 'A' }) as const,
    );
    const reverse = Array.from({ length: 32 }, (_, at) => [
      `${at}.0.0.10.in-addr.arpa`,
      `${at}.1.0.10.in-addr.arpa`,
    ]).flat();
    fc.assert(
      fc.property(fc.array(someState, { minLength: 1, maxLength: 5 }), (states) => {
        const following = new Names();
        for (const services of states) following.follow(desired([network(4097)], services));
        const fresh = namesOf(desired([network(4097)], states.at(-1)!));
        for (const question of [...questions, ...reverse.map((name) => ({ name, type: 'PTR' }) as const)]) {
          for (const asker of [stranger, outsider]) {
            assert.equal(
              line(following.answer(question, asker)),
              line(fresh.answer(question, asker)),
              question.name,
            );
          }
        }
      }),
      { numRuns: 60 },
    );
  });
});
