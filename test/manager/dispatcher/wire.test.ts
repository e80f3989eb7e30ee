import assert from 'node:assert/strict';
import fc from 'fast-check';
import { wireContainerSpec, wireDuration } from '../../../manager/dispatcher/container-spec.ts';
import {
  dockerDescription,
  dockerTaskStatus,
  dockerTime,
  wireNode,
  wireNodeDescription,
  wireTask,
  wireTaskStatus,
  wireTimestamp,
} from '../../../manager/dispatcher/wire.ts';
import { newMeta } from '../../../manager/store/change.ts';
import type { ContainerSpec, Network, NodeDescription, TaskStatus } from '../../../proto/docker.ts';
import { asId, type NetworkId } from '../../../proto/ids.ts';
import { loadPackage } from '../../../proto/rpc.ts';
import { makeCluster, makeNode, makeRevision, makeService, makeTask } from './cluster.ts';

/** What a receiver decodes when `assignments` is sent: through the real encoding. */
function overTheWire<T>(task: T): T {
  const { Assignments } = loadPackage().Dispatcher.service;
  const bytes = Assignments.responseSerialize({ changes: [{ assignment: { task: task as object } }] });
  return Assignments.responseDeserialize(bytes).changes?.[0]?.assignment?.task as T;
}

/** Without undefined fields and empty lists and maps, which protobuf does not tell from absent ones. */
function compact(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(compact);
  if (value === null || typeof value !== 'object' || Buffer.isBuffer(value)) return value;
  const entries = Object.entries(value)
    .map(([key, field]) => [key, compact(field)] as const)
    .filter(
      ([, field]) =>
        !(
          field === undefined ||
          field === '' ||
          field === 0 ||
          field === '0' ||
          field === false ||
          (Array.isArray(field) && field.length === 0)
        ),
    )
    .filter(([, field]) => !isEmptyMap(field));
  return Object.fromEntries(entries);
}

function isEmptyMap(field: unknown): boolean {
  return (
    typeof field === 'object' && field !== null && !Buffer.isBuffer(field) && Object.keys(field).length === 0
  );
}

describe('dispatcher/wire', () => {
  it('times keep their nanoseconds in both directions', () => {
    for (const time of [
      '2026-03-01T10:20:30.000Z',
      '2026-03-01T10:20:30.123Z',
      '2026-03-01T10:20:30.123456789Z',
    ]) {
      assert.equal(dockerTime(wireTimestamp(time)!), time);
    }
    assert.equal(dockerTime(wireTimestamp('2026-03-01T11:20:30+01:00')!), '2026-03-01T10:20:30.000Z');
    assert.equal(wireTimestamp(''), undefined);
    assert.equal(dockerTime({ seconds: '-1', nanos: 500_000_000 }), '1969-12-31T23:59:59.500Z');
    assert.deepEqual(wireTimestamp('1969-12-31T23:59:59.500Z'), { seconds: '-1', nanos: 500_000_000 });
  });

  it('durations are nanoseconds', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1e15 }), (nanoseconds) => {
        const { seconds, nanos } = wireDuration(nanoseconds)!;
        assert.equal(Number(seconds) * 1e9 + (nanos ?? 0), nanoseconds);
        assert.ok((nanos ?? 0) < 1e9);
      }),
    );
  });

  it('a task pulls with the credentials that its service has now', () => {
    const auth = (Image: string, RegistryAuth: string) => ({ Image, PullOptions: { RegistryAuth } });
    const revision = makeRevision('revision1', { ContainerSpec: auth('r.test/web:1', 'stale') });
    const pulls = (ContainerSpec: ContainerSpec) => {
      const { Spec } = makeRevision('revision2', { ContainerSpec });
      const service = { ...makeService('service1', 'revision2'), Spec };
      const parts = { task: makeTask('task1', 'n1'), revision, cluster: makeCluster() };
      const { spec } = wireTask({ ...parts, service, network: () => undefined });
      return spec?.container?.pull_options?.registry_auth;
    };
    assert.equal(pulls(auth('r.test/web:2', 'fresh')), 'fresh');
    assert.equal(pulls(auth('other.test/web:2', 'of another registry')), 'stale');
    assert.equal(pulls({ Image: 'r.test/web:2' }), 'stale');
  });

  it('a status survives the way to a worker and back', () => {
    const status: TaskStatus = {
      Timestamp: '2026-03-01T10:20:30.123456789Z',
      State: 'failed',
      Message: 'started',
      Err: 'task: non-zero exit (3)',
      ContainerStatus: { ContainerID: 'abc', PID: 12, ExitCode: 3 },
      PortStatus: { Ports: [{ Protocol: 'udp', TargetPort: 53, PublishedPort: 1053, PublishMode: 'host' }] },
    };
    assert.deepEqual(dockerTaskStatus(wireTaskStatus(status), 0), status);
  });

  it('a port that a stock engine names twice is one port', () => {
    const port = { protocol: 'TCP', target_port: 80, published_port: 8080, publish_mode: 'HOST' } as const;
    const status = dockerTaskStatus({ state: 'RUNNING', port_status: { ports: [port, { ...port }] } }, 0);
    assert.deepEqual(status.PortStatus?.Ports, [
      { Protocol: 'tcp', TargetPort: 80, PublishedPort: 8080, PublishMode: 'host' },
    ]);
  });

  it('a first report without a time gets the time of its arrival', () => {
    const status = dockerTaskStatus({ state: 'ACCEPTED', message: 'accepted' }, Date.UTC(2026, 0, 2));
    assert.deepEqual(status, {
      Timestamp: '2026-01-02T00:00:00.000Z',
      State: 'accepted',
      Message: 'accepted',
    });
  });

  it('a description survives the way from an agent and back', () => {
    const description: NodeDescription = {
      Hostname: 'alpha',
      Platform: { Architecture: 'x86_64', OS: 'linux' },
      Resources: {
        NanoCPUs: 4_000_000_000,
        MemoryBytes: 8_000_000_000,
        GenericResources: [
          { DiscreteResourceSpec: { Kind: 'SSD', Value: 3 } },
          { NamedResourceSpec: { Kind: 'GPU', Value: 'UUID1' } },
        ],
      },
      Engine: { EngineVersion: '26.1.5', Labels: { a: 'b' }, Plugins: [{ Type: 'Volume', Name: 'local' }] },
      TLSInfo: { TrustRoot: 'PEM', CertIssuerSubject: 'AQID', CertIssuerPublicKey: 'BAUG' },
    };
    assert.deepEqual(dockerDescription(wireNodeDescription(description)), description);
  });

  it('a task arrives at a worker as it was built', () => {
    const revision = makeRevision('revision1', {
      ContainerSpec: {
        Image: 'nginx@sha256:00',
        Env: ['A=1'],
        Init: false,
        StopGracePeriod: 1_500_000_000,
        Mounts: [
          {
            Type: 'bind',
            Source: '/a',
            Target: '/b',
            ReadOnly: true,
            BindOptions: { Propagation: 'rslave' },
          },
          { Type: 'tmpfs', Target: '/t', TmpfsOptions: { SizeBytes: 1_000_000, Mode: 0o1777 } },
        ],
        Secrets: [
          { SecretID: asId('s1'), SecretName: 'key', File: { Name: 'key', UID: '0', GID: '0', Mode: 0o444 } },
        ],
        Configs: [{ ConfigID: asId('c1'), ConfigName: 'conf', Runtime: {} }],
        Healthcheck: { Test: ['CMD', 'true'], Interval: 30_000_000_000, Retries: 3 },
        Privileges: { Seccomp: { Mode: 'custom', Profile: 'e30=' }, NoNewPrivileges: true },
        Ulimits: [{ Name: 'nofile', Soft: 10, Hard: 20 }],
      },
      Resources: { Limits: { NanoCPUs: 500_000_000, Pids: 100 }, Reservations: { MemoryBytes: 5 } },
      RestartPolicy: { Condition: 'on-failure', Delay: 5_000_000_000, MaxAttempts: 3 },
    });
    const built = wireTask({
      task: makeTask('task1', 'node1'),
      revision,
      service: undefined,
      cluster: makeCluster(),
      network: () => undefined,
    });
    const received = overTheWire(built);
    assert.equal(received.spec?.container?.pidsLimit, '100');
    assert.equal(received.spec?.restart?.condition, 'ON_FAILURE');
    assert.equal(received.annotations?.name, 'web.1.task1');
    assert.deepEqual(received.log_driver, { name: 'json-file', options: { 'max-size': '1m' } });
    assert.deepEqual(received.spec?.container?.init, { value: false });
    assert.deepEqual(compact(received), compact(built));
  });

  it('a stock engine hears all that its overlay needs of networks and its own address on them', () => {
    const DriverState = {
      Name: 'overlay',
      Options: { 'com.docker.network.driver.overlay.vxlanid_list': '4098' },
    };
    const Configs = [{ Subnet: '10.0.1.0/24', Gateway: '10.0.1.1' }];
    const network: Network = {
      ...newMeta(asId('net1')),
      Spec: { Name: 'back', Labels: {}, DriverConfiguration: { Name: 'overlay' } },
      IPAMOptions: { Driver: { Name: 'default' }, Configs },
      DriverState,
    };
    const NetworkID = network.ID;
    const node = makeNode('node1', {
      Attachments: [{ NetworkID, Addresses: ['10.0.1.9/24', 'fd00::9/64'] }],
    });
    const [attachment] = wireNode(node, (id) => (id === NetworkID ? network : undefined)).attachments ?? [];
    assert.deepEqual(attachment?.addresses, ['10.0.1.9/24', 'fd00::9/64']);
    assert.deepEqual(attachment?.network?.driver_state, { name: 'overlay', options: DriverState.Options });
    assert.deepEqual(attachment?.network?.ipam?.configs?.[0]?.gateway, '10.0.1.1');
    assert.deepEqual(wireNode(node, () => undefined).attachments, [], 'a network that is gone');
  });

  it('virtual addresses go out as IPv4; networks that every engine has are marked', () => {
    const base = makeService('service1', 'revision1');
    const NetworkID = asId<NetworkId>('net1');
    const Addrs = ['10.0.1.2/24', 'fd00::2/64'];
    const VirtualIPs = Addrs.map((Addr) => ({ NetworkID, Addr }));
    const task = wireTask({
      task: makeTask('task1', 'node1'),
      revision: makeRevision('revision1', { Networks: [{ Target: 'host' }] }),
      service: { ...base, Endpoint: { Spec: {}, VirtualIPs } },
      cluster: undefined,
      network: () => undefined,
    });
    assert.deepEqual(task.endpoint?.virtual_ips, [{ network_id: 'net1', addr: '10.0.1.2/24' }]);
    const [host] = task.networks ?? [];
    assert.equal(host?.network?.spec?.annotations?.labels?.['com.docker.swarm.predefined'], 'true');
    assert.equal(host?.network?.driver_state?.name, 'host');
  });

  it('a stock engine is always told that it is a worker, our agent its true role', () => {
    const spec = { Labels: {}, Role: 'manager', Availability: 'active' } as const;
    const stock = makeNode('node1', { Spec: spec, Private: { Role: 'manager' } });
    assert.deepEqual(
      [wireNode(stock, () => undefined).role, wireNode(stock, () => undefined).spec?.desired_role],
      ['WORKER', 'WORKER'],
    );
    const engine = { ...stock.Description.Engine, Labels: { 'shoal.engine.id': 'x' } };
    const ours = { ...stock, Description: { ...stock.Description, Engine: engine } };
    assert.deepEqual(
      [wireNode(ours, () => undefined).role, wireNode(ours, () => undefined).spec?.desired_role],
      ['MANAGER', 'MANAGER'],
    );
  });

  it('init is absent when the spec says nothing of it', () => {
    assert.equal(wireContainerSpec({ Image: 'a' }, undefined).init, undefined);
    assert.deepEqual(wireContainerSpec({ Image: 'a', Init: true }, undefined).init, { value: true });
  });

  it('the credentials of the registry reach the node', () => {
    const spec = { Image: 'a', PullOptions: { RegistryAuth: 'e30=' } };
    assert.deepEqual(wireContainerSpec(spec, undefined).pull_options, { registry_auth: 'e30=' });
    assert.equal(wireContainerSpec({ Image: 'a' }, undefined).pull_options, undefined);
  });
});
