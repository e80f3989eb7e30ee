/** A service's container as the worker protocol says it: pure, field by field, nothing decided here. */
import type { ContainerSpec, Driver, FileTarget, HealthConfig, Mount } from '../../proto/docker.ts';
import type { ConfigReference__Output as WireConfigReference } from '../../proto/generated/docker/swarmkit/v1/ConfigReference.ts';
import type {
  ContainerSpec__Output as WireContainerSpec,
  _docker_swarmkit_v1_ContainerSpec_Isolation__Output as WireIsolation,
} from '../../proto/generated/docker/swarmkit/v1/ContainerSpec.ts';
import type { Driver__Output as WireDriver } from '../../proto/generated/docker/swarmkit/v1/Driver.ts';
import type { FileTarget__Output as WireFileTarget } from '../../proto/generated/docker/swarmkit/v1/FileTarget.ts';
import type { HealthConfig__Output as WireHealthConfig } from '../../proto/generated/docker/swarmkit/v1/HealthConfig.ts';
import type {
  _docker_swarmkit_v1_Mount_Consistency__Output as WireConsistency,
  Mount__Output as WireMount,
  _docker_swarmkit_v1_Mount_Type__Output as WireMountType,
  _docker_swarmkit_v1_Mount_BindOptions_Propagation__Output as WirePropagation,
} from '../../proto/generated/docker/swarmkit/v1/Mount.ts';
import type { Privileges__Output as WirePrivileges } from '../../proto/generated/docker/swarmkit/v1/Privileges.ts';
import type { SecretReference__Output as WireSecretReference } from '../../proto/generated/docker/swarmkit/v1/SecretReference.ts';
import type { Duration__Output as WireDuration } from '../../proto/generated/google/protobuf/Duration.ts';

const nanosPerSecond = 1_000_000_000;

/** Nanoseconds as protobuf's duration; undefined stays undefined. */
export function wireDuration(nanoseconds: number | undefined): WireDuration | undefined {
  if (nanoseconds === undefined) return undefined;
  const seconds = Math.trunc(nanoseconds / nanosPerSecond);
  return { seconds: String(seconds), nanos: nanoseconds - seconds * nanosPerSecond };
}

/** A protobuf 64-bit integer, as proto-loader reads it with longs: String. */
export function wireInteger(value: number | undefined): string | undefined {
  return value === undefined ? undefined : String(value);
}

/** A driver with its options. */
export function wireDriver(driver: Driver | undefined): WireDriver | undefined {
  return driver && { name: driver.Name, options: { ...driver.Options } };
}

/**
 * The container of a task. `pidsLimit` comes from the service's resource limits, where Docker's API has it.
 */
export function wireContainerSpec(spec: ContainerSpec, pidsLimit: number | undefined): WireContainerSpec {
  return {
    image: spec.Image,
    labels: { ...spec.Labels },
    command: [...(spec.Command ?? [])],
    args: [...(spec.Args ?? [])],
    hostname: spec.Hostname,
    env: [...(spec.Env ?? [])],
    dir: spec.Dir,
    user: spec.User,
    groups: [...(spec.Groups ?? [])],
    privileges: wirePrivileges(spec.Privileges),
    ...(spec.PullOptions ? { pull_options: { registry_auth: spec.PullOptions.RegistryAuth } } : {}),
    init: spec.Init === undefined ? undefined : { value: spec.Init },
    tty: spec.TTY,
    open_stdin: spec.OpenStdin,
    read_only: spec.ReadOnly,
    stop_signal: spec.StopSignal,
    mounts: (spec.Mounts ?? []).map(wireMount),
    stop_grace_period: wireDuration(spec.StopGracePeriod),
    secrets: (spec.Secrets ?? []).map(
      (reference): WireSecretReference => ({
        secret_id: reference.SecretID,
        secret_name: reference.SecretName,
        ...(reference.File && { file: wireFileTarget(reference.File), target: 'file' }),
      }),
    ),
    configs: (spec.Configs ?? []).map(
      (reference): WireConfigReference => ({
        config_id: reference.ConfigID,
        config_name: reference.ConfigName,
        ...(reference.File && { file: wireFileTarget(reference.File), target: 'file' }),
        ...(reference.Runtime && { runtime: {}, target: 'runtime' }),
      }),
    ),
    hosts: [...(spec.Hosts ?? [])],
    dns_config: spec.DNSConfig && {
      nameservers: [...(spec.DNSConfig.Nameservers ?? [])],
      search: [...(spec.DNSConfig.Search ?? [])],
      options: [...(spec.DNSConfig.Options ?? [])],
    },
    healthcheck: spec.Healthcheck && wireHealthConfig(spec.Healthcheck),
    isolation: wireIsolation(spec.Isolation),
    pidsLimit: wireInteger(pidsLimit),
    sysctls: { ...spec.Sysctls },
    capability_add: [...(spec.CapabilityAdd ?? [])],
    capability_drop: [...(spec.CapabilityDrop ?? [])],
    ulimits: (spec.Ulimits ?? []).map((limit) => ({
      name: limit.Name,
      soft: String(limit.Soft),
      hard: String(limit.Hard),
    })),
    oom_score_adj: wireInteger(spec.OomScoreAdj),
  };
}

/** Mode is Go's os.FileMode on both sides, so it passes as it is. */
function wireFileTarget(file: FileTarget): WireFileTarget {
  return { name: file.Name, uid: file.UID, gid: file.GID, mode: file.Mode };
}

function wireHealthConfig(health: HealthConfig): WireHealthConfig {
  return {
    test: [...(health.Test ?? [])],
    interval: wireDuration(health.Interval),
    timeout: wireDuration(health.Timeout),
    start_period: wireDuration(health.StartPeriod),
    start_interval: wireDuration(health.StartInterval),
    retries: health.Retries,
  };
}

function wireIsolation(isolation: string | undefined): WireIsolation | undefined {
  if (isolation === undefined || isolation === '') return undefined;
  return `ISOLATION_${isolation.toUpperCase()}` as WireIsolation;
}

function wireMount(mount: Mount): WireMount {
  const { BindOptions: bind, VolumeOptions: volume, TmpfsOptions: tmpfs } = mount;
  return {
    type: mount.Type.toUpperCase() as WireMountType,
    source: mount.Source,
    target: mount.Target,
    readonly: mount.ReadOnly,
    consistency: (mount.Consistency ?? 'default').toUpperCase() as WireConsistency,
    bind_options: bind && {
      propagation: (bind.Propagation || 'rprivate').toUpperCase() as WirePropagation,
      nonrecursive: bind.NonRecursive,
      createmountpoint: bind.CreateMountpoint,
      readonlynonrecursive: bind.ReadOnlyNonRecursive,
      readonlyforcerecursive: bind.ReadOnlyForceRecursive,
    },
    volume_options: volume && {
      nocopy: volume.NoCopy,
      labels: { ...volume.Labels },
      driver_config: wireDriver(volume.DriverConfig),
      subpath: volume.Subpath,
    },
    tmpfs_options: tmpfs && {
      size_bytes: wireInteger(tmpfs.SizeBytes),
      mode: tmpfs.Mode,
      options: (tmpfs.Options ?? []).map((option) => option.join('=')).join(','),
    },
  };
}

/** The parts of Docker's Privileges object; the API stores it as it came. */
interface DockerPrivileges {
  CredentialSpec?: { Config?: string; File?: string; Registry?: string };
  SELinuxContext?: { Disable?: boolean; User?: string; Role?: string; Type?: string; Level?: string };
  /** Profile is base64. */
  Seccomp?: { Mode?: string; Profile?: string };
  AppArmor?: { Mode?: string };
  NoNewPrivileges?: boolean;
}

function wirePrivileges(stored: Record<string, unknown> | undefined): WirePrivileges | undefined {
  if (stored === undefined) return undefined;
  const privileges = stored as DockerPrivileges;
  const { CredentialSpec: credential, SELinuxContext: selinux, Seccomp: seccomp } = privileges;
  return {
    credential_spec: credential && wireCredentialSpec(credential),
    selinux_context: selinux && {
      disable: selinux.Disable,
      user: selinux.User,
      role: selinux.Role,
      type: selinux.Type,
      level: selinux.Level,
    },
    seccomp: seccomp && {
      mode: (seccomp.Mode || 'default').toUpperCase() as 'DEFAULT' | 'UNCONFINED' | 'CUSTOM',
      profile: seccomp.Profile === undefined ? undefined : Buffer.from(seccomp.Profile, 'base64'),
    },
    apparmor: privileges.AppArmor && {
      mode: (privileges.AppArmor.Mode || 'default').toUpperCase() as 'DEFAULT' | 'DISABLED',
    },
    no_new_privileges: privileges.NoNewPrivileges,
  };
}

function wireCredentialSpec(
  credential: NonNullable<DockerPrivileges['CredentialSpec']>,
): WirePrivileges['credential_spec'] {
  if (credential.Config) return { config: credential.Config, source: 'config' };
  if (credential.File) return { file: credential.File, source: 'file' };
  return { registry: credential.Registry ?? '', source: 'registry' };
}
