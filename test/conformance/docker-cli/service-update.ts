/** The flags of `docker service update`: the spec before and after. Services have no replicas unless it matters. */
import assert from 'node:assert/strict';
import { isDeepStrictEqual } from 'node:util';
import { at, containerOf, docker, effect, type FlagCase, inspect, type Json, waitFor } from './case.ts';
import { askedWithCredentials, newName, specPath, withService } from './service-create.ts';

const command = 'docker service update';
const second = 1e9;

interface Row {
  readonly flag: string;
  /** What the service is made with. */
  readonly made: readonly string[];
  /** What is changed. */
  readonly args: readonly string[];
  readonly path: string;
  readonly before: Json;
  readonly after: Json;
}

/** `typed` is the change, `made` what the service is made with, both as typed. */
function row(typed: string, path: string, after: Json, made = '', before: Json = undefined): Row {
  const args = typed.split(' ');
  return {
    flag: args[0]!.slice(2).split('=')[0]!,
    made: made === '' ? [] : made.split(' '),
    args,
    path,
    before,
    after,
  };
}

const http = { Protocol: 'tcp', TargetPort: 80, PublishedPort: 18_090, PublishMode: 'host' };

const rows: readonly Row[] = [
  row('--args 5', '.ContainerSpec.Args', ['5']),
  row('--cap-add NET_ADMIN', '.ContainerSpec.CapabilityAdd', ['CAP_NET_ADMIN']),
  row('--cap-drop NET_RAW', '.ContainerSpec.CapabilityDrop', ['CAP_NET_RAW']),
  row('--config-rm flag-config', '.ContainerSpec.Configs', undefined, '--config flag-config'),
  row('--constraint-add node.role==manager', '.Placement.Constraints', ['node.role==manager']),
  row(
    '--constraint-rm node.role==manager',
    '.Placement.Constraints',
    undefined,
    '--constraint node.role==manager',
    ['node.role==manager'],
  ),
  row('--container-label-add a=b', '.ContainerSpec.Labels', { a: 'b' }),
  row('--container-label-rm a', '.ContainerSpec.Labels', undefined, '--container-label a=b', { a: 'b' }),
  row(
    '--credential-spec config://flag-credentials',
    '.ContainerSpec.Privileges.CredentialSpec.Config',
    'flag-credentials-id',
  ),
  row('--dns-add 10.9.8.7', '.ContainerSpec.DNSConfig.Nameservers', ['10.9.8.7']),
  row('--dns-rm 10.9.8.7', '.ContainerSpec.DNSConfig.Nameservers', undefined, '--dns 10.9.8.7', ['10.9.8.7']),
  row('--dns-option-add ndots:3', '.ContainerSpec.DNSConfig.Options', ['ndots:3']),
  row('--dns-option-rm ndots:3', '.ContainerSpec.DNSConfig.Options', undefined, '--dns-option ndots:3', [
    'ndots:3',
  ]),
  row('--dns-search-add a.test', '.ContainerSpec.DNSConfig.Search', ['a.test']),
  row('--dns-search-rm a.test', '.ContainerSpec.DNSConfig.Search', undefined, '--dns-search a.test', [
    'a.test',
  ]),
  row('--endpoint-mode dnsrr', 'EndpointSpec.Mode', 'dnsrr', '', 'vip'),
  row('--entrypoint sleep', '.ContainerSpec.Command', ['sleep']),
  row('--env-add A=c', '.ContainerSpec.Env', ['A=c'], '--env A=b', ['A=b']),
  row('--env-rm A', '.ContainerSpec.Env', undefined, '--env A=b', ['A=b']),
  row('--force', '.ForceUpdate', 1, '', 0),
  row('--generic-resource-add flaggpu=1', '.Resources.Reservations.GenericResources', [
    { DiscreteResourceSpec: { Kind: 'flaggpu', Value: 1 } },
  ]),
  row(
    '--generic-resource-rm flaggpu',
    '.Resources.Reservations.GenericResources',
    undefined,
    '--generic-resource flaggpu=1',
    [{ DiscreteResourceSpec: { Kind: 'flaggpu', Value: 1 } }],
  ),
  row('--group-add 1001', '.ContainerSpec.Groups', ['1001']),
  row('--group-rm 1001', '.ContainerSpec.Groups', undefined, '--group 1001', ['1001']),
  row('--health-cmd true', '.ContainerSpec.Healthcheck.Test', ['CMD-SHELL', 'true']),
  row('--health-interval 7s', '.ContainerSpec.Healthcheck.Interval', 7 * second),
  row('--health-retries 4', '.ContainerSpec.Healthcheck.Retries', 4),
  row('--health-start-period 3s', '.ContainerSpec.Healthcheck.StartPeriod', 3 * second),
  row('--health-timeout 5s', '.ContainerSpec.Healthcheck.Timeout', 5 * second),
  row('--host-add db:10.1.2.3', '.ContainerSpec.Hosts', ['10.1.2.3 db']),
  row('--host-rm db:10.1.2.3', '.ContainerSpec.Hosts', undefined, '--host db:10.1.2.3', ['10.1.2.3 db']),
  row('--hostname flag-host', '.ContainerSpec.Hostname', 'flag-host'),
  row('--image busybox:other', '.ContainerSpec.Image', 'busybox:other', '', 'busybox:lab'),
  row('--init', '.ContainerSpec.Init', true, '', false),
  row('--isolation hyperv', '.ContainerSpec.Isolation', 'hyperv'),
  row('--label-add a=b', 'Labels', { a: 'b' }, '', {}),
  row('--label-rm a', 'Labels', {}, '--label a=b', { a: 'b' }),
  row('--limit-cpu 0.5', '.Resources.Limits.NanoCPUs', 5e8),
  row('--limit-memory 64m', '.Resources.Limits.MemoryBytes', 64 * 2 ** 20),
  row('--limit-pids 100', '.Resources.Limits.Pids', 100),
  row('--log-driver local', '.LogDriver.Name', 'local'),
  row('--mount-add type=tmpfs,target=/x', '.ContainerSpec.Mounts', [{ Type: 'tmpfs', Target: '/x' }]),
  row('--mount-rm /x', '.ContainerSpec.Mounts', undefined, '--mount type=tmpfs,target=/x', [
    { Type: 'tmpfs', Target: '/x' },
  ]),
  row('--network-rm flag-network', '.Networks', undefined, '--network flag-network'),
  row('--no-healthcheck', '.ContainerSpec.Healthcheck.Test', ['NONE']),
  row('--oom-score-adj 300', '.ContainerSpec.OomScoreAdj', 300),
  row('--placement-pref-add spread=node.labels.az', '.Placement.Preferences', [
    { Spread: { SpreadDescriptor: 'node.labels.az' } },
  ]),
  row(
    '--placement-pref-rm spread=node.labels.az',
    '.Placement.Preferences',
    undefined,
    '--placement-pref spread=node.labels.az',
    [{ Spread: { SpreadDescriptor: 'node.labels.az' } }],
  ),
  row('--publish-add published=18090,target=80,mode=host', 'EndpointSpec.Ports', [http]),
  row(
    '--publish-rm published=18090,target=80,mode=host',
    'EndpointSpec.Ports',
    undefined,
    '--publish published=18090,target=80,mode=host',
    [http],
  ),
  row('--read-only', '.ContainerSpec.ReadOnly', true),
  row('--replicas 2', 'Mode.Replicated.Replicas', 2, '', 0),
  row('--replicas-max-per-node 3', '.Placement.MaxReplicas', 3),
  row('--reserve-cpu 0.1', '.Resources.Reservations.NanoCPUs', 1e8),
  row('--reserve-memory 16m', '.Resources.Reservations.MemoryBytes', 16 * 2 ** 20),
  row('--restart-condition on-failure', '.RestartPolicy.Condition', 'on-failure', '', 'any'),
  row('--restart-delay 9s', '.RestartPolicy.Delay', 9 * second, '', 5 * second),
  row('--restart-max-attempts 2', '.RestartPolicy.MaxAttempts', 2, '', 0),
  row('--restart-window 8s', '.RestartPolicy.Window', 8 * second),
  row('--rollback', 'Labels', {}, '', {}),
  row('--rollback-delay 6s', 'RollbackConfig.Delay', 6 * second),
  row('--rollback-failure-action continue', 'RollbackConfig.FailureAction', 'continue', '', 'pause'),
  row('--rollback-max-failure-ratio 0.3', 'RollbackConfig.MaxFailureRatio', 0.3, '', 0),
  row('--rollback-monitor 4s', 'RollbackConfig.Monitor', 4 * second, '', 5 * second),
  row('--rollback-order start-first', 'RollbackConfig.Order', 'start-first', '', 'stop-first'),
  row('--rollback-parallelism 3', 'RollbackConfig.Parallelism', 3, '', 1),
  row('--secret-rm flag-secret', '.ContainerSpec.Secrets', undefined, '--secret flag-secret'),
  row('--stop-grace-period 3s', '.ContainerSpec.StopGracePeriod', 3 * second, '', 0),
  row('--stop-signal SIGINT', '.ContainerSpec.StopSignal', 'SIGINT'),
  row('--sysctl-add net.core.somaxconn=80', '.ContainerSpec.Sysctls', { 'net.core.somaxconn': '80' }),
  row(
    '--sysctl-rm net.core.somaxconn',
    '.ContainerSpec.Sysctls',
    undefined,
    '--sysctl net.core.somaxconn=80',
    {
      'net.core.somaxconn': '80',
    },
  ),
  row('--tty', '.ContainerSpec.TTY', true),
  row('--ulimit-add nofile=100:200', '.ContainerSpec.Ulimits', [{ Name: 'nofile', Soft: 100, Hard: 200 }]),
  row('--ulimit-rm nofile', '.ContainerSpec.Ulimits', undefined, '--ulimit nofile=100:200', [
    { Name: 'nofile', Soft: 100, Hard: 200 },
  ]),
  row('--update-delay 6s', 'UpdateConfig.Delay', 6 * second),
  row('--update-failure-action rollback', 'UpdateConfig.FailureAction', 'rollback', '', 'pause'),
  row('--update-max-failure-ratio 0.3', 'UpdateConfig.MaxFailureRatio', 0.3, '', 0),
  row('--update-monitor 4s', 'UpdateConfig.Monitor', 4 * second, '', 5 * second),
  row('--update-order start-first', 'UpdateConfig.Order', 'start-first', '', 'stop-first'),
  row('--update-parallelism 3', 'UpdateConfig.Parallelism', 3, '', 1),
  row('--user 1000', '.ContainerSpec.User', '1000'),
  row('--workdir /tmp', '.ContainerSpec.Dir', '/tmp'),
];

/** What the spec says when it says nothing. */
function isUnset(value: Json): boolean {
  return (
    value === undefined ||
    value === null ||
    value === 0 ||
    value === '' ||
    value === false ||
    (Array.isArray(value) ? value.length === 0 : typeof value === 'object' && Object.keys(value).length === 0)
  );
}

function assertValue(spec: Json, path: string, value: Json, when: string): void {
  const found = at(spec, path);
  if (isUnset(value)) assert.ok(isUnset(found), `${path} ${when}: ${JSON.stringify(found)}`);
  else assert.deepEqual(found, value, `${path} ${when}`);
}

/** Rows whose value before is an object with an id; that it is there is enough. */
const presence = new Set(['config-rm', 'network-rm', 'secret-rm']);

function caseOf({ flag, made, args, path, before, after }: Row): FlagCase {
  return {
    command,
    flag: `--${flag}`,
    run: async (world) => {
      const wanted =
        flag === 'credential-spec' ? (await inspect(world, 'config', 'flag-credentials')).ID : after;
      const replicas = made.includes('--mode') ? [] : ['--replicas', '0'];
      return withService(world, [...replicas, ...made], async (name) => {
        const place = specPath(path);
        const { Spec: old } = await inspect(world, 'service', name);
        if (presence.has(flag)) assert.equal(at(old, place)?.length, 1);
        else if (before !== undefined) assertValue(old, place, before, 'before');
        else assert.notDeepEqual(at(old, place), wanted, `${place} before`);
        await docker(world, ['service', 'update', '--detach', '--no-resolve-image', ...args, name]);
        assertValue((await inspect(world, 'service', name)).Spec, place, wanted, 'after');
        return effect(`\`Spec.${place}\` changes`);
      });
    },
  };
}

function own(flag: string, run: FlagCase['run']): FlagCase {
  return { command, flag, run };
}

const none = ['--replicas', '0'];

const others: readonly FlagCase[] = [
  own('', (world) =>
    withService(world, none, async (name) => {
      await docker(world, ['service', 'update', '--detach', '--env-add', 'A=b', name]);
      const { PreviousSpec } = await inspect(world, 'service', name);
      assert.ok(PreviousSpec);
      return effect('`Spec` changes, `PreviousSpec` is the one before');
    }),
  ),
  own('--config-add', (world) =>
    withService(world, none, async (name) => {
      await docker(world, [
        'service',
        'update',
        '--detach',
        '--config-add',
        'source=flag-config,target=/c',
        name,
      ]);
      const { Spec } = await inspect(world, 'service', name);
      assert.equal(at(Spec, 'TaskTemplate.ContainerSpec.Configs.0.File.Name'), '/c');
      return effect('`Spec.TaskTemplate.ContainerSpec.Configs` changes');
    }),
  ),
  own('--secret-add', (world) =>
    withService(world, none, async (name) => {
      await docker(world, [
        'service',
        'update',
        '--detach',
        '--secret-add',
        'source=flag-secret,target=s',
        name,
      ]);
      const { Spec } = await inspect(world, 'service', name);
      assert.equal(at(Spec, 'TaskTemplate.ContainerSpec.Secrets.0.File.Name'), 's');
      return effect('`Spec.TaskTemplate.ContainerSpec.Secrets` changes');
    }),
  ),
  own('--network-add', (world) =>
    withService(world, none, async (name) => {
      await docker(world, ['service', 'update', '--detach', '--network-add', 'flag-network', name]);
      const { Spec } = await inspect(world, 'service', name);
      const { ID, Id } = await inspect(world, 'network', 'flag-network');
      assert.equal(at(Spec, 'TaskTemplate.Networks.0.Target'), ID ?? Id);
      return effect('`Spec.TaskTemplate.Networks` changes');
    }),
  ),
  own('--log-opt', (world) =>
    withService(world, [...none, '--log-driver', 'json-file'], async (name) => {
      await docker(world, [
        'service',
        'update',
        '--detach',
        '--log-driver',
        'json-file',
        '--log-opt',
        'max-size=2m',
        name,
      ]);
      const { Spec } = await inspect(world, 'service', name);
      assert.deepEqual(at(Spec, 'TaskTemplate.LogDriver'), {
        Name: 'json-file',
        Options: { 'max-size': '2m' },
      });
      return effect('`Spec.TaskTemplate.LogDriver.Options` changes');
    }),
  ),
  own('--rollback', (world) =>
    withService(world, none, async (name) => {
      await docker(world, ['service', 'update', '--detach', '--label-add', 'a=b', name]);
      await docker(world, ['service', 'update', '--detach', '--rollback', name]);
      assert.deepEqual((await inspect(world, 'service', name)).Spec.Labels, {});
      return effect('`Spec` is the one before');
    }),
  ),
  own('--detach', (world) =>
    withService(world, none, async (name) => {
      const left = await docker(world, ['service', 'update', '--detach', '--env-add', 'A=b', name]);
      assert.equal(left.stdout.trim(), name);
      const waited = await docker(world, ['service', 'update', '--env-add', 'A=c', name]);
      assert.match(`${waited.stdout}${waited.stderr}`, /converged/);
      return effect('returns at once; without it the client waits until the service has converged');
    }),
  ),
  own('--quiet', (world) =>
    withService(world, none, async (name) => {
      const { stdout } = await docker(world, ['service', 'update', '--quiet', '--env-add', 'A=b', name]);
      assert.equal(stdout.trim(), name);
      return effect('prints the name only, when the service has converged');
    }),
  ),
  own('--with-registry-auth', (world) =>
    withService(world, [], async (name) => {
      const repository = newName();
      const image = ['--image', `${world.registry}/${repository}:1`];
      await docker(world, [
        'service',
        'update',
        '--detach',
        '--no-resolve-image',
        '--with-registry-auth',
        ...image,
        name,
      ]);
      return askedWithCredentials(world, repository);
    }),
  ),
  own('--no-resolve-image', (world) =>
    withService(world, none, async (name) => {
      const args = [
        'service',
        'update',
        '--detach',
        '--no-resolve-image',
        '--image',
        'busybox:nowhere',
        name,
      ];
      const { stderr } = await docker(world, args);
      assert.doesNotMatch(stderr, /could not be accessed on a registry/);
      const { Spec } = await inspect(world, 'service', name);
      assert.equal(at(Spec, 'TaskTemplate.ContainerSpec.Image'), 'busybox:nowhere');
      return effect('the image stays as typed, and no registry is asked');
    }),
  ),
];

/** Flags that the stock client's `service update` takes and forgets; what they are for, our own client does. */
function unsent(
  flag: string,
  made: readonly string[],
  args: readonly string[],
  path: string,
  value: Json,
): FlagCase {
  return own(flag, (world) =>
    withService(world, made, async (name) => {
      const specOf = async () => (await inspect(world, 'service', name)).Spec;
      const before = await specOf();
      await docker(world, ['service', 'update', '--detach', '--no-resolve-image', ...args, name]);
      const after = await specOf();
      if (isDeepStrictEqual(at(after, path), value)) return effect(`\`Spec.${path}\` changes`);
      assert.deepEqual(after, before);
      await world.shoal('service', 'update', '--detach', ...args, name);
      assert.deepEqual(at(await specOf(), path), value);
      return {
        kind: 'unsent',
        words: `the stock client sends nothing of it; \`shoal service update ${flag}\` changes \`Spec.${path}\``,
      };
    }),
  );
}

const forgotten: readonly FlagCase[] = [
  unsent(
    '--health-start-interval',
    [...none, '--health-cmd', 'true'],
    ['--health-start-interval', '2s'],
    'TaskTemplate.ContainerSpec.Healthcheck.StartInterval',
    2 * second,
  ),
  unsent(
    '--max-concurrent',
    ['--mode', 'replicated-job', '--max-concurrent', '2'],
    ['--max-concurrent', '3'],
    'Mode.ReplicatedJob.MaxConcurrent',
    3,
  ),
];

const scale: readonly FlagCase[] = [
  {
    command: 'docker service scale',
    flag: '',
    run: (world) =>
      withService(world, none, async (name) => {
        await docker(world, ['service', 'scale', `${name}=1`]);
        const { stdout } = await docker(world, [
          'service',
          'ls',
          '--format',
          '{{.Replicas}}',
          '--filter',
          `name=${name}`,
        ]);
        assert.ok(stdout.split('\n').includes('1/1'));
        return effect('`Spec.Mode.Replicated.Replicas`; waits until they run');
      }),
  },
  {
    command: 'docker service scale',
    flag: '--detach',
    run: (world) =>
      withService(world, none, async (name) => {
        const { stdout } = await docker(world, ['service', 'scale', '--detach', `${name}=2`]);
        assert.doesNotMatch(stdout, /converged/);
        assert.equal((await inspect(world, 'service', name)).Spec.Mode.Replicated.Replicas, 2);
        return effect('returns at once');
      }),
  },
];

const rollback: readonly FlagCase[] = ['', '--detach', '--quiet'].map((flag) => ({
  command: 'docker service rollback',
  flag,
  run: (world) =>
    withService(world, none, async (name) => {
      await docker(world, ['service', 'update', '--detach', '--label-add', 'a=b', name]);
      const { stdout, stderr } = await docker(world, ['service', 'rollback', ...(flag ? [flag] : []), name]);
      assert.deepEqual((await inspect(world, 'service', name)).Spec.Labels, {});
      if (flag === '') assert.match(`${stdout}${stderr}`, /converged/);
      else assert.equal(stdout.trim(), name);
      const words = { '--detach': 'returns at once', '--quiet': 'prints the name only' }[flag];
      return effect(words ?? '`Spec` is the one before');
    }),
}));

const remove: FlagCase = {
  command: 'docker service rm',
  flag: '',
  run: (world) =>
    withService(world, [], async (name) => {
      const { Id } = await containerOf(world, name);
      await docker(world, ['service', 'rm', name]);
      await waitFor('the container to go', 20_000, async () => {
        const { stdout } = await docker(world, ['ps', '-aq', '--no-trunc'], { socket: world.engineSocket });
        return !stdout.includes(Id);
      });
      return effect('the service and its containers are gone');
    }),
};

export const serviceUpdateCases: readonly FlagCase[] = [
  ...rows.filter(({ flag }) => flag !== 'rollback').map(caseOf),
  ...others,
  ...forgotten,
  ...scale,
  ...rollback,
  remove,
];
