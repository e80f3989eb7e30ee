/** /swarm: the cluster itself, and this node's place in it. */
import { type Request, Router } from 'express';
import type { Cluster, SwarmSpec } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import { lockedMessage } from '../../proto/identity.ts';
import type { Random } from '../../proto/ports.ts';
import { readReturnWithinMs } from '../ca/returning.ts';
import { beginRotation } from '../ca/rotation.ts';
import { withRotated } from '../ca/tokens.ts';
import { allowLabel, readGrants } from '../store/privileges.ts';
import type { View } from '../store/store.ts';
import { clusterAnswer } from './answers.ts';
import { readInit, readJoin, readSwarmSpec, readUnlock, type SwarmSpecChange } from './cluster-schema.ts';
import type { ApiHost, SwarmInitRequest } from './contract.ts';
import { isZero } from './fields.ts';
import {
  apiVersion,
  commit,
  jsonBody,
  looseFlag,
  managedCluster,
  specBody,
  strictFlag,
  swarmError,
  versionOf,
} from './request.ts';
import { understoodInit } from './versions.ts';

const inSwarmAlready =
  'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.';
const notInSwarm = 'This node is not part of a swarm';
const minimumCertificateExpiryNs = 3600e9;

export function swarmRoutes(host: ApiHost): Router {
  const routes = Router();
  routes.get('/swarm', async (_request, response) => {
    const cluster = await managedCluster(host);
    response.json(clusterAnswer(clusterObject(cluster.store), { tokens: true }));
  });
  routes.get('/swarm/unlockkey', async (_request, response) => {
    const cluster = clusterObject((await managedCluster(host)).store);
    const isLocking = cluster.Spec.EncryptionConfig.AutoLockManagers;
    response.json({ UnlockKey: isLocking ? (cluster.Private.UnlockKey ?? '') : '' });
  });
  routes.post('/swarm/init', async (request, response) => {
    const asked = understoodInit(jsonBody(request), apiVersion(request));
    const body = readInit(asked.body);
    for (const ignored of asked.ignored) host.log.warn({}, `swarm init: ${ignored}`);
    checkInit(body);
    refuseInSwarm(host, body.ForceNewCluster === true);
    response.json(await host.init(body));
  });
  routes.post('/swarm/join', async (request, response) => {
    const body = readJoin(jsonBody(request));
    // A worker that has lost all managers may be told where they are now; the daemon refuses the rest.
    if (host.membership().kind !== 'worker') refuseInSwarm(host, false);
    if (body.RemoteAddrs.length === 0) {
      throw new ShoalError('invalid-argument', 'at least 1 RemoteAddr is required to join');
    }
    if (body.JoinToken === '') {
      throw new ShoalError(
        'invalid-argument',
        'invalid join token: a token is needed to join; "docker swarm join-token" prints it on a manager',
      );
    }
    await host.join(body);
    response.status(200).end();
  });
  routes.post('/swarm/leave', async (request, response) => {
    const force = looseFlag(request, 'force');
    if (host.membership().kind === 'none') throw new ShoalError('not-a-manager', notInSwarm);
    if (!force) refuseUnsafeLeave(host);
    const Warnings = await host.leave(force);
    // Docker's answer has no body; its clients read none.
    if (Warnings.length > 0) response.status(200).json({ Warnings });
    else response.status(200).end();
  });
  routes.post('/swarm/unlock', async (request, response) => {
    const { UnlockKey } = readUnlock(jsonBody(request));
    const { kind } = host.membership();
    if (kind === 'none') throw new ShoalError('not-a-manager', notInSwarm);
    if (kind !== 'locked') throw new ShoalError('conflict', 'swarm is not locked');
    await host.unlock(UnlockKey);
    response.status(200).end();
  });
  routes.post('/swarm/update', async (request, response) => {
    await updateSwarm(host, request);
    response.status(200).end();
  });
  return routes;
}

function clusterObject(view: View): Cluster {
  const cluster = view.cluster();
  if (!cluster) throw new ShoalError('unavailable', 'the cluster is being set up; try again in a second');
  return cluster;
}

function refuseInSwarm(host: ApiHost, forceNewCluster: boolean): void {
  const { kind } = host.membership();
  if (kind === 'none' || kind === 'error') return;
  if (kind === 'locked') throw new ShoalError('locked', lockedMessage);
  if (forceNewCluster && kind !== 'worker') return;
  throw new ShoalError('already-in-swarm', inSwarmAlready);
}

function checkInit(body: SwarmInitRequest): void {
  const port = body.DataPathPort ?? 0;
  if (port !== 0 && (port < 1024 || port > 49_151)) {
    throw new ShoalError('invalid-argument', 'Datapath port number is not in valid range (1024-49151)');
  }
  const size = body.SubnetSize ?? 0;
  if (size !== 0 && (size < 1 || size > 29)) {
    throw new ShoalError(
      'invalid-argument',
      `invalid value for subnet size: ${size}; it must be from 1 to 29`,
    );
  }
  const bad = (body.DefaultAddrPool ?? []).find((pool) => !/^\d{1,3}(\.\d{1,3}){3}\/\d{1,2}$/.test(pool));
  if (bad !== undefined) {
    throw new ShoalError(
      'invalid-argument',
      `invalid default address pool "${bad}": a subnet is needed, e.g. 10.20.0.0/16`,
    );
  }
}

/** Docker's rule: a manager leaves by force only, and is told what that does to the cluster. */
function refuseUnsafeLeave(host: ApiHost): void {
  const membership = host.membership();
  if (membership.kind === 'locked') {
    throw new ShoalError(
      'locked',
      'Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.',
    );
  }
  if (membership.kind !== 'manager') return;
  const managers = membership.cluster.store.list('node').filter((node) => node.ManagerStatus);
  const reachable = managers.filter((node) => node.ManagerStatus?.Reachability === 'reachable').length;
  throw new ShoalError(
    'unavailable',
    `You are attempting to leave the swarm on a node that is participating as a manager. ${leaveWarning(reachable, managers.length)}`,
  );
}

function leaveWarning(reachable: number, all: number): string {
  if (all <= 1) {
    return 'Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ';
  }
  const left = Math.max(0, reachable - 1);
  // As many as the others are needed to agree, and one more is gone.
  const isLoss = reachable - 2 <= all - reachable;
  const loss = `Removing this node leaves ${left} managers out of ${all}. Without a Raft quorum your swarm will be inaccessible. `;
  return `${isLoss ? loss : ''}The only way to restore a swarm that has lost consensus is to reinitialize it with \`--force-new-cluster\`. Use \`--force\` to suppress this message.`;
}

async function updateSwarm(host: ApiHost, request: Request): Promise<void> {
  const change = readSwarmSpec(specBody(request));
  const version = versionOf(request, 'swarm');
  const rotation = {
    worker: strictFlag(request, 'rotateWorkerToken'),
    manager: strictFlag(request, 'rotateManagerToken'),
    unlockKey: strictFlag(request, 'rotateManagerUnlockKey'),
  };
  const managed = await managedCluster(host);
  const cluster = clusterObject(managed.store);
  const Spec = mergedSpec(cluster.Spec, change);
  checkSwarmSpec(cluster.Spec, Spec);
  const changed = withLockKey({ ...cluster, Spec, Version: { Index: version } }, rotation, host.random);
  const object = rotatesRoot(cluster.Spec, Spec)
    ? await beginRotation(changed, { now: host.clock.now(), random: host.random })
    : changed;
  await commit(managed, [{ op: 'update', kind: 'cluster', object }]);
}

/** `docker swarm ca --rotate` counts ForceRotate up. */
function rotatesRoot(before: SwarmSpec, after: SwarmSpec): boolean {
  return (after.CAConfig.ForceRotate ?? 0) !== (before.CAConfig.ForceRotate ?? 0);
}

/**
 * The cluster with what was asked to be rotated. It has an unlock key exactly while autolock is on, in
 * the same entry, so that managers never lock without one.
 */
function withLockKey(
  cluster: Cluster,
  rotation: { worker: boolean; manager: boolean; unlockKey: boolean },
  random: Random,
): Cluster {
  const { UnlockKey, ...Private } = cluster.Private;
  if (!cluster.Spec.EncryptionConfig.AutoLockManagers) {
    return withRotated({ ...cluster, Private }, { ...rotation, unlockKey: false }, random);
  }
  return withRotated(cluster, { ...rotation, unlockKey: rotation.unlockKey || !UnlockKey }, random);
}

/** As Docker does it: a field that says nothing leaves the cluster's as it is. */
function mergedSpec(spec: SwarmSpec, change: SwarmSpecChange): SwarmSpec {
  const { Orchestration, Raft, Dispatcher, CAConfig, TaskDefaults, EncryptionConfig } = change;
  return {
    Name: change.Name || spec.Name,
    Labels: isZero(change.Labels) ? spec.Labels : change.Labels!,
    Orchestration: { ...spec.Orchestration, ...Orchestration },
    Raft: {
      ...spec.Raft,
      ...said(Raft),
      ...(Raft?.KeepOldSnapshots === undefined ? {} : { KeepOldSnapshots: Raft.KeepOldSnapshots }),
    },
    Dispatcher: { ...spec.Dispatcher, ...said(Dispatcher) },
    CAConfig: { ...spec.CAConfig, ...said(CAConfig) },
    TaskDefaults: TaskDefaults?.LogDriver ? { LogDriver: TaskDefaults.LogDriver } : spec.TaskDefaults,
    EncryptionConfig: { ...spec.EncryptionConfig, ...EncryptionConfig },
  };
}

function said<T extends object>(value: T | undefined): Partial<T> {
  return Object.fromEntries(Object.entries(value ?? {}).filter(([, field]) => !isZero(field))) as Partial<T>;
}

function checkSwarmSpec(before: SwarmSpec, after: SwarmSpec): void {
  const expiry = after.CAConfig.NodeCertExpiry;
  if (expiry !== undefined && expiry < minimumCertificateExpiryNs) {
    throw swarmError('invalid-argument', 'minimum certificate expiry time is: 1h0m0s');
  }
  if ((after.Dispatcher.HeartbeatPeriod ?? 0) < 0) {
    throw swarmError('invalid-argument', 'heartbeat time period cannot be a negative duration');
  }
  readGrants(after.Labels[allowLabel] ?? '');
  readReturnWithinMs(after.Labels);
  if (after.Name !== before.Name) {
    throw swarmError('invalid-argument', 'modification of cluster name is not allowed');
  }
  if (
    after.Raft.ElectionTick !== before.Raft.ElectionTick ||
    after.Raft.HeartbeatTick !== before.Raft.HeartbeatTick
  ) {
    throw new ShoalError(
      'not-supported',
      'Spec.Raft: ElectionTick and HeartbeatTick can not be changed while the cluster runs',
    );
  }
}
