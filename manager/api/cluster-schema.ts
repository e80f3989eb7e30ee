/** The shapes of the other requests' bodies: swarm, nodes, networks, secrets, configs, stacks. */
import { z } from 'zod';
import type { ConfigSpec, NetworkSpec, NodeSpec, SecretSpec, SwarmSpec } from '../../proto/docker.ts';
import type { SwarmInitRequest, SwarmJoinRequest } from './contract.ts';
import {
  check,
  driver,
  flag,
  integer,
  labels,
  map,
  oneOf,
  optionalCount,
  optionalText,
  text,
  texts,
  without,
} from './fields.ts';

/** A swarm spec as a client sends it: what is left out, or zero, stays as it is. */
export interface SwarmSpecChange {
  readonly Name?: string;
  readonly Labels?: SwarmSpec['Labels'];
  readonly Orchestration?: SwarmSpec['Orchestration'];
  readonly Raft?: Partial<SwarmSpec['Raft']>;
  readonly Dispatcher?: SwarmSpec['Dispatcher'];
  readonly CAConfig?: SwarmSpec['CAConfig'];
  readonly TaskDefaults?: SwarmSpec['TaskDefaults'];
  readonly EncryptionConfig?: { AutoLockManagers?: boolean };
}

const swarmSpec = z.strictObject({
  Name: optionalText,
  Labels: map,
  Orchestration: z.strictObject({ TaskHistoryRetentionLimit: optionalCount }).optional(),
  Raft: z
    .strictObject({
      SnapshotInterval: optionalCount,
      KeepOldSnapshots: optionalCount,
      LogEntriesForSlowFollowers: optionalCount,
      ElectionTick: optionalCount,
      HeartbeatTick: optionalCount,
    })
    .optional(),
  Dispatcher: z.strictObject({ HeartbeatPeriod: integer }).optional(),
  CAConfig: z
    .strictObject({
      NodeCertExpiry: integer,
      ForceRotate: optionalCount,
      ExternalCAs: without('external certificate authorities are not supported by Shoal'),
      SigningCACert: without('a certificate authority of your own is not supported by Shoal yet'),
      SigningCAKey: without('a certificate authority of your own is not supported by Shoal yet'),
    })
    .optional(),
  TaskDefaults: z.strictObject({ LogDriver: driver }).optional(),
  EncryptionConfig: z.strictObject({ AutoLockManagers: flag }).optional(),
  // Who may join was decided by this before there were join tokens; dockerode's examples still send it.
  AcceptancePolicy: z
    .unknown()
    .transform(() => undefined)
    .optional(),
});

const availability = oneOf(['active', 'pause', 'drain']);

const initRequest = z.strictObject({
  ListenAddr: optionalText,
  AdvertiseAddr: optionalText,
  DataPathAddr: optionalText,
  DataPathPort: optionalCount,
  DefaultAddrPool: texts,
  SubnetSize: optionalCount,
  ForceNewCluster: flag,
  Spec: swarmSpec.optional(),
  AutoLockManagers: flag,
  Availability: availability,
});

const joinRequest = z.strictObject({
  ListenAddr: optionalText,
  AdvertiseAddr: optionalText,
  DataPathAddr: optionalText,
  RemoteAddrs: z.array(text).optional().default([]),
  JoinToken: optionalText.default(''),
  Availability: availability,
});

const unlockRequest = z.strictObject({ UnlockKey: optionalText.default('') });

const nodeSpec = z.strictObject({
  Name: optionalText,
  Labels: labels,
  Role: optionalText.default(''),
  Availability: optionalText.default(''),
});

/** Docker's one templating driver is Go's templates. */
const templating = z
  .strictObject({ Name: oneOf(['golang']), Options: map })
  .optional()
  .transform((driver) => (driver?.Name ? { Name: driver.Name } : undefined));

const secretSpec = z.strictObject({
  Name: optionalText.default(''),
  Labels: labels,
  Data: optionalText,
  Driver: without('secret drivers are not supported by Shoal'),
  Templating: templating,
});

const configSpec = z.strictObject({
  Name: optionalText.default(''),
  Labels: labels,
  Data: optionalText.default(''),
  Templating: templating,
});

/** A network as POST /networks/create takes it. */
export interface NetworkCreateRequest {
  readonly Name: string;
  readonly Driver: string;
  readonly Scope?: string;
  readonly Internal?: boolean;
  readonly Attachable?: boolean;
  readonly IPAM?: NetworkSpec['IPAMOptions'] & {
    readonly Driver?: string;
    readonly Options?: Record<string, string>;
    readonly Config?: { Subnet?: string; IPRange?: string; Gateway?: string }[];
  };
  readonly EnableIPv6?: boolean;
  readonly Ingress?: boolean;
  readonly Options?: Record<string, string>;
  readonly Labels: Record<string, string>;
}

const auxiliary = without('addresses to keep free are not supported by Shoal yet; give an IPRange');
const noConfigOnly = without('networks that hold only configuration are not supported by Shoal');

const networkCreate = z.strictObject({
  Name: optionalText.default(''),
  CheckDuplicate: flag,
  Driver: optionalText.default(''),
  Scope: oneOf(['swarm', 'global', 'local']),
  EnableIPv4: z
    .custom((value) => value !== false, {
      message: 'networks of the cluster have IPv4 always',
      params: { code: 'not-supported' },
    })
    .optional(),
  EnableIPv6: flag,
  IPAM: z
    .strictObject({
      Driver: optionalText,
      Options: map,
      Config: z
        .array(
          z.strictObject({
            Subnet: optionalText,
            IPRange: optionalText,
            Gateway: optionalText,
            AuxiliaryAddresses: auxiliary,
            AuxAddress: auxiliary,
          }),
        )
        .optional(),
    })
    .optional(),
  Internal: flag,
  Attachable: flag,
  Ingress: flag,
  ConfigOnly: noConfigOnly,
  ConfigFrom: noConfigOnly,
  Options: map,
  Labels: labels,
});

const networkSpec = z.strictObject({
  Name: optionalText.default(''),
  Labels: labels,
  DriverConfiguration: z
    .strictObject({ Name: optionalText.default('overlay'), Options: map })
    .optional()
    .default({ Name: 'overlay' }),
  IPv6Enabled: flag,
  Internal: flag,
  Attachable: flag,
  Ingress: flag,
  Scope: oneOf(['swarm']),
  IPAMOptions: z
    .strictObject({
      Driver: driver,
      Configs: z
        .array(z.strictObject({ Subnet: optionalText, IPRange: optionalText, Gateway: optionalText }))
        .optional(),
    })
    .optional(),
});

/** Body of PUT /stacks/{name}, its specs not yet read. */
export interface StackRequest {
  readonly Source: string;
  readonly Compiled: {
    readonly Services: unknown[];
    readonly Networks: unknown[];
    readonly Secrets: unknown[];
    readonly Configs: unknown[];
    /** `kind name` (as in `network shop_back`) → where the files say it, for messages. */
    readonly Places?: Record<string, string>;
  };
  readonly Prune?: boolean;
}

const list = z.array(z.unknown()).optional().default([]);

const stackRequest = z.strictObject({
  Source: text,
  Compiled: z.strictObject({ Services: list, Networks: list, Secrets: list, Configs: list, Places: map }),
  Prune: flag,
});

export const readSwarmSpec = (body: unknown) => check<SwarmSpecChange>(swarmSpec, body, 'Spec');
export const readInit = (body: unknown) => check<SwarmInitRequest>(initRequest, body, 'InitRequest');
export const readJoin = (body: unknown) => check<SwarmJoinRequest>(joinRequest, body, 'JoinRequest');
export const readUnlock = (body: unknown) =>
  check<{ UnlockKey: string }>(unlockRequest, body, 'UnlockRequest');
export const readNodeSpec = (body: unknown) => check<NodeSpec>(nodeSpec, body, 'NodeSpec');
export const readSecretSpec = (body: unknown, what = 'SecretSpec') =>
  check<SecretSpec>(secretSpec, body, what);
export const readConfigSpec = (body: unknown, what = 'ConfigSpec') =>
  check<ConfigSpec>(configSpec, body, what);
export const readNetworkSpec = (body: unknown, what = 'NetworkSpec') =>
  check<NetworkSpec>(networkSpec, body, what);
export const readNetworkCreate = (body: unknown) =>
  check<NetworkCreateRequest>(networkCreate, body, 'NetworkCreateRequest');
export const readStack = (body: unknown) => check<StackRequest>(stackRequest, body, 'Stack');
