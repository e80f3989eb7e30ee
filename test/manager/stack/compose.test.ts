// biome-ignore-all lint/suspicious/noTemplateCurlyInString: variables of compose files, not of this one
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { compileCompose, parseCompose } from '../../../manager/stack/compose.ts';
import { compile, complaints, web } from './files.ts';

const stackLabels = { 'com.docker.stack.namespace': 'app' };

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

describe('compose: files', () => {
  it('are laid over each other: maps merged, values replaced, lists joined, keyed items replaced', () => {
    const { services } = compile([
      web(
        'command: [a, b]',
        'environment: [A=1, B=1]',
        'labels: {x: 1}',
        'dns: [1.1.1.1]',
        'ports: [{target: 80, published: 8080, mode: host}, "9000:9000"]',
        'volumes: ["/a:/x", "/b:/y"]',
        'deploy: {replicas: 2, labels: [k=1]}',
      ),
      web(
        'command: [c]',
        'environment: {B: 2, C: 3}',
        'labels: [y=2]',
        'dns: 8.8.8.8',
        'ports: ["8080:81"]',
        'volumes: ["/c:/y"]',
        'deploy: {labels: {k: 2}}',
      ),
      'services:\n  db:\n    image: postgres\n',
    ]);
    assert.deepEqual(
      services.map((one) => one.Name),
      ['app_web', 'app_db'],
    );
    const spec = services[0]!;
    const { ContainerSpec } = spec.TaskTemplate;
    assert.deepEqual(ContainerSpec.Args, ['c']);
    assert.deepEqual(ContainerSpec.Env, ['A=1', 'B=2', 'C=3']);
    assert.deepEqual(ContainerSpec.Labels, { x: '1', y: '2', ...stackLabels });
    assert.deepEqual(ContainerSpec.DNSConfig, { Nameservers: ['1.1.1.1', '8.8.8.8'] });
    assert.deepEqual(
      ContainerSpec.Mounts?.map((mount) => `${mount.Source}:${mount.Target}`),
      ['/a:/x', '/c:/y'],
    );
    assert.deepEqual(
      spec.EndpointSpec?.Ports?.map((port) => `${port.PublishedPort}:${port.TargetPort}`),
      ['8080:81', '9000:9000'],
    );
    assert.deepEqual(spec.Mode, { Replicated: { Replicas: 2 } });
    assert.equal(spec.Labels.k, '2');
  });

  it('may share parts by anchors and merge keys, and have extensions', () => {
    const { services } = compile(
      [
        'x-common: &common',
        '  image: nginx',
        '  environment: &env {A: 1}',
        'services:',
        '  web:',
        '    <<: *common',
        '    x-note: anything',
        '    environment: {<<: *env, B: 2}',
        '  other:',
        '    <<: [*common, {image: never, hostname: h}]',
      ].join('\n'),
    );
    const [web, other] = services.map((one) => one.TaskTemplate.ContainerSpec);
    assert.deepEqual([web?.Image, web?.Env], ['nginx', ['A=1', 'B=2']]);
    assert.deepEqual([other?.Image, other?.Hostname, other?.Env], ['nginx', 'h', ['A=1']]);
  });

  it('become a source that compiles to the same, without what is in secrets', () => {
    const content = [
      web('environment: ["PRICE=$$5", "WHO=${WHO}"]'),
      'secrets: {s: {content: very-hidden}}',
      'configs: {c: {content: shown}}',
    ].join('\n');
    const first = compile(content, {}, { WHO: 'me' });
    assert.ok(!first.source.includes('very-hidden'));
    assert.ok(first.source.includes('shown'));
    const again = compile(first.source);
    assert.deepEqual(again.services, first.services);
    assert.equal(again.source, first.source);
  });

  it('warn of what Docker ignores too', () => {
    const { warnings } = compile(
      [
        web(
          'build: .',
          'container_name: x',
          'depends_on: [db]',
          'restart: always',
          'ports: ["127.0.0.1:80:80"]',
          'user: $WHO',
        ),
        'networks: {idle: {}}',
      ].join('\n'),
    );
    const expected = [
      'compose.yml:9: services.web.user: the WHO variable is not set: taken as a blank string',
      'compose.yml:4: services.web.build: ignored: a stack does not build; push the image first',
      'compose.yml:5: services.web.container_name: ignored: setting the container name is not supported, a service may have many containers',
      'compose.yml:6: services.web.depends_on: ignored: the services of a stack start at the same time, and must wait for each other themselves',
      'compose.yml:7: services.web.restart: is read as a restart policy; write deploy.restart_policy instead',
      "compose.yml:8: services.web.ports[0]: ignoring IP-address (127.0.0.1:80:80) service will listen on '0.0.0.0'",
      'compose.yml:10: networks.idle: not created: no service uses it',
    ];
    assert.deepEqual(
      warnings.map((warning) => warning.replace('/home/me/app/', '')),
      expected,
    );
  });

  it('that ask for the routing mesh compile, and say on which line', () => {
    const { refusals } = compile(web('hostname: h', 'ports:', '  - 80', '  - 8080:80/udp'));
    assert.deepEqual(refusals, [
      '/home/me/app/compose.yml:6: services.web.ports[0]: publishing in ingress mode needs the routing mesh, which Shoal does not have yet; write {target: 80, mode: host}',
      '/home/me/app/compose.yml:7: services.web.ports[1]: publishing in ingress mode needs the routing mesh, which Shoal does not have yet; write {target: 80, published: 8080, protocol: udp, mode: host}',
    ]);
  });
});

describe('compose: what is wrong is told with its line', () => {
  const faults: [string, string[]][] = [
    [
      web('replicaz: 3'),
      ['compose.yml:4: services.web.replicaz: unknown key (did you mean "replicas" under deploy?)'],
    ],
    [web('comand: x'), ['compose.yml:4: services.web.comand: unknown key (did you mean "command"?)']],
    [
      web('deploy:', '  replica: 2'),
      ['compose.yml:5: services.web.deploy.replica: unknown key (did you mean "replicas"?)'],
    ],
    [
      web('mem_limit: 1g'),
      [
        'compose.yml:4: services.web.mem_limit: is not supported in a stack: set deploy.resources.limits.memory',
      ],
    ],
    [web('frobnicate: 1'), ['compose.yml:4: services.web.frobnicate: unknown key']],
    ['servces: {}', ['compose.yml:1: servces: unknown key (did you mean "services"?)']],
    [web('image: again'), ['compose.yml:4: Map keys must be unique']],
    [
      web('deploy: {mode: globl}'),
      [
        'compose.yml:4: services.web.deploy.mode: must be one of replicated, global, replicated-job, global-job, not "globl"',
      ],
    ],
    [web('hostname: 3'), ['compose.yml:4: services.web.hostname: must be a string, not a number (3)']],
    [web('volumes: x'), ['compose.yml:4: services.web.volumes: must be a list, not a string ("x")']],
    [
      web('environment: {A: true}'),
      [
        'compose.yml:4: services.web.environment.A: must be a string, a number or empty; true and false need quotes',
      ],
    ],
    [
      web('deploy: {replicas: many}'),
      ['compose.yml:4: services.web.deploy.replicas: must be a whole number'],
    ],
    [
      web('ports:', '  - 80', '  - {published: 8080}'),
      ['compose.yml:6: services.web.ports[1].target: is missing: target must be given'],
    ],
    [
      web('ports: ["80:x"]'),
      ['compose.yml:4: services.web.ports[0]: invalid port "80:x": write [published:]target[/protocol]'],
    ],
    [
      web('ports: ["1-3:1-2"]'),
      ['compose.yml:4: services.web.ports[0]: invalid port "1-3:1-2": the two ranges differ in length'],
    ],
    [
      web('stop_grace_period: 10'),
      ['compose.yml:4: services.web.stop_grace_period: must be a string, not a number (10)'],
    ],
    [
      web('stop_grace_period: 10x'),
      [
        'compose.yml:4: services.web.stop_grace_period: invalid duration "10x": write a number with a unit, such as 10s or 1m30s',
      ],
    ],
    [
      web('deploy: {resources: {limits: {memory: lots}}}'),
      [
        'compose.yml:4: services.web.deploy.resources.limits.memory: invalid size "lots": write a number with a unit, such as 512M or 1G',
      ],
    ],
    [
      web('deploy:', '  placement:', '    constraints:', '      - node.role==manager', '      - node=foo'),
      [
        'compose.yml:8: services.web.deploy.placement.constraints[1]: invalid placement constraint "node=foo": it needs one operator of ==, !=, as in node.role==manager',
      ],
    ],
    [
      web('networks:', '  - back'),
      [
        'compose.yml:5: services.web.networks.back: undefined network "back": define it under the top-level networks',
      ],
    ],
    [
      web('secrets: [s]'),
      ['compose.yml:4: services.web.secrets[0]: undefined secret "s": define it under the top-level secrets'],
    ],
    [
      web('volumes: ["data:/d"]'),
      [
        'compose.yml:4: services.web.volumes[0]: undefined volume "data": define it under the top-level volumes',
      ],
    ],
    [
      web('env_file: no.env'),
      ['compose.yml:4: services.web.env_file[0]: file no.env not found (looked for no.env)'],
    ],
    [
      `${web()}\nsecrets:\n  s:\n    file: no.txt`,
      ['compose.yml:6: secrets.s.file: file no.txt not found (looked for no.txt)'],
    ],
    [
      `${web()}\nconfigs:\n  c: {}`,
      ['compose.yml:5: configs.c: has no content: give one of file, content, environment, or external: true'],
    ],
    [
      web('user: ${WHO:?who is it}'),
      ['compose.yml:4: services.web.user: required variable WHO is missing a value: who is it'],
    ],
    [
      web('deploy: {mode: global, replicas: 2}'),
      [
        'compose.yml:4: services.web.deploy.replicas: replicas can only be used with replicated or replicated-job mode',
      ],
    ],
    [
      'services: {a: {}, b: {hostname: x}}',
      [
        'compose.yml:1: services.a: no image: a stack does not build, name one under a.image',
        'compose.yml:1: services.b: no image: a stack does not build, name one under b.image',
      ],
    ],
    [
      'services:\n  web: [',
      ['compose.yml:2: Flow sequence in block collection must be sufficiently indented and end with a ]'],
    ],
    ['- a', ['compose.yml:1: a compose file is a map with services in it']],
    ['version: "3"', ['compose.yml:1: services: no services: a stack has at least one']],
  ];
  for (const [content, expected] of faults) {
    it(expected[0]!.slice(0, 100), () =>
      assert.deepEqual(
        complaints(() => compile(content)),
        expected,
      ),
    );
  }

  it('in the file that it is in', () => {
    assert.deepEqual(
      complaints(() => compile([web(), 'services:\n  web:\n    deploy: {replicas: -1}'])),
      ['over1.yml:3: services.web.deploy.replicas: must not be negative'],
    );
  });

  it('all at once', () => {
    assert.equal(complaints(() => compile(web('tty: 3', 'user: []', 'x: y'))).length, 3);
  });

  it('aliases of aliases of aliases are stopped', () => {
    const lines = ['x0: &a0 [x, x, x, x, x, x, x, x, x, x]'];
    for (let level = 1; level < 9; level += 1) {
      lines.push(`x${level}: &a${level} [${Array.from({ length: 10 }, () => `*a${level - 1}`).join(', ')}]`);
    }
    assert.match(complaints(() => compile(lines.join('\n')))[0] ?? '', /more than 200000 values/);
  });

  it('a stack needs a fit name', () => {
    const input = { files: [{ path: 'c.yml', content: web() }], environment: {}, readFile: () => undefined };
    for (const name of ['', 'a b', '-a', 'a/b']) {
      assert.throws(() => compileCompose(input, name), {
        code: 'invalid-argument',
        message: /invalid stack name/,
      });
    }
    assert.throws(() => compileCompose({ ...input, files: [] }, 'a'), { message: /needs a compose file/ });
  });
});

describe("compose: Docker's own files", () => {
  const corpus = join(findCorpus(), 'compose');

  function findCorpus(): string {
    if (process.env.SHOAL_CORPUS) return process.env.SHOAL_CORPUS;
    let folder = dirname(fileURLToPath(import.meta.url));
    while (!existsSync(join(folder, 'package.json')) && folder !== '/') folder = dirname(folder);
    return join(folder, '..', 'shared', 'corpus');
  }

  const names = ['full-example.yml', 'full-stack.yml', 'stack-with-named-resources.yml'];
  for (const name of names) {
    it(name, function () {
      const path = join(corpus, name);
      if (!existsSync(path)) this.skip();
      const input = { files: [{ path, content: readFileSync(path, 'utf8') }], environment: {} };
      const { file, problems } = parseCompose(input);
      assert.deepEqual([problems.errors, problems.warnings], [[], []]);
      assert.ok(Object.keys(file.services ?? {}).length > 0);
      if (name === 'full-example.yml') return;
      const compiled = compileCompose({ ...input, readFile: () => 'data' }, 'app');
      assert.deepEqual([compiled.warnings, compiled.refusals], [[], []]);
      assert.equal(compiled.services.length, Object.keys(file.services ?? {}).length);
    });
  }
});
