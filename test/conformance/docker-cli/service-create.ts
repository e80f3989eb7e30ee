/** The flags of `docker service create`: what each puts into the spec, and where it shows on the container. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  at,
  containerOf,
  docker,
  effect,
  type FlagCase,
  inspect,
  type Json,
  type Result,
  type World,
  waitFor,
} from './case.ts';

const command = 'docker service create';

interface Row {
  /** The flag, without dashes. */
  readonly flag: string;
  /** What is typed. */
  readonly args: readonly string[];
  /** Path in the spec, from TaskTemplate where it begins with a dot, and the value there. */
  readonly path: string;
  readonly value: Json;
  /** Path in the container's `inspect`, and the value there; absent where the container does not show it. */
  readonly shown?: readonly [path: string, value: Json];
}

/** `.ContainerSpec.X` is below TaskTemplate. */
export function specPath(path: string): string {
  return path.startsWith('.') ? `TaskTemplate${path}` : path;
}

const second = 1e9;

function row(typed: string, path: string, value: Json, shown?: readonly [string, Json]): Row {
  const args = typed.split(' ');
  return { flag: args[0]!.slice(2).split('=')[0]!, args, path, value, ...(shown ? { shown } : {}) };
}

const rows: readonly Row[] = [
  row(
    '--cap-add NET_ADMIN',
    '.ContainerSpec.CapabilityAdd',
    ['CAP_NET_ADMIN'],
    ['HostConfig.CapAdd', ['CAP_NET_ADMIN']],
  ),
  row(
    '--cap-drop NET_RAW',
    '.ContainerSpec.CapabilityDrop',
    ['CAP_NET_RAW'],
    ['HostConfig.CapDrop', ['CAP_NET_RAW']],
  ),
  row('--constraint node.role==manager', '.Placement.Constraints', ['node.role==manager']),
  row('--container-label a=b', '.ContainerSpec.Labels', { a: 'b' }, ['Config.Labels.a', 'b']),
  row(
    '--credential-spec config://flag-credentials',
    '.ContainerSpec.Privileges.CredentialSpec.Config',
    'flag-credentials-id',
  ),
  row(
    '--dns 10.9.8.7',
    '.ContainerSpec.DNSConfig.Nameservers',
    ['10.9.8.7'],
    ['HostConfig.Dns', ['10.9.8.7']],
  ),
  row(
    '--dns-option ndots:3',
    '.ContainerSpec.DNSConfig.Options',
    ['ndots:3'],
    ['HostConfig.DnsOptions', ['ndots:3']],
  ),
  row(
    '--dns-search a.test',
    '.ContainerSpec.DNSConfig.Search',
    ['a.test'],
    ['HostConfig.DnsSearch', ['a.test']],
  ),
  row('--endpoint-mode dnsrr', 'EndpointSpec.Mode', 'dnsrr'),
  row('--entrypoint sleep', '.ContainerSpec.Command', ['sleep'], ['Path', 'sleep']),
  row('--env A=b', '.ContainerSpec.Env', ['A=b']),
  row('--generic-resource flaggpu=1', '.Resources.Reservations.GenericResources', [
    { DiscreteResourceSpec: { Kind: 'flaggpu', Value: 1 } },
  ]),
  row('--group 1001', '.ContainerSpec.Groups', ['1001'], ['HostConfig.GroupAdd', ['1001']]),
  row(
    '--health-cmd true',
    '.ContainerSpec.Healthcheck.Test',
    ['CMD-SHELL', 'true'],
    ['Config.Healthcheck.Test', ['CMD-SHELL', 'true']],
  ),
  row('--health-interval 7s', '.ContainerSpec.Healthcheck.Interval', 7 * second, [
    'Config.Healthcheck.Interval',
    7 * second,
  ]),
  row('--health-retries 4', '.ContainerSpec.Healthcheck.Retries', 4, ['Config.Healthcheck.Retries', 4]),
  row('--health-start-interval 2s', '.ContainerSpec.Healthcheck.StartInterval', 2 * second),
  {
    flag: 'health-start-period',
    // The client of 20.10 forgets it when it stands alone.
    args: ['--health-cmd', 'true', '--health-start-period', '3s'],
    path: '.ContainerSpec.Healthcheck.StartPeriod',
    value: 3 * second,
    shown: ['Config.Healthcheck.StartPeriod', 3 * second],
  },
  row('--health-timeout 5s', '.ContainerSpec.Healthcheck.Timeout', 5 * second, [
    'Config.Healthcheck.Timeout',
    5 * second,
  ]),
  row(
    '--host db:10.1.2.3',
    '.ContainerSpec.Hosts',
    ['10.1.2.3 db'],
    ['HostConfig.ExtraHosts', ['db:10.1.2.3']],
  ),
  row('--hostname flag-host', '.ContainerSpec.Hostname', 'flag-host', ['Config.Hostname', 'flag-host']),
  row('--init', '.ContainerSpec.Init', true),
  row('--isolation hyperv', '.ContainerSpec.Isolation', 'hyperv'),
  row('--label a=b', 'Labels', { a: 'b' }),
  row('--limit-cpu 0.5', '.Resources.Limits.NanoCPUs', 5e8, ['HostConfig.NanoCpus', 5e8]),
  row('--limit-memory 64m', '.Resources.Limits.MemoryBytes', 64 * 2 ** 20, [
    'HostConfig.Memory',
    64 * 2 ** 20,
  ]),
  row('--limit-pids 100', '.Resources.Limits.Pids', 100, ['HostConfig.PidsLimit', 100]),
  row('--log-driver local', '.LogDriver.Name', 'local', ['HostConfig.LogConfig.Type', 'local']),
  {
    flag: 'log-opt',
    args: ['--log-driver', 'json-file', '--log-opt', 'max-size=1m'],
    path: '.LogDriver.Options',
    value: { 'max-size': '1m' },
    shown: ['HostConfig.LogConfig.Config', { 'max-size': '1m' }],
  },
  {
    flag: 'max-concurrent',
    args: ['--mode', 'replicated-job', '--replicas', '4', '--max-concurrent', '2'],
    path: 'Mode.ReplicatedJob',
    value: { MaxConcurrent: 2, TotalCompletions: 4 },
  },
  row('--mode global', 'Mode', { Global: {} }),
  row(
    '--mount type=volume,source=flagvolume,target=/x,readonly',
    '.ContainerSpec.Mounts',
    [{ Type: 'volume', Source: 'flagvolume', Target: '/x', ReadOnly: true }],
    ['Mounts.0.Name', 'flagvolume'],
  ),
  row('--no-healthcheck', '.ContainerSpec.Healthcheck.Test', ['NONE'], ['Config.Healthcheck.Test', ['NONE']]),
  row('--oom-score-adj 300', '.ContainerSpec.OomScoreAdj', 300, ['HostConfig.OomScoreAdj', 300]),
  row('--placement-pref spread=node.labels.az', '.Placement.Preferences', [
    { Spread: { SpreadDescriptor: 'node.labels.az' } },
  ]),
  row('--read-only', '.ContainerSpec.ReadOnly', true, ['HostConfig.ReadonlyRootfs', true]),
  row('--replicas 2', 'Mode.Replicated.Replicas', 2),
  row('--replicas-max-per-node 3', '.Placement.MaxReplicas', 3),
  row('--reserve-cpu 0.1', '.Resources.Reservations.NanoCPUs', 1e8),
  row('--reserve-memory 16m', '.Resources.Reservations.MemoryBytes', 16 * 2 ** 20, [
    'HostConfig.MemoryReservation',
    16 * 2 ** 20,
  ]),
  row('--restart-condition on-failure', '.RestartPolicy.Condition', 'on-failure'),
  row('--restart-delay 9s', '.RestartPolicy.Delay', 9 * second),
  row('--restart-max-attempts 2', '.RestartPolicy.MaxAttempts', 2),
  row('--restart-window 8s', '.RestartPolicy.Window', 8 * second),
  row('--rollback-delay 6s', 'RollbackConfig.Delay', 6 * second),
  row('--rollback-failure-action continue', 'RollbackConfig.FailureAction', 'continue'),
  row('--rollback-max-failure-ratio 0.3', 'RollbackConfig.MaxFailureRatio', 0.3),
  row('--rollback-monitor 4s', 'RollbackConfig.Monitor', 4 * second),
  row('--rollback-order start-first', 'RollbackConfig.Order', 'start-first'),
  row('--rollback-parallelism 3', 'RollbackConfig.Parallelism', 3),
  row('--stop-grace-period 3s', '.ContainerSpec.StopGracePeriod', 3 * second),
  row('--stop-signal SIGINT', '.ContainerSpec.StopSignal', 'SIGINT', ['Config.StopSignal', 'SIGINT']),
  row(
    '--sysctl net.ipv4.ip_unprivileged_port_start=80',
    '.ContainerSpec.Sysctls',
    { 'net.ipv4.ip_unprivileged_port_start': '80' },
    ['HostConfig.Sysctls', { 'net.ipv4.ip_unprivileged_port_start': '80' }],
  ),
  row('--tty', '.ContainerSpec.TTY', true, ['Config.Tty', true]),
  row(
    '--ulimit nofile=100:200',
    '.ContainerSpec.Ulimits',
    [{ Name: 'nofile', Soft: 100, Hard: 200 }],
    ['HostConfig.Ulimits', [{ Name: 'nofile', Soft: 100, Hard: 200 }]],
  ),
  row('--update-delay 6s', 'UpdateConfig.Delay', 6 * second),
  row('--update-failure-action rollback', 'UpdateConfig.FailureAction', 'rollback'),
  row('--update-max-failure-ratio 0.3', 'UpdateConfig.MaxFailureRatio', 0.3),
  row('--update-monitor 4s', 'UpdateConfig.Monitor', 4 * second),
  row('--update-order start-first', 'UpdateConfig.Order', 'start-first'),
  row('--update-parallelism 3', 'UpdateConfig.Parallelism', 3),
  row('--user 1000', '.ContainerSpec.User', '1000', ['Config.User', '1000']),
  row('--workdir /tmp', '.ContainerSpec.Dir', '/tmp', ['Config.WorkingDir', '/tmp']),
];

let number = 0;
/** A name that no other case has. */
export function newName(): string {
  number += 1;
  return `flag${number}`;
}

/** Creates a service that sleeps, hands it to `check`, and removes it. */
export async function withService(
  world: World,
  args: readonly string[],
  check: (name: string, output: string) => Promise<Result>,
): Promise<Result> {
  const name = newName();
  const sleep = args.includes('--entrypoint') ? ['1000000'] : ['sleep', '1000000'];
  const quick = args.includes('--stop-grace-period') ? [] : ['--stop-grace-period', '0s'];
  const waits = args.includes('--detach=false') ? [] : ['--detach'];
  const all = ['service', 'create', ...waits, '--no-resolve-image', ...quick, '--name', name, ...args];
  try {
    const { stdout, stderr } = await docker(world, [...all, world.image, ...sleep]);
    return await check(name, `${stdout}${stderr}`);
  } finally {
    await docker(world, ['service', 'rm', name]).catch(() => undefined);
  }
}

function caseOf({ flag, args, path, value, shown }: Row): FlagCase {
  return {
    command,
    flag: `--${flag}`,
    run: async (world) => {
      const wanted =
        flag === 'credential-spec' ? (await inspect(world, 'config', 'flag-credentials')).ID : value;
      return withService(world, args, async (name) => {
        const { Spec } = await inspect(world, 'service', name);
        assert.deepEqual(at(Spec, specPath(path)), wanted, specPath(path));
        const words = `\`Spec.${specPath(path)}\``;
        if (!shown) return effect(words);
        assert.deepEqual(at(await containerOf(world, name), shown[0]), shown[1], shown[0]);
        return effect(`${words}; container's \`${shown[0]}\``);
      });
    },
  };
}

function own(flag: string, run: FlagCase['run']): FlagCase {
  return { command, flag, run };
}

const others: readonly FlagCase[] = [
  own('', (world) =>
    withService(world, [], async (name) => {
      assert.equal(at(await containerOf(world, name), 'Path'), 'sleep');
      return effect('a container runs');
    }),
  ),
  own('--config', (world) =>
    fileCase(world, ['--config', 'source=flag-config,target=/c,mode=0400'], '/c', 'of a config'),
  ),
  own('--secret', (world) =>
    fileCase(world, ['--secret', 'source=flag-secret,target=s'], '/run/secrets/s', 'of a secret'),
  ),
  own('--detach', (world) =>
    withService(world, ['--detach=false'], async (_, waited) => {
      assert.match(waited, /converged/);
      const left = await withService(world, [], async (_name, output) => effect(output));
      assert.match(left.words, /^\w{25}\n$/);
      return effect('returns at once; without it the client waits until the service has converged');
    }),
  ),
  own('--quiet', (world) =>
    withService(world, ['--detach=false', '--quiet'], async (_, output) => {
      assert.match(output, /^\w{25}\n$/);
      return effect('prints the id only, when the service has converged');
    }),
  ),
  own('--env-file', (world) => {
    const path = join(world.folder, 'flag.env');
    writeFileSync(path, 'FROM_FILE=yes\n');
    return withService(world, ['--env-file', path], async (name) => {
      assert.ok(at(await containerOf(world, name), 'Config.Env').includes('FROM_FILE=yes'));
      return effect("`Spec.TaskTemplate.ContainerSpec.Env`; container's `Config.Env`");
    });
  }),
  own('--name', (world) =>
    withService(world, [], async (name) => {
      assert.equal((await inspect(world, 'service', name)).Spec.Name, name);
      return effect('`Spec.Name`');
    }),
  ),
  own('--network', (world) =>
    withService(world, ['--network', 'flag-network'], async (name) => {
      const { ID, Id } = await inspect(world, 'network', 'flag-network');
      const { Spec } = await inspect(world, 'service', name);
      assert.equal(at(Spec, 'TaskTemplate.Networks.0.Target'), ID ?? Id);
      assert.ok(Object.keys(at(await containerOf(world, name), 'NetworkSettings.Networks')).length > 0);
      return effect("`Spec.TaskTemplate.Networks`; container's `NetworkSettings.Networks`");
    }),
  ),
  own('--publish', async (world) => {
    const published = await withService(
      world,
      ['--publish', 'published=18080,target=80,mode=host'],
      async (name) => {
        const container = await containerOf(world, name);
        assert.equal(at(container, 'HostConfig.PortBindings')['80/tcp'][0].HostPort, '18080');
        return effect("`Spec.EndpointSpec.Ports`; container's `HostConfig.PortBindings` (mode=host)");
      },
    );
    return withService(world, ['--publish', '18081:80'], async (name) => {
      const { Endpoint } = await inspect(world, 'service', name);
      assert.deepEqual(
        [Endpoint.Ports[0].PublishedPort, Endpoint.Ports[0].TargetPort, Endpoint.Ports[0].PublishMode],
        [18081, 80, 'ingress'],
      );
      return effect(`${published.words}; \`Endpoint.Ports\` (ingress)`);
    });
  }),
  own('--with-registry-auth', (world) => {
    const repository = newName();
    const image = `${world.registry}/${repository}:1`;
    const asked = (name: string) =>
      docker(world, ['service', 'inspect', name]).then(() => askedWithCredentials(world, repository));
    return withService({ ...world, image }, ['--with-registry-auth'], asked);
  }),
  own('--no-resolve-image', (world) =>
    withService(world, ['--no-resolve-image'], async (name, output) => {
      assert.doesNotMatch(output, /could not be accessed on a registry/);
      assert.equal(
        (await inspect(world, 'service', name)).Spec.TaskTemplate.ContainerSpec.Image,
        world.image,
      );
      return effect('the image stays as typed, and no registry is asked');
    }),
  ),
];

/** What `docker login` would have written for the registry. */
export const credentials = Buffer.from('flag:word').toString('base64');

/** Waits until an engine has asked the registry for the image with the credentials. */
export async function askedWithCredentials(world: World, repository: string): Promise<Result> {
  await waitFor(`${repository} to be asked for`, 40_000, async () =>
    readFileSync(world.registryLog, 'utf8').includes(`/v2/${repository}/manifests/1 Basic ${credentials}`),
  );
  return effect('the node asks the registry with the credentials of `docker login`');
}

async function fileCase(
  world: World,
  args: readonly string[],
  path: string,
  content: string,
): Promise<Result> {
  return withService(world, args, async (name) => {
    const { Id } = await containerOf(world, name);
    const { stdout } = await docker(world, ['exec', Id, 'cat', path], { socket: world.engineSocket });
    assert.equal(stdout, content);
    return effect(`\`${path}\` in the container`);
  });
}

export const serviceCreateCases: readonly FlagCase[] = [...rows.map(caseOf), ...others];
