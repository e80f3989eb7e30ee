import assert from 'node:assert/strict';
import {
  type Attachment,
  containerRequest,
  type FileMount,
  type NodeForTasks,
  stopGraceMs,
  taskName,
} from '../../../agent/engine/container-spec.ts';
import type { WireTask } from '../../../agent/wire.ts';
import { isShoalError } from '../../../proto/errors.ts';
import { wireTask } from '../node.ts';

const node: NodeForTasks = { id: 'node1', hostname: 'alpha', architecture: 'x86_64', os: 'linux' };
const nowhere: Attachment = { kind: 'networks', networks: [] };
type Container = NonNullable<NonNullable<WireTask['spec']>['container']>;

const request = (
  container: Container,
  over: Partial<WireTask> = {},
  attachment: Attachment = nowhere,
  files: FileMount[] = [],
) =>
  containerRequest(
    wireTask('t1', 'web:1', { ...over, spec: { ...over.spec, container } }),
    node,
    attachment,
    files,
  );
const config = (container: Container, over: Partial<WireTask> = {}, attachment: Attachment = nowhere) =>
  request(container, over, attachment).config;
const host = (container: Container, over: Partial<WireTask> = {}, attachment: Attachment = nowhere) =>
  config(container, over, attachment).HostConfig as Record<string, unknown>;

describe('container spec', () => {
  it('lets the engine choose a port for what a proxy answers, over TCP', () => {
    const ports = [
      { target_port: 80, published_port: 8080, publish_mode: 'INGRESS' as const },
      { target_port: 80, published_port: 81, publish_mode: 'HOST' as const },
      { target_port: 53, published_port: 53, protocol: 'UDP' as const, publish_mode: 'INGRESS' as const },
    ];
    const task = wireTask('t1', 'web:1', { endpoint: { ports } } as Partial<WireTask>);
    const { config: made } = containerRequest(task, { ...node, hasProxy: true }, nowhere, []);
    assert.deepEqual((made.HostConfig as Record<string, unknown>).PortBindings, {
      '80/tcp': [
        { HostIp: '', HostPort: '' },
        { HostIp: '', HostPort: '81' },
      ],
    });
  });

  it('names and labels a container as Docker does', () => {
    const made = request({ image: 'web:1', labels: { own: 'x', 'com.docker.swarm.task.id': 'forged' } });
    assert.equal(made.name, 'web.1.t1');
    assert.equal(made.image, 'web:1');
    assert.deepEqual(made.labels, {
      own: 'x',
      'com.docker.swarm.task': '',
      'com.docker.swarm.task.id': 't1',
      'com.docker.swarm.task.name': 'web.1.t1',
      'com.docker.swarm.node.id': 'node1',
      'com.docker.swarm.service.id': 'service1',
      'com.docker.swarm.service.name': 'web',
    });
    assert.equal(taskName(wireTask('t1', 'web:1', { slot: undefined, node_id: 'n9' })), 'web.n9.t1');
    assert.equal(taskName(wireTask('t1', 'web:1', { annotations: { name: 'given' } })), 'given');
  });

  it('expands templates in environment, host name and mounts', () => {
    const made = config(
      {
        image: 'web:1',
        hostname: '{{.Node.Hostname}}-{{.Task.Slot}}',
        env: [
          'NAME={{.Task.Name}}',
          'TIER={{index .Service.Labels "tier"}}',
          'PLAIN=$x {x}',
          'OS={{ .Node.Platform.OS }}',
        ],
        mounts: [{ type: 'VOLUME', source: '{{.Service.Name}}-{{.Task.Slot}}', target: '/data' }],
      },
      { service_annotations: { name: 'web', labels: { tier: 'front' } } },
    );
    assert.equal(made.Hostname, 'alpha-1');
    assert.deepEqual(made.Env, ['NAME=web.1.t1', 'TIER=front', 'PLAIN=$x {x}', 'OS=linux']);
    assert.equal((made.HostConfig as { Mounts: { Source: string }[] }).Mounts[0]!.Source, 'web-1');
    assert.throws(
      () => config({ image: 'web:1', env: ['A={{.Task.Nope}}'] }),
      (error) => isShoalError(error, 'invalid-argument'),
    );
  });

  const hostTable: [string, Container, Partial<WireTask>, Record<string, unknown>][] = [
    [
      'limits and reservations',
      { image: 'web:1', pidsLimit: '50' },
      {
        spec: {
          resources: {
            limits: { nano_cpus: '500000000', memory_bytes: '67108864' },
            reservations: { memory_bytes: '33554432' },
          },
        },
      },
      { NanoCpus: 5e8, Memory: 67108864, MemoryReservation: 33554432, PidsLimit: 50 },
    ],
    [
      'a reservation that the engine would refuse is left out',
      { image: 'web:1' },
      { spec: { resources: { reservations: { memory_bytes: '1024' } } } },
      { MemoryReservation: undefined },
    ],
    [
      'never restarts by itself',
      { image: 'web:1' },
      {},
      { RestartPolicy: { Name: 'no' }, AutoRemove: false },
    ],
    [
      'security',
      {
        image: 'web:1',
        capability_add: ['CAP_NET_ADMIN'],
        capability_drop: ['ALL'],
        read_only: true,
        groups: ['27'],
        sysctls: { 'net.core.somaxconn': '1024' },
        ulimits: [{ name: 'nofile', soft: '10', hard: '20' }],
        privileges: {
          no_new_privileges: true,
          seccomp: { mode: 'UNCONFINED' },
          selinux_context: { type: 'svirt' },
          apparmor: { mode: 'DISABLED' },
        },
      },
      {},
      {
        CapAdd: ['CAP_NET_ADMIN'],
        CapDrop: ['ALL'],
        ReadonlyRootfs: true,
        GroupAdd: ['27'],
        Sysctls: { 'net.core.somaxconn': '1024' },
        Ulimits: [{ Name: 'nofile', Soft: 10, Hard: 20 }],
        SecurityOpt: [
          'label=type:svirt',
          'seccomp=unconfined',
          'apparmor=unconfined',
          'no-new-privileges=true',
        ],
      },
    ],
    ['init', { image: 'web:1', init: { value: true } }, {}, { Init: true }],
    ['no init', { image: 'web:1', init: {} }, {}, { Init: false }],
    [
      'names',
      {
        image: 'web:1',
        dns_config: { nameservers: ['1.1.1.1'], search: ['corp'], options: ['ndots:1'] },
        hosts: ['10.0.0.9 db db.local'],
      },
      {},
      {
        Dns: ['1.1.1.1'],
        DnsSearch: ['corp'],
        DnsOptions: ['ndots:1'],
        ExtraHosts: ['db:10.0.0.9', 'db.local:10.0.0.9'],
      },
    ],
    [
      "a task's log driver before the cluster's",
      { image: 'web:1' },
      { log_driver: { name: 'json-file' }, spec: { log_driver: { name: 'syslog', options: { tag: 'x' } } } },
      { LogConfig: { Type: 'syslog', Config: { tag: 'x' } } },
    ],
    [
      'only ports in host mode are bound',
      { image: 'web:1' },
      {
        endpoint: {
          ports: [
            { target_port: 80, published_port: 8080, publish_mode: 'HOST' },
            { target_port: 80, published_port: 8081, publish_mode: 'HOST' },
            { target_port: 53, protocol: 'UDP', publish_mode: 'HOST' },
            { target_port: 443, published_port: 8443, publish_mode: 'INGRESS' },
            { target_port: 444, published_port: 8444 },
          ],
        },
      },
      {
        PortBindings: {
          '80/tcp': [
            { HostIp: '', HostPort: '8080' },
            { HostIp: '', HostPort: '8081' },
          ],
          '53/udp': [{ HostIp: '', HostPort: '' }],
        },
      },
    ],
    [
      'mounts',
      {
        image: 'web:1',
        mounts: [
          { source: '/srv', target: '/data', readonly: true, bind_options: { propagation: 'RSHARED' } },
          {
            type: 'VOLUME',
            source: 'v',
            target: '/v',
            volume_options: {
              nocopy: true,
              labels: { a: 'b' },
              driver_config: { name: 'local', options: { o: 'x' } },
            },
          },
          { type: 'TMPFS', target: '/t', tmpfs_options: { size_bytes: '1048576', mode: 0o1777 } },
        ],
      },
      {},
      {
        Mounts: [
          {
            Type: 'bind',
            Source: '/srv',
            Target: '/data',
            ReadOnly: true,
            BindOptions: { Propagation: 'rshared', NonRecursive: false, CreateMountpoint: false },
          },
          {
            Type: 'volume',
            Source: 'v',
            Target: '/v',
            ReadOnly: false,
            VolumeOptions: {
              NoCopy: true,
              Labels: { a: 'b' },
              DriverConfig: { Name: 'local', Options: { o: 'x' } },
            },
          },
          {
            Type: 'tmpfs',
            Source: '',
            Target: '/t',
            ReadOnly: false,
            TmpfsOptions: { SizeBytes: 1048576, Mode: 0o1777 },
          },
        ],
      },
    ],
  ];
  for (const [name, container, over, expected] of hostTable) {
    it(name, () => {
      const made = host(container, over);
      for (const [key, value] of Object.entries(expected)) assert.deepEqual(made[key], value, key);
    });
  }

  it('sets command, user, terminal, stop signal and grace', () => {
    const made = config({
      image: 'web:1',
      command: ['/entry'],
      args: ['-v'],
      user: '7:8',
      dir: '/w',
      tty: true,
      open_stdin: true,
      stop_signal: 'SIGINT',
      stop_grace_period: { seconds: '1', nanos: 500_000_000 },
    });
    const { Entrypoint, Cmd, User, WorkingDir, Tty, OpenStdin, StopSignal, StopTimeout } = made;
    assert.deepEqual(
      { Entrypoint, Cmd, User, WorkingDir, Tty, OpenStdin, StopSignal, StopTimeout },
      {
        Entrypoint: ['/entry'],
        Cmd: ['-v'],
        User: '7:8',
        WorkingDir: '/w',
        Tty: true,
        OpenStdin: true,
        StopSignal: 'SIGINT',
        StopTimeout: 2,
      },
    );
    assert.equal(stopGraceMs(wireTask('t1')), 10_000);
    const spec = { container: { stop_grace_period: { seconds: '1', nanos: 500_000_000 } } };
    assert.equal(stopGraceMs(wireTask('t1', '', { spec })), 1_500);
    assert.equal('Entrypoint' in config({ image: 'web:1' }), false);
  });

  it('sets the health check in nanoseconds', () => {
    const made = config({
      image: 'web:1',
      healthcheck: {
        test: ['CMD-SHELL', 'true'],
        interval: { seconds: '2' },
        timeout: { nanos: 500_000_000 },
        start_period: { seconds: '10' },
        retries: 3,
      },
    });
    assert.deepEqual(made.Healthcheck, {
      Test: ['CMD-SHELL', 'true'],
      Interval: 2e9,
      Timeout: 5e8,
      Retries: 3,
      StartPeriod: 1e10,
    });
  });

  it('joins networks with the addresses and names it was given', () => {
    const attachment: Attachment = {
      kind: 'networks',
      networks: [
        {
          name: 'front',
          addresses: ['10.1.0.5/24', 'fd00::5/64'],
          aliases: ['web'],
          driverOptions: {},
          nameservers: [],
        },
        { name: 'back', addresses: [], aliases: ['web', 'api'], driverOptions: { a: 'b' }, nameservers: [] },
      ],
    };
    const made = config({ image: 'web:1' }, {}, attachment);
    assert.equal((made.HostConfig as { NetworkMode?: string }).NetworkMode, 'front');
    assert.deepEqual(made.NetworkingConfig, {
      EndpointsConfig: {
        front: {
          IPAMConfig: { IPv4Address: '10.1.0.5', IPv6Address: 'fd00::5' },
          Aliases: ['web'],
          DriverOpts: {},
        },
        back: { IPAMConfig: {}, Aliases: ['web', 'api'], DriverOpts: { a: 'b' } },
      },
    });
    const inHost = config({ image: 'web:1' }, {}, { kind: 'mode', mode: 'host' });
    assert.equal((inHost.HostConfig as { NetworkMode?: string }).NetworkMode, 'host');
    assert.deepEqual(inHost.NetworkingConfig, { EndpointsConfig: {} });
    assert.equal('NetworkMode' in host({ image: 'web:1' }), false);
  });

  it('mounts files read-only and tells of generic resources', () => {
    const made = request(
      { image: 'web:1' },
      {
        assigned_generic_resources: [
          { named_resource_spec: { kind: 'gpu', value: 'g1' } },
          { named_resource_spec: { kind: 'gpu', value: 'g2' } },
          { discrete_resource_spec: { kind: 'ssd', value: '3' } },
        ],
      },
      nowhere,
      [{ source: '/run/x/0', target: '/run/secrets/key' }],
    );
    assert.deepEqual((made.config.HostConfig as { Mounts: unknown[] }).Mounts, [
      { Type: 'bind', Source: '/run/x/0', Target: '/run/secrets/key', ReadOnly: true },
    ]);
    assert.deepEqual(made.config.Env, ['DOCKER_RESOURCE_GPU=g1,g2', 'DOCKER_RESOURCE_SSD=3']);
  });

  it('refuses in words what it cannot do', () => {
    assert.throws(
      () => config({ image: 'web:1', mounts: [{ type: 'CLUSTER', source: 'v', target: '/v' }] }),
      /mount \/v: mounts of type cluster are not supported/,
    );
    assert.throws(() => containerRequest({ id: 't1' }, node, nowhere, []), /runs containers only/);
  });
});
