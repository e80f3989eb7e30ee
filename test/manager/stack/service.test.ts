import assert from 'node:assert/strict';
import { compile, stackLabels, web } from './files.ts';

function container(...lines: string[]) {
  return compile(web(...lines)).services[0]!.TaskTemplate.ContainerSpec;
}

function service(...lines: string[]) {
  return compile(web(...lines)).services[0]!;
}

describe('compose: a service as docker stack deploy makes it', () => {
  it('with nothing but an image', () => {
    const { services, networks, warnings, refusals } = compile(
      'version: "3.8"\nservices:\n  web:\n    image: nginx:1\n',
    );
    assert.deepEqual(services, [
      {
        Name: 'app_web',
        Labels: { ...stackLabels, 'com.docker.stack.image': 'nginx:1' },
        TaskTemplate: {
          ContainerSpec: { Image: 'nginx:1', Labels: stackLabels },
          Networks: [{ Target: 'app_default', Aliases: ['web'] }],
        },
        Mode: { Replicated: { Replicas: 1 } },
      },
    ]);
    assert.deepEqual(networks, [
      { Name: 'app_default', Labels: stackLabels, DriverConfiguration: { Name: 'overlay' } },
    ]);
    assert.deepEqual([warnings, refusals], [[], []]);
  });

  it('with every part of deploy', () => {
    const spec = service(
      'deploy:',
      '  mode: replicated',
      '  replicas: 6',
      '  endpoint_mode: dnsrr',
      '  labels: [FOO=BAR]',
      '  resources:',
      "    limits: {cpus: '0.5', memory: 50M, pids: 100}",
      '    reservations:',
      '      memory: 1.5g',
      '      generic_resources: [{discrete_resource_spec: {kind: gpu, value: 2}}]',
      '  restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, window: 2m}',
      '  placement:',
      '    constraints: [node.role == worker]',
      '    preferences: [{spread: node.labels.az}]',
      '    max_replicas_per_node: 5',
      '  update_config: {parallelism: 0, delay: 10s, failure_action: rollback, monitor: 1m, max_failure_ratio: 0.3, order: start-first}',
      '  rollback_config: {order: stop-first}',
    );
    assert.deepEqual(spec.Mode, { Replicated: { Replicas: 6 } });
    assert.equal(spec.Labels.FOO, 'BAR');
    assert.deepEqual(spec.EndpointSpec, { Mode: 'dnsrr' });
    assert.deepEqual(spec.TaskTemplate.Resources, {
      Limits: { NanoCPUs: 5e8, MemoryBytes: 50 * 2 ** 20, Pids: 100 },
      Reservations: {
        MemoryBytes: 1.5 * 2 ** 30,
        GenericResources: [{ DiscreteResourceSpec: { Kind: 'gpu', Value: 2 } }],
      },
    });
    assert.deepEqual(spec.TaskTemplate.RestartPolicy, {
      Condition: 'on-failure',
      Delay: 5e9,
      MaxAttempts: 3,
      Window: 120e9,
    });
    assert.deepEqual(spec.TaskTemplate.Placement, {
      Constraints: ['node.role == worker'],
      Preferences: [{ Spread: { SpreadDescriptor: 'node.labels.az' } }],
      MaxReplicas: 5,
    });
    assert.deepEqual(spec.UpdateConfig, {
      Parallelism: 0,
      Delay: 10e9,
      FailureAction: 'rollback',
      Monitor: 60e9,
      MaxFailureRatio: 0.3,
      Order: 'start-first',
    });
    assert.deepEqual(spec.RollbackConfig, { Parallelism: 1, Order: 'stop-first' });
  });

  it('with graphics processors, which the scheduler counts', () => {
    const reserved = (...labels: string[]) =>
      service(
        'deploy:',
        ...labels,
        '  resources:',
        '    reservations:',
        '      devices: [{driver: nvidia, count: 2, capabilities: [gpu]}]',
      );
    const told = (spec: ReturnType<typeof service>) => [
      spec.Labels['shoal.gpu'],
      spec.TaskTemplate.Resources?.Reservations?.GenericResources,
    ];
    const two = (Kind: string) => [{ DiscreteResourceSpec: { Kind, Value: 2 } }];
    assert.deepEqual(told(reserved()), ['gpu', two('gpu')]);
    assert.deepEqual(told(reserved('  labels: [shoal.gpu=NVIDIA-GPU]')), ['NVIDIA-GPU', two('NVIDIA-GPU')]);
  });

  it('in other modes', () => {
    assert.deepEqual(service('deploy: {mode: global}').Mode, { Global: {} });
    assert.deepEqual(service('deploy: {mode: global-job}').Mode, { GlobalJob: {} });
    assert.deepEqual(service('deploy: {mode: replicated-job, replicas: 3}').Mode, {
      ReplicatedJob: { MaxConcurrent: 3, TotalCompletions: 3 },
    });
  });

  it('with commands as words', () => {
    const spec = container(`command: sh -c "echo 'a b'" c\\ d ''`, 'entrypoint: ["/e", "-p", 3000]');
    assert.deepEqual(spec.Args, ['sh', '-c', "echo 'a b'", 'c d', '']);
    assert.deepEqual(spec.Command, ['/e', '-p', '3000']);
  });

  it('with its environment: files first, sorted, unset ones left to the image', () => {
    const { services } = compile(
      web('env_file: [a.env, ../b.env]', 'environment: {Z: 1.5, A: , HOME: , B: over}'),
      { '/home/me/app/a.env': '# comment\n\nB=a\r\nC=c = d\n', '/home/me/b.env': 'C="quoted"\nE\n' },
      { HOME: '/home/me', E: 'from outside' },
    );
    assert.deepEqual(services[0]!.TaskTemplate.ContainerSpec.Env, [
      'A',
      'B=over',
      'C="quoted"',
      'E=from outside',
      'HOME=/home/me',
      'Z=1.5',
    ]);
  });

  it('with what the container is given', () => {
    const spec = container(
      'hostname: h',
      'user: 1000',
      'working_dir: /w',
      'labels: [a=1, b]',
      'stop_grace_period: 1m30s',
      'stop_signal: SIGUSR1',
      'init: true',
      'read_only: true',
      'tty: true',
      'stdin_open: true',
      'dns: 8.8.8.8',
      'dns_search: [a.example, b.example]',
      'extra_hosts: ["db:10.0.0.1", "host.docker.internal:host-gateway"]',
      'sysctls: {net.core.somaxconn: 1024}',
      'cap_add: [net_admin, ALL]',
      'cap_drop: [CAP_SYS_ADMIN]',
      'ulimits: {nproc: 65535, nofile: {soft: 20000, hard: 40000}}',
      'healthcheck: {test: curl -f x, interval: 10s, timeout: 1s, retries: 5, start_period: 15s}',
    );
    assert.deepEqual(spec, {
      Image: 'nginx',
      Labels: { a: '1', b: '', ...stackLabels },
      Hostname: 'h',
      User: '1000',
      Dir: '/w',
      StopGracePeriod: 90e9,
      StopSignal: 'SIGUSR1',
      Init: true,
      ReadOnly: true,
      TTY: true,
      OpenStdin: true,
      DNSConfig: { Nameservers: ['8.8.8.8'], Search: ['a.example', 'b.example'] },
      Hosts: ['10.0.0.1 db', 'host-gateway host.docker.internal'],
      Sysctls: { 'net.core.somaxconn': '1024' },
      CapabilityAdd: ['CAP_NET_ADMIN', 'ALL'],
      CapabilityDrop: ['CAP_SYS_ADMIN'],
      Ulimits: [
        { Name: 'nofile', Hard: 40000, Soft: 20000 },
        { Name: 'nproc', Hard: 65535, Soft: 65535 },
      ],
      Healthcheck: {
        Test: ['CMD-SHELL', 'curl -f x'],
        Interval: 10e9,
        Timeout: 1e9,
        Retries: 5,
        StartPeriod: 15e9,
      },
    });
    assert.deepEqual(container('healthcheck: {disable: true}').Healthcheck, { Test: ['NONE'] });
  });

  it('with its ports, ranges and all', () => {
    const { EndpointSpec } = service(
      'ports: ["9090-9091:8080-8081", 53:53/udp, {target: 80, published: 8080, mode: host}, {target: 81, mode: host}]',
    );
    assert.deepEqual(EndpointSpec?.Ports, [
      { Protocol: 'tcp', TargetPort: 81, PublishMode: 'host' },
      { Protocol: 'udp', TargetPort: 53, PublishedPort: 53, PublishMode: 'ingress' },
      { Protocol: 'tcp', TargetPort: 80, PublishedPort: 8080, PublishMode: 'host' },
      { Protocol: 'tcp', TargetPort: 8080, PublishedPort: 9090, PublishMode: 'ingress' },
      { Protocol: 'tcp', TargetPort: 8081, PublishedPort: 9091, PublishMode: 'ingress' },
    ]);
  });

  it('with its mounts', () => {
    const { services } = compile(
      [
        web(
          'tmpfs: /run:size=64m,mode=1770',
          'volumes:',
          '  - /anonymous',
          '  - ./static:/static:ro,rslave',
          '  - ~/conf:/conf',
          '  - data:/data:nocopy',
          '  - named:/named',
          '  - there:/there',
          '  - {type: bind, source: /b, target: /b, bind: {propagation: shared}}',
          '  - {type: tmpfs, target: /t, tmpfs: {size: 10000}}',
        ),
        'volumes:',
        '  data: {driver: nfs, driver_opts: {a: 1}, labels: [x=y]}',
        '  named: {name: my-name}',
        '  there: {external: true}',
      ].join('\n'),
      {},
      { HOME: '/home/me' },
    );
    const volume = { Type: 'volume' } as const;
    assert.deepEqual(services[0]!.TaskTemplate.ContainerSpec.Mounts, [
      { ...volume, Target: '/anonymous' },
      {
        Type: 'bind',
        Source: '/home/me/app/static',
        Target: '/static',
        ReadOnly: true,
        BindOptions: { Propagation: 'rslave' },
      },
      { Type: 'bind', Source: '/home/me/conf', Target: '/conf' },
      {
        ...volume,
        Source: 'app_data',
        Target: '/data',
        VolumeOptions: {
          NoCopy: true,
          Labels: { x: 'y', ...stackLabels },
          DriverConfig: { Name: 'nfs', Options: { a: '1' } },
        },
      },
      { ...volume, Source: 'my-name', Target: '/named', VolumeOptions: { Labels: stackLabels } },
      { ...volume, Source: 'there', Target: '/there' },
      { Type: 'bind', Source: '/b', Target: '/b', BindOptions: { Propagation: 'shared' } },
      { Type: 'tmpfs', Target: '/t', TmpfsOptions: { SizeBytes: 10000 } },
      { Type: 'tmpfs', Target: '/run', TmpfsOptions: { SizeBytes: 64 * 2 ** 20, Mode: 0o1770 } },
    ]);
  });

  it('with networks, their aliases and definitions', () => {
    const { services, networks } = compile(
      [
        web('networks:', '  back: {aliases: [w, web], driver_opts: {x: 1}}', '  out:', '  wire:'),
        'networks:',
        '  back:',
        '    internal: true',
        '    attachable: true',
        '    labels: {l: 1}',
        '    driver_opts: {com.docker.network.driver.mtu: 1400}',
        '    ipam: {config: [{subnet: 10.5.0.0/24}]}',
        '  out: {external: true, name: the-outside}',
        '  wire: {external: {name: host}}',
      ].join('\n'),
    );
    assert.deepEqual(services[0]!.TaskTemplate.Networks, [
      { Target: 'app_back', Aliases: ['w', 'web'], DriverOpts: { x: '1' } },
      { Target: 'host' },
      { Target: 'the-outside', Aliases: ['web'] },
    ]);
    assert.deepEqual(networks, [
      {
        Name: 'app_back',
        Labels: { l: '1', ...stackLabels },
        DriverConfiguration: { Name: 'overlay', Options: { 'com.docker.network.driver.mtu': '1400' } },
        Internal: true,
        Attachable: true,
        IPAMOptions: { Configs: [{ Subnet: '10.5.0.0/24' }] },
      },
    ]);
  });

  it('with secrets and configs, and their data', () => {
    const compiled = compile(
      [
        web('secrets: [s, {source: t, target: /x, uid: "103", mode: 0440}]', 'configs: [c]'),
        'secrets:',
        '  s: {file: ./s.txt, labels: {a: b}}',
        '  t: {external: {name: there}}',
        '  u: {environment: TOKEN}',
        'configs:',
        '  c: {content: "hello $WHO", name: greeting, template_driver: golang}',
      ].join('\n'),
      { '/home/me/app/s.txt': 'hidden' },
      { WHO: 'you', TOKEN: 'abc' },
    );
    const base64 = (text: string) => Buffer.from(text).toString('base64');
    assert.deepEqual(compiled.secrets, [
      { Name: 'app_s', Labels: { a: 'b', ...stackLabels }, Data: base64('hidden') },
      { Name: 'app_u', Labels: stackLabels, Data: base64('abc') },
    ]);
    assert.deepEqual(compiled.configs, [
      { Name: 'greeting', Labels: stackLabels, Data: base64('hello you'), Templating: { Name: 'golang' } },
    ]);
    const spec = compiled.services[0]!.TaskTemplate.ContainerSpec;
    assert.deepEqual(spec.Secrets, [
      { File: { Name: 's', UID: '0', GID: '0', Mode: 0o444 }, SecretID: '', SecretName: 'app_s' },
      { File: { Name: '/x', UID: '103', GID: '0', Mode: 0o440 }, SecretID: '', SecretName: 'there' },
    ]);
    assert.equal(spec.Configs?.[0]?.ConfigName, 'greeting');
  });
});
