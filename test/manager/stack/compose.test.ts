// biome-ignore-all lint/suspicious/noTemplateCurlyInString: variables of compose files, not of this one
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { compileCompose, parseCompose } from '../../../manager/stack/compose.ts';
import { compile, complaints, stackLabels, web } from './files.ts';

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

  it('say what they depend on, short and long', () => {
    const labels = (...lines: string[]) =>
      compile([web(...lines), '  db: {image: db}', '  cache: {image: c}'].join('\n')).services[0]!.Labels;
    const label = 'shoal.depends-on';
    assert.equal(labels('depends_on: [db, cache]')[label], 'db,cache');
    const long = 'depends_on: {db: {condition: service_healthy}, cache: {}, no: {required: false}}';
    assert.equal(labels(long)[label], 'db:service_healthy,cache');
    assert.throws(
      () => labels('depends_on: [nobody]'),
      /services\.web\.depends_on: undefined service "nobody"/,
    );
    assert.throws(
      () => labels('depends_on: {db: {condition: soon}}'),
      /condition: must be one of service_started/,
    );
    assert.throws(
      () => labels('depends_on: [db]', 'deploy: {labels: {shoal.depends-on: db}}'),
      /says the same as the label shoal\.depends-on/,
    );
  });

  it('warn of what Docker ignores too', () => {
    const { warnings } = compile(
      [
        web('build: .', 'container_name: x', 'restart: always', 'ports: ["127.0.0.1:80:80"]', 'user: $WHO'),
        'networks: {idle: {}}',
      ].join('\n'),
    );
    const expected = [
      'compose.yml:8: services.web.user: the WHO variable is not set: taken as a blank string',
      'compose.yml:4: services.web.build: ignored: a stack does not build; push the image first',
      'compose.yml:5: services.web.container_name: ignored: setting the container name is not supported, a service may have many containers',
      'compose.yml:6: services.web.restart: is read as a restart policy; write deploy.restart_policy instead',
      "compose.yml:7: services.web.ports[0]: ignoring IP-address (127.0.0.1:80:80) service will listen on '0.0.0.0'",
      'compose.yml:9: networks.idle: not created: no service uses it',
    ];
    assert.deepEqual(
      warnings.map((warning) => warning.replace('/home/me/app/', '')),
      expected,
    );
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
    [
      web('labels:', '  - a=1', '  - __proto__=1', 'deploy:', '  labels:', '    __proto__: a'),
      [
        'compose.yml:6: services.web.labels.__proto__: nothing can have this name',
        'compose.yml:9: services.web.deploy.labels.__proto__: nothing can have this name',
      ],
    ],
    [
      web(
        'deploy:',
        '  resources:',
        '    reservations:',
        '      devices:',
        '        - {capabilities: [gpu], count: all}',
        '        - {capabilities: [gpu], device_ids: ["0"]}',
        '        - {capabilities: [tpu], count: 1, driver: x}',
      ),
      [
        'compose.yml:8: services.web.deploy.resources.reservations.devices[0].count: must be how many: "all" of a node can\'t be scheduled',
        "compose.yml:9: services.web.deploy.resources.reservations.devices[1].device_ids: say how many (count): which ones is the scheduler's to decide, of those that nodes name",
        'compose.yml:10: services.web.deploy.resources.reservations.devices[2].capabilities: only graphics processors can be reserved so ([gpu]): give other devices under devices',
        'compose.yml:10: services.web.deploy.resources.reservations.devices[2].driver: must be nvidia, not "x"',
      ],
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

  it('aliases that hold themselves or name nothing', () => {
    assert.deepEqual(
      complaints(() => compile('x-a: &a\n  - b\n  - [*a]\n')),
      ['compose.yml:3: x-a[1][0]: the alias *a holds itself'],
    );
    assert.match(complaints(() => compile('x-a: [\n*nowhere]'))[0] ?? '', /^compose.yml:2: /);
  });

  it('what is nested without end', () => {
    const nested = (depth: number) => `x-a: ${'['.repeat(depth)}${']'.repeat(depth)}`;
    assert.deepEqual(
      complaints(() => compile(nested(200))),
      ['compose.yml:1: x-a[0][0]: lists and maps are nested too deeply in each other'],
    );
    assert.equal(complaints(() => compile('['.repeat(100))).length, 5);
  });

  it('aliases of aliases of aliases are stopped', () => {
    const lines = ['x0: &a0 [x, x, x, x, x, x, x, x, x, x]'];
    for (let level = 1; level < 9; level += 1) {
      lines.push(`x${level}: &a${level} [${Array.from({ length: 10 }, () => `*a${level - 1}`).join(', ')}]`);
    }
    assert.match(complaints(() => compile(lines.join('\n')))[0] ?? '', /more than 200000 values/);
  });

  it('a relative path needs a folder to start at', () => {
    const input = {
      files: [{ path: 'compose.yml', content: web('volumes: [./x:/x]') }],
      environment: {},
      readFile: () => undefined,
    };
    assert.match(
      complaints(() => compileCompose(input, 'a'))[0] ?? '',
      /^compose.yml:4: .*must be an absolute path/,
    );
    const { services } = compileCompose({ ...input, folder: '/srv/app' }, 'a');
    assert.equal(services[0]?.TaskTemplate.ContainerSpec.Mounts?.[0]?.Source, '/srv/app/x');
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
