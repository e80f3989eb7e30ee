import assert from 'node:assert/strict';
import { linesOf } from '../../../cli/commands/import.ts';
import { importOf, type SourceNetwork, type SourceSwarm, sharedSubnets } from '../../../cli/import/plan.ts';
import { parseSource } from '../../../cli/import/source.ts';

const network = (Name: string, over: Partial<SourceNetwork> = {}): SourceNetwork => ({
  Id: `id-${Name}`,
  Name,
  Driver: 'overlay',
  Scope: 'swarm',
  Labels: null,
  Options: { 'com.docker.network.driver.overlay.vxlanid_list': '4097' },
  IPAM: { Config: [{ Subnet: '10.0.1.0/24', Gateway: '10.0.1.1' }] },
  ...over,
});
const service = (Name: string, container: object, over: object = {}) => ({
  ID: `id-${Name}`,
  Spec: { Name, Labels: { of: Name }, TaskTemplate: { ContainerSpec: container, ...over } },
});

function swarm(over: Partial<SourceSwarm> = {}): SourceSwarm {
  return {
    clusterId: 'c1',
    networks: [
      network('front', { Attachable: true, Labels: { a: 'b' } }),
      network('ingress', { Ingress: true }),
      network('host', { Driver: 'host' }),
      network('lan', { Driver: 'macvlan' }),
      network('docker_gwbridge', { Driver: 'bridge', Scope: 'local' }),
    ],
    configs: [{ ID: 'x', Spec: { Name: 'conf', Labels: null, Data: 'YQ==' } }],
    secrets: [
      { ID: 'y', Spec: { Name: 'key', Labels: { s: '1' } } },
      { ID: 'z', Spec: { Name: 'vault', Driver: { Name: 'vault-plugin' } } },
    ],
    services: [
      service(
        'web',
        { Image: 'nginx:1@sha256:abc', Secrets: [{ SecretName: 'key', SecretID: 'y' }] },
        { Networks: [{ Target: 'id-front', Aliases: ['w'] }, { Target: 'id-host' }] },
      ),
      service('plug', {}, { Runtime: 'plugin' }),
    ],
    nodes: [
      { Spec: { Labels: { disk: 'ssd' } }, Description: { Hostname: 'h1' } },
      { Spec: {}, Description: { Hostname: 'h2' } },
    ],
    clusterVolumes: ['data'],
    ...over,
  };
}
const nothing = {
  secrets: new Map<string, string>(),
  secretsHere: new Set(['vault-of-ours']),
  keepSubnets: false,
};

describe('import: what is asked of the manager', () => {
  it('keeps names, labels, digests and options; ids become names, what the network was given goes', () => {
    const { body } = importOf(swarm(), nothing);
    assert.deepEqual(body.Networks, [
      {
        Name: 'front',
        Labels: { a: 'b' },
        DriverConfiguration: { Name: 'overlay' },
        Scope: 'swarm',
        Attachable: true,
      },
    ]);
    assert.deepEqual(body.Configs, [{ Name: 'conf', Labels: {}, Data: 'YQ==' }]);
    assert.deepEqual(body.NodeLabels, { h1: { disk: 'ssd' } });
    const [web] = body.Services as unknown as SourceSwarm['services'][number]['Spec'][];
    assert.equal(web!.TaskTemplate.ContainerSpec!.Image, 'nginx:1@sha256:abc');
    assert.deepEqual(web!.TaskTemplate.Networks, [{ Target: 'front', Aliases: ['w'] }, { Target: 'host' }]);
    assert.equal(body.Services.length, 1);
    const [kept] = importOf(swarm(), { ...nothing, keepSubnets: true }).body.Networks;
    assert.deepEqual((kept!.IPAMOptions as { Configs: unknown }).Configs, [
      { Subnet: '10.0.1.0/24', Gateway: '10.0.1.1' },
    ]);
  });

  it('takes a secret whose content is given, and names what needs the others', () => {
    const { body, untaken } = importOf(swarm(), { ...nothing, secrets: new Map([['key', 'aHVzaA==']]) });
    assert.deepEqual(body.Secrets, [{ Name: 'key', Labels: { s: '1' }, Data: 'aHVzaA==' }]);
    assert.ok(!untaken.some(({ what }) => what === 'secret key'));
    const here = importOf(swarm(), { ...nothing, secretsHere: new Set(['key']) });
    assert.ok(!here.untaken.some(({ what }) => what === 'secret key'), 'it is here already');
    const told = importOf(swarm(), { ...nothing, secrets: new Map([['nobody', '']]) }).untaken;
    const text = told.map(({ what, why }) => `${what}: ${why}`).join('\n');
    assert.match(text, /secret key: .*\(needed by web\): give it with --secret key=FILE/);
    assert.match(text, /secret vault: its content comes from the plugin vault-plugin \(no service uses it\)/);
    assert.match(text, /network lan: its driver is macvlan/);
    assert.match(text, /service plug: it runs no containers \(runtime plugin\)/);
    assert.match(text, /volume data: it is provided by a CSI plugin/);
    assert.match(text, /--secret nobody: the swarm has no secret of this name/);
  });

  it('tells of subnets that a host could not have twice', () => {
    assert.match(sharedSubnets(swarm(), ['10.0.0.0/8'])!.why, /networks front, ingress, host, lan/);
    assert.equal(sharedSubnets(swarm(), ['10.128.0.0/16']), undefined);
  });

  it('reaches sockets and ports, and says how to go through ssh', () => {
    assert.deepEqual(parseSource('unix:///x.sock', undefined), { kind: 'unix', path: '/x.sock' });
    const tcp = { kind: 'tcp', hostname: 'h', port: 2375, certPath: undefined };
    assert.deepEqual(parseSource('tcp://h:2375', undefined), tcp);
    assert.throws(() => parseSource('ssh://root@h1', undefined), /ssh -nNT -L .* root@h1/);
    assert.throws(() => parseSource('h1', undefined), /write unix:\/\/\/PATH or tcp/);
  });

  it('prints each object once, with a sign', () => {
    const summary = {
      created: [{ kind: 'service' as const, name: 'a' }],
      existing: [{ kind: 'config' as const, name: 'b' }],
      refused: [{ kind: 'service' as const, name: 'c', reason: 'why' }],
      labelled: ['h1'],
      absent: ['h2'],
      stacks: ['s'],
    };
    const signs = linesOf(summary, [{ what: 'x', why: 'y' }], true).map((line) => line.slice(0, 2));
    assert.deepEqual(signs, ['+ ', '+ ', '~ ', '= ', '! ', '! ', '! ', 'Wo']);
  });
});
