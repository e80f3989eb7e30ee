/** Flags of service create and update, as typed, and the spec that comes of them. */
import assert from 'node:assert/strict';
import type { ApiClient } from '../../cli/client.ts';
import { createSpec, type ServiceFlags, updateSpec } from '../../cli/commands/service-change.ts';
import { UsageError } from '../../cli/usage.ts';
import type { ServiceSpec } from '../../proto/docker.ts';

/** Finds every object under the id `id-NAME`. */
const client = (): ApiClient =>
  ({
    get: (path: string) => {
      const name = path.split('/').at(-1)!.replace(/^id-/, '');
      return Promise.resolve({ ID: `id-${name}`, Id: `id-${name}`, Spec: { Name: name } });
    },
  }) as unknown as ApiClient;

const create = (flags: ServiceFlags, args: string[] = []): Promise<ServiceSpec> =>
  createSpec('busybox', args, flags, client);
const change = (before: ServiceSpec, flags: ServiceFlags): Promise<ServiceSpec> =>
  updateSpec(before, flags, client);

describe('cli: flags to spec', () => {
  it('without flags: one replica and nothing else', async () => {
    assert.deepEqual(await create({}), {
      Name: '',
      Labels: {},
      TaskTemplate: { ContainerSpec: { Image: 'busybox' } },
      Mode: { Replicated: { Replicas: 1 } },
    });
  });

  it('what a container is given', async () => {
    const spec = await create(
      {
        name: 'web',
        env: ['A=1', 'B=2', 'A=3'],
        label: ['tier=front'],
        containerLabel: ['x=y'],
        user: '5:6',
        workdir: '/srv',
        hostname: 'box',
        entrypoint: 'sh -c',
        stopGracePeriod: '3s',
        stopSignal: 'SIGINT',
        tty: true,
        init: false,
        capAdd: ['net_admin'],
        capDrop: ['ALL'],
        dns: ['1.1.1.1'],
        dnsSearch: ['lan'],
        host: ['db:10.0.0.5'],
        sysctl: ['net.core.somaxconn=1024'],
        ulimit: ['nofile=5:6'],
        mount: ['source=data,target=/data'],
      },
      ['echo', 'hi'],
    );
    assert.equal(spec.Name, 'web');
    assert.deepEqual(spec.Labels, { tier: 'front' });
    assert.deepEqual(spec.TaskTemplate.ContainerSpec, {
      Image: 'busybox',
      Args: ['echo', 'hi'],
      Env: ['A=3', 'B=2'],
      Labels: { x: 'y' },
      User: '5:6',
      Dir: '/srv',
      Hostname: 'box',
      Command: ['sh', '-c'],
      StopGracePeriod: 3e9,
      StopSignal: 'SIGINT',
      TTY: true,
      Init: false,
      CapabilityAdd: ['CAP_NET_ADMIN'],
      CapabilityDrop: ['ALL'],
      DNSConfig: { Nameservers: ['1.1.1.1'], Search: ['lan'] },
      Hosts: ['10.0.0.5 db'],
      Sysctls: { 'net.core.somaxconn': '1024' },
      Ulimits: [{ Name: 'nofile', Soft: 5, Hard: 6 }],
      Mounts: [{ Type: 'volume', Source: 'data', Target: '/data' }],
    });
  });

  it('how it is run: resources, restarts, placement, updates', async () => {
    const spec = await create({
      replicas: '4',
      limitCpu: '0.5',
      limitMemory: '64M',
      reserveCpu: '0.1',
      reserveMemory: '32M',
      genericResource: ['gpu=1'],
      restartCondition: 'on-failure',
      restartDelay: '1s',
      restartMaxAttempts: '3',
      restartWindow: '1m',
      constraint: ['node.role==worker'],
      placementPref: ['spread=node.labels.zone'],
      replicasMaxPerNode: '2',
      updateParallelism: '2',
      updateDelay: '1s',
      updateFailureAction: 'rollback',
      updateMonitor: '2s',
      updateMaxFailureRatio: '0.5',
      updateOrder: 'start-first',
      rollbackParallelism: '0',
      healthCmd: 'true',
      healthInterval: '1s',
      healthRetries: '2',
      endpointMode: 'dnsrr',
      logDriver: 'json-file',
      logOpt: ['max-size=1m'],
    });
    assert.deepEqual(spec.Mode, { Replicated: { Replicas: 4 } });
    assert.deepEqual(spec.TaskTemplate.Resources, {
      Limits: { NanoCPUs: 5e8, MemoryBytes: 64 * 2 ** 20 },
      Reservations: {
        NanoCPUs: 1e8,
        MemoryBytes: 32 * 2 ** 20,
        GenericResources: [{ DiscreteResourceSpec: { Kind: 'gpu', Value: 1 } }],
      },
    });
    assert.deepEqual(spec.TaskTemplate.RestartPolicy, {
      Condition: 'on-failure',
      Delay: 1e9,
      MaxAttempts: 3,
      Window: 60e9,
    });
    assert.deepEqual(spec.TaskTemplate.Placement, {
      MaxReplicas: 2,
      Constraints: ['node.role==worker'],
      Preferences: [{ Spread: { SpreadDescriptor: 'node.labels.zone' } }],
    });
    assert.deepEqual(spec.UpdateConfig, {
      Parallelism: 2,
      Delay: 1e9,
      FailureAction: 'rollback',
      Monitor: 2e9,
      MaxFailureRatio: 0.5,
      Order: 'start-first',
    });
    assert.deepEqual(spec.RollbackConfig, { Parallelism: 0 });
    assert.deepEqual(spec.TaskTemplate.ContainerSpec.Healthcheck, {
      Test: ['CMD-SHELL', 'true'],
      Interval: 1e9,
      Retries: 2,
    });
    assert.deepEqual(spec.EndpointSpec, { Mode: 'dnsrr' });
    assert.deepEqual(spec.TaskTemplate.LogDriver, { Name: 'json-file', Options: { 'max-size': '1m' } });
  });

  it('names of other objects become their ids', async () => {
    const spec = await create({ secret: ['word'], config: ['source=conf,target=/c'], network: ['back'] });
    const { Secrets, Configs } = spec.TaskTemplate.ContainerSpec;
    assert.deepEqual(Secrets, [
      { File: { Name: 'word', UID: '0', GID: '0', Mode: 0o444 }, SecretID: 'id-word', SecretName: 'word' },
    ]);
    assert.deepEqual(Configs, [
      { File: { Name: '/c', UID: '0', GID: '0', Mode: 0o444 }, ConfigID: 'id-conf', ConfigName: 'conf' },
    ]);
    assert.deepEqual(spec.TaskTemplate.Networks, [{ Target: 'id-back' }]);
  });

  it('jobs run all their completions at once unless told otherwise, and have no rollout', async () => {
    const job = async (flags: Record<string, unknown>) =>
      (await create({ mode: 'replicated-job', ...flags })).Mode.ReplicatedJob;
    assert.deepEqual(await job({}), { MaxConcurrent: 1, TotalCompletions: 1 });
    assert.deepEqual(await job({ replicas: '5' }), { MaxConcurrent: 5, TotalCompletions: 5 });
    assert.deepEqual(await job({ replicas: '5', maxConcurrent: '2' }), {
      MaxConcurrent: 2,
      TotalCompletions: 5,
    });
    assert.deepEqual((await create({ mode: 'global-job' })).Mode, { GlobalJob: {} });
    const refused: [Record<string, unknown>, RegExp][] = [
      [{ mode: 'replicated-job', updateDelay: '1s' }, /update and rollback configuration is not supported/],
      [{ mode: 'global-job', rollbackOrder: 'start-first' }, /rollback configuration is not supported/],
      [{ mode: 'global-job', replicas: '2' }, /--replicas can only be used with replicated or repl/],
      [{ mode: 'global-job', replicasMaxPerNode: '2' }, /--replicas-max-per-node can only be used with/],
      [{ mode: 'global-job', maxConcurrent: '2' }, /--max-concurrent can only be used with replicated-job/],
      [{ maxConcurrent: '2' }, /--max-concurrent can only be used with replicated-job mode/],
    ];
    for (const [flags, words] of refused) await assert.rejects(create(flags), words);
  });

  it('asks for amounts of generic resources, not for one by its name', async () => {
    await assert.rejects(
      create({ genericResource: ['gpu=u1'] }),
      /a service asks for an amount, e\.g\. gpu=1/,
    );
  });

  it('swap and swappiness', async () => {
    const resources = async (flags: Record<string, unknown>) => (await create(flags)).TaskTemplate.Resources;
    assert.deepEqual(await resources({ memorySwap: '1g', memorySwappiness: '20' }), {
      SwapBytes: 2 ** 30,
      MemorySwappiness: 20,
    });
    assert.deepEqual(await resources({ memorySwap: '-1' }), { SwapBytes: -1 });
  });

  it('global services have no replicas', async () => {
    assert.deepEqual((await create({ mode: 'global' })).Mode, { Global: {} });
    await assert.rejects(create({ mode: 'global', replicas: '2' }), /--replicas can only be used with repl/);
    await assert.rejects(create({ mode: 'other' }), UsageError);
  });

  it('an update adds, replaces and removes, and leaves the rest', async () => {
    const before = await create({
      env: ['A=1', 'B=2'],
      label: ['a=1', 'b=2'],
      mount: ['source=x,target=/x', 'source=y,target=/y'],
      publish: ['mode=host,target=80,published=8080', 'mode=host,target=53,published=53,protocol=udp'],
      constraint: ['node.role==worker'],
      network: ['back'],
      secret: ['word'],
      capAdd: ['NET_ADMIN'],
      host: ['db:10.0.0.5'],
      noHealthcheck: true,
    });
    const after = await change(before, {
      image: 'busybox:2',
      args: "echo 'a b'",
      force: true,
      envAdd: ['B=3', 'C=4'],
      envRm: ['A'],
      labelAdd: ['c=3'],
      labelRm: ['a'],
      mountRm: ['/x'],
      publishRm: ['80'],
      constraintRm: ['node.role==worker'],
      networkRm: ['back'],
      secretRm: ['word'],
      capDrop: ['NET_ADMIN'],
      hostRm: ['db:10.0.0.5'],
      replicas: '0',
    });
    const container = after.TaskTemplate.ContainerSpec;
    assert.equal(container.Image, 'busybox:2');
    assert.deepEqual(container.Args, ['echo', 'a b']);
    assert.deepEqual(container.Env, ['B=3', 'C=4']);
    assert.deepEqual(after.Labels, { b: '2', c: '3' });
    assert.deepEqual(
      container.Mounts?.map((mount) => mount.Target),
      ['/y'],
    );
    assert.deepEqual(
      after.EndpointSpec?.Ports?.map((port) => port.TargetPort),
      [53],
    );
    assert.deepEqual(after.TaskTemplate.Placement?.Constraints, []);
    assert.deepEqual(after.TaskTemplate.Networks, []);
    assert.deepEqual(container.Secrets, []);
    assert.deepEqual([container.CapabilityAdd, container.CapabilityDrop], [[], ['CAP_NET_ADMIN']]);
    assert.deepEqual(container.Hosts, []);
    assert.equal(after.TaskTemplate.ForceUpdate, 1);
    assert.deepEqual(after.Mode, { Replicated: { Replicas: 0 } });
  });

  it('a switch that is set to false is switched off', async () => {
    const before = await create({ tty: true, readOnly: true });
    const { TTY, ReadOnly } = (await change(before, { tty: false })).TaskTemplate.ContainerSpec;
    assert.deepEqual([TTY, ReadOnly], [false, true]);
  });
});
