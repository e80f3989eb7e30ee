/**
 * Every field of a task template, from the body of a request to what the engine is asked for: read by the API,
 * carried to the node by the worker protocol's own encoding, made a container of by the agent.
 */
import assert from 'node:assert/strict';
import { containerRequest } from '../../agent/engine/container-spec.ts';
import { readServiceSpec } from '../../manager/api/service-schema.ts';
import { checkServiceShape } from '../../manager/api/validate.ts';
import { wireTask } from '../../manager/dispatcher/wire.ts';
import type { GenericResource, ServiceSpec } from '../../proto/docker.ts';
import { isShoalError } from '../../proto/errors.ts';
import { loadPackage } from '../../proto/rpc.ts';
import { makeCluster, makeRevision, makeTask } from '../manager/dispatcher/cluster.ts';

type Body = Record<string, unknown>;

const node = { id: 'n1', hostname: 'alpha', architecture: 'x86_64', os: 'linux' };

function specOf(container: Body, template: Body = {}, more: Body = {}): ServiceSpec {
  const TaskTemplate = { ...template, ContainerSpec: { Image: 'web:1', ...container } };
  const spec = readServiceSpec({ Name: 'web', TaskTemplate, ...more });
  checkServiceShape(spec);
  return spec;
}

/** What the agent asks its engine for, for a task of `spec`. */
function engineConfig(spec: ServiceSpec, generic: GenericResource[] = []): Body & { HostConfig: Body } {
  const revision = { ...makeRevision('revision1', spec.TaskTemplate), Spec: spec };
  const sent = wireTask({
    task: { ...makeTask('task1', 'n1'), AssignedGenericResources: generic },
    revision,
    service: undefined,
    cluster: makeCluster(),
    network: () => undefined,
  });
  const { Assignments } = loadPackage().Dispatcher.service;
  const bytes = Assignments.responseSerialize({ changes: [{ assignment: { task: sent as object } }] });
  const received = Assignments.responseDeserialize(bytes).changes![0]!.assignment!.task!;
  const { config } = containerRequest(received, node, { kind: 'mode', mode: 'none' }, []);
  return config as Body & { HostConfig: Body };
}

const minute = 60e9;

describe('conformance: every field of a task template', () => {
  const plain: [string, Body, Body][] = [
    ['Command', { Command: ['a', 'b'] }, { Entrypoint: ['a', 'b'] }],
    ['Args', { Args: ['c'] }, { Cmd: ['c'] }],
    ['Hostname', { Hostname: '{{.Service.Name}}-{{.Task.Slot}}' }, { Hostname: 'web-1' }],
    ['Env', { Env: ['A={{.Node.Hostname}}'] }, { Env: ['A=alpha'] }],
    ['Dir', { Dir: '/srv' }, { WorkingDir: '/srv' }],
    ['User', { User: '1000:1000' }, { User: '1000:1000' }],
    ['TTY', { TTY: true }, { Tty: true }],
    ['OpenStdin', { OpenStdin: true }, { OpenStdin: true }],
    ['StopSignal', { StopSignal: 'SIGUSR1' }, { StopSignal: 'SIGUSR1' }],
    ['StopGracePeriod', { StopGracePeriod: 2 * minute }, { StopTimeout: 120 }],
    [
      'Healthcheck',
      {
        Healthcheck: {
          Test: ['CMD', 'true'],
          Interval: minute,
          Timeout: 1e9,
          Retries: 2,
          StartPeriod: 5e9,
          StartInterval: 2e9,
        },
      },
      {
        Healthcheck: {
          Test: ['CMD', 'true'],
          Interval: minute,
          Timeout: 1e9,
          Retries: 2,
          StartPeriod: 5e9,
          StartInterval: 2e9,
        },
      },
    ],
  ];
  for (const [field, container, expected] of plain) {
    it(field, () => {
      const config = engineConfig(specOf(container));
      for (const [key, value] of Object.entries(expected)) assert.deepEqual(config[key], value);
    });
  }

  const ofHost: [string, Body, Body][] = [
    ['Groups', { Groups: ['10', 'wheel'] }, { GroupAdd: ['10', 'wheel'] }],
    ['ReadOnly', { ReadOnly: true }, { ReadonlyRootfs: true }],
    ['Hosts', { Hosts: ['10.0.0.1 a b'] }, { ExtraHosts: ['a:10.0.0.1', 'b:10.0.0.1'] }],
    [
      'DNSConfig',
      { DNSConfig: { Nameservers: ['1.1.1.1'], Search: ['x.test'], Options: ['ndots:2'] } },
      { Dns: ['1.1.1.1'], DnsSearch: ['x.test'], DnsOptions: ['ndots:2'] },
    ],
    ['Init', { Init: true }, { Init: true }],
    ['Init, off', { Init: false }, { Init: false }],
    ['Sysctls', { Sysctls: { 'net.core.somaxconn': '512' } }, { Sysctls: { 'net.core.somaxconn': '512' } }],
    ['CapabilityAdd', { CapabilityAdd: ['CAP_NET_ADMIN'] }, { CapAdd: ['CAP_NET_ADMIN'] }],
    ['CapabilityDrop', { CapabilityDrop: ['ALL'] }, { CapDrop: ['ALL'] }],
    [
      'Ulimits',
      { Ulimits: [{ Name: 'nofile', Soft: 10, Hard: 20 }] },
      { Ulimits: [{ Name: 'nofile', Soft: 10, Hard: 20 }] },
    ],
    ['OomScoreAdj', { OomScoreAdj: -500 }, { OomScoreAdj: -500 }],
    ['Isolation, left out', {}, {}],
    [
      'Privileges',
      {
        Privileges: {
          SELinuxContext: { Disable: true, Level: 's0' },
          Seccomp: { Mode: 'custom', Profile: 'e30=' },
          AppArmor: { Mode: 'disabled' },
          NoNewPrivileges: true,
        },
      },
      {
        SecurityOpt: [
          'label=disable',
          'label=level:s0',
          'seccomp={}',
          'apparmor=unconfined',
          'no-new-privileges=true',
        ],
      },
    ],
    [
      'Privileges: seccomp off',
      { Privileges: { Seccomp: { Mode: 'unconfined' } } },
      { SecurityOpt: ['seccomp=unconfined'] },
    ],
  ];
  for (const [field, container, expected] of ofHost) {
    it(field, () => {
      const { HostConfig } = engineConfig(specOf(container));
      for (const [key, value] of Object.entries(expected)) assert.deepEqual(HostConfig[key], value);
    });
  }

  const mounts: [string, Body, Body][] = [
    [
      'bind',
      {
        Type: 'bind',
        Source: '/a',
        Target: '/b',
        ReadOnly: true,
        BindOptions: { Propagation: 'rslave', NonRecursive: true, CreateMountpoint: true },
      },
      {
        Type: 'bind',
        Source: '/a',
        Target: '/b',
        ReadOnly: true,
        BindOptions: { Propagation: 'rslave', NonRecursive: true, CreateMountpoint: true },
      },
    ],
    [
      'bind, read-only on its own terms',
      {
        Type: 'bind',
        Source: '/a',
        Target: '/b',
        BindOptions: { ReadOnlyNonRecursive: true, ReadOnlyForceRecursive: true },
      },
      {
        BindOptions: {
          Propagation: 'rprivate',
          NonRecursive: false,
          CreateMountpoint: false,
          ReadOnlyNonRecursive: true,
          ReadOnlyForceRecursive: true,
        },
      },
    ],
    [
      'volume',
      {
        Type: 'volume',
        Source: '{{.Service.Name}}-{{.Task.Slot}}',
        Target: '/v',
        VolumeOptions: {
          NoCopy: true,
          Labels: { a: 'b' },
          Subpath: 'x/y',
          DriverConfig: { Name: 'nfs', Options: { o: 'addr={{.Node.Hostname}}' } },
        },
      },
      {
        Type: 'volume',
        Source: 'web-1',
        VolumeOptions: {
          NoCopy: true,
          Labels: { a: 'b' },
          Subpath: 'x/y',
          DriverConfig: { Name: 'nfs', Options: { o: 'addr=alpha' } },
        },
      },
    ],
    [
      'tmpfs',
      {
        Type: 'tmpfs',
        Target: '/t',
        TmpfsOptions: { SizeBytes: 1024, Mode: 0o1777, Options: [['noexec'], ['uid', '5']] },
      },
      { TmpfsOptions: { SizeBytes: 1024, Mode: 0o1777, Options: [['noexec'], ['uid', '5']] } },
    ],
  ];
  for (const [field, mount, expected] of mounts) {
    it(`Mounts: ${field}`, () => {
      const [made] = engineConfig(specOf({ Mounts: [mount] })).HostConfig.Mounts as Body[];
      for (const [key, value] of Object.entries(expected)) assert.deepEqual(made?.[key], value);
    });
  }

  it('Resources: limits, reservations, swap, swappiness, processes', () => {
    const Resources = {
      Limits: { NanoCPUs: 5e8, MemoryBytes: 64 * 2 ** 20, Pids: 100 },
      Reservations: { MemoryBytes: 32 * 2 ** 20 },
      SwapBytes: 16 * 2 ** 20,
      MemorySwappiness: 10,
    };
    const { HostConfig } = engineConfig(specOf({}, { Resources }));
    assert.deepEqual(
      ['NanoCpus', 'Memory', 'MemoryReservation', 'MemorySwap', 'MemorySwappiness', 'PidsLimit'].map(
        (key) => HostConfig[key],
      ),
      [5e8, 64 * 2 ** 20, 32 * 2 ** 20, 80 * 2 ** 20, 10, 100],
    );
    const unlimited = specOf({}, { Resources: { ...Resources, SwapBytes: -1, MemorySwappiness: -1 } });
    const { HostConfig: other } = engineConfig(unlimited);
    assert.deepEqual([other.MemorySwap, other.MemorySwappiness], [-1, undefined]);
  });

  it('Resources: generic ones, told to the container as those it was given', () => {
    const Reservations = { GenericResources: [{ DiscreteResourceSpec: { Kind: 'gpu', Value: 2 } }] };
    const spec = specOf({}, { Resources: { Reservations } });
    const config = engineConfig(spec, [
      { NamedResourceSpec: { Kind: 'gpu', Value: 'u1' } },
      { NamedResourceSpec: { Kind: 'gpu', Value: 'u2' } },
      { DiscreteResourceSpec: { Kind: 'ssd', Value: 3 } },
    ]);
    assert.deepEqual(config.Env, ['DOCKER_RESOURCE_GPU=u1,u2', 'DOCKER_RESOURCE_SSD=3']);
  });

  it('LogDriver', () => {
    const LogDriver = { Name: 'syslog', Options: { tag: 'x' } };
    assert.deepEqual(engineConfig(specOf({}, { LogDriver })).HostConfig.LogConfig, {
      Type: 'syslog',
      Config: { tag: 'x' },
    });
  });

  const refused: [string, Body, Body, RegExp][] = [
    ['isolation of Windows', { Isolation: 'hyperv' }, {}, /isolation other than "default"/],
    ['a config as a credential spec', { Configs: [{ Runtime: {} }] }, {}, /credential specs/],
    ['a credential spec', { Privileges: { CredentialSpec: { Config: 'x' } } }, {}, /Windows containers/],
    [
      'a mount of an image',
      { Mounts: [{ Type: 'image', Target: '/i' }] },
      {},
      /"image" is none of bind, vol/,
    ],
    ['a cluster volume', { Mounts: [{ Type: 'cluster', Target: '/i' }] }, {}, /type cluster are not supp/],
    ['swap without a memory limit', {}, { Resources: { SwapBytes: 5 } }, /needs a memory limit/],
    ['a swappiness beyond 100', {}, { Resources: { MemorySwappiness: 101 } }, /MemorySwappiness/],
    ['an OOM score out of range', { OomScoreAdj: 1001 }, {}, /range for oom score adj is \[-1000, 1000\]/],
    ['an unknown seccomp mode', { Privileges: { Seccomp: { Mode: 'x' } } }, {}, /Seccomp\.Mode: "x" is none/],
    ['a plugin', {}, { PluginSpec: { Name: 'p' } }, /plugins as services/],
  ];
  for (const [what, container, template, words] of refused) {
    it(`refuses ${what}`, () =>
      assert.throws(
        () => specOf(container, template),
        (error) => isShoalError(error) && words.test(error.message),
      ));
  }

  const badTemplates: [string, Body, RegExp][] = [
    [
      'Hostname',
      { Hostname: '{{.Nope}}' },
      /ContainerSpec\.Hostname: expanding template \{\{\.Nope\}\} failed/,
    ],
    ['Env', { Env: ['A=1', 'B={{.Task.Slott}}'] }, /ContainerSpec\.Env\[1\]: .*there is no \.Task\.Slott/],
    ['Env that is not closed', { Env: ['A={{.Task.Slot'] }, /ContainerSpec\.Env\[0\]: .*it is not closed/],
    ['a label that is not there', { Env: ['A={{.Service.Labels.x}}'] }, /there is no \.Service\.Labels\.x/],
    [
      'Mounts',
      { Mounts: [{ Type: 'volume', Source: '{{foo}}', Target: '/a' }] },
      /ContainerSpec\.Mounts\[0\]\.Source: .*"foo" is not understood here/,
    ],
  ];
  for (const [what, container, words] of badTemplates) {
    it(`refuses a bad template where it stands: ${what}`, () =>
      assert.throws(
        () => specOf(container),
        (error) => isShoalError(error, 'invalid-argument') && words.test(error.message),
      ));
  }
});
