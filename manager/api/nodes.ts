/** /nodes */
import { type Request, Router } from 'express';
import {
  type ClusterNode,
  engineIdLabel,
  type NodeAvailability,
  type NodeRole,
  type NodeSpec,
} from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import { isTerminal } from '../../proto/task-state.ts';
import type { Change } from '../store/change.ts';
import type { View } from '../store/store.ts';
import { nodeAnswer } from './answers.ts';
import { readNodeSpec } from './cluster-schema.ts';
import type { ApiHost } from './contract.ts';
import { checkFilters, type Filters, hasAskedPrefix, hasLabels, readFilters, wordsOf } from './filters.ts';
import { answerList } from './list.ts';
import { lookupNode } from './lookup.ts';
import { commit, looseFlag, managedCluster, pathOf, specBody, swarmError, versionOf } from './request.ts';

const roles: readonly NodeRole[] = ['worker', 'manager'];
const availabilities: readonly NodeAvailability[] = ['active', 'pause', 'drain'];

export function nodeRoutes(host: ApiHost): Router {
  const routes = Router();
  routes.get('/nodes', async (request, response) => {
    const filters = readFilters(request);
    const { store } = await managedCluster(host);
    await answerList(
      response,
      listNodes(store, filters).map((node) => nodeAnswer(store, node)),
    );
  });
  routes.get('/nodes/:id', async (request, response) => {
    const cluster = await managedCluster(host);
    response.json(nodeAnswer(cluster.store, lookupNode(cluster, pathOf(request, 'id'))));
  });
  routes.post('/nodes/:id/update', async (request, response) => {
    await updateNode(host, request);
    response.status(200).end();
  });
  routes.post('/nodes/:id/promote', async (request, response) => {
    const cluster = await managedCluster(host);
    const node = lookupNode(cluster, pathOf(request, 'id'));
    const { demote } = request.query;
    if (typeof demote !== 'string' || demote === '') {
      throw new ShoalError('invalid-argument', 'name the manager that becomes a worker: ?demote=NODE');
    }
    await commit(cluster, replacement(cluster.store, node, lookupNode(cluster, demote)));
    response.status(200).end();
  });
  routes.delete('/nodes/:id', async (request, response) => {
    const cluster = await managedCluster(host);
    const node = lookupNode(cluster, pathOf(request, 'id'));
    await commit(cluster, removal(cluster.store, node, looseFlag(request, 'force'), host.clock.now()));
    response.status(200).end();
  });
  return routes;
}

function listNodes(view: View, filters: Filters): ClusterNode[] {
  checkFilters(filters, ['name', 'id', 'label', 'role', 'membership', 'node.label']);
  const wantedRoles = wordsOf(filters, 'role', roles);
  const memberships = wordsOf(filters, 'membership', ['pending', 'accepted']);
  return view.list('node').filter(
    (node) =>
      hasAskedPrefix(filters, 'name', node.Description.Hostname) &&
      hasAskedPrefix(filters, 'id', node.ID) &&
      hasLabels(filters, 'label', node.Description.Engine.Labels) &&
      hasLabels(filters, 'node.label', node.Spec.Labels) &&
      (wantedRoles.length === 0 || wantedRoles.includes(node.Spec.Role)) &&
      // Whoever holds a join token is accepted at once, so there are no pending nodes.
      (memberships.length === 0 || memberships.includes('accepted')),
  );
}

async function updateNode(host: ApiHost, request: Request): Promise<void> {
  const spec = readNodeSpec(specBody(request));
  const version = versionOf(request, 'node');
  const Role = wordOf('Role', spec.Role, roles);
  const Availability = wordOf('Availability', spec.Availability, availabilities);
  const cluster = await managedCluster(host);
  const node = lookupNode(cluster, pathOf(request, 'id'));
  if (node.Spec.Role === 'manager' && Role === 'worker') checkDemotion(cluster.store, node);
  const Spec: NodeSpec = { ...spec, Role, Availability };
  await commit(cluster, [
    { op: 'update', kind: 'node', object: { ...node, Spec, Version: { Index: version } } },
  ]);
}

function wordOf<T extends string>(field: string, value: string, words: readonly T[]): T {
  const word = words.find((candidate) => candidate === value.toLowerCase());
  if (word === undefined) throw new ShoalError('invalid-argument', `invalid ${field}: "${value}"`);
  return word;
}

/** The voters that are left must have a quorum of their own. The leader takes the manager out of the group. */
function checkDemotion(view: View, node: ClusterNode): void {
  if (view.find('node', 'role', 'manager').length === 1) {
    throw swarmError('failed-precondition', 'attempting to demote the last manager of the swarm');
  }
  const others = view.list('node').filter((other) => hasVote(other) && other.ID !== node.ID);
  const reachable = others.filter((other) => other.ManagerStatus?.Reachability === 'reachable').length;
  if (reachable <= Math.floor(others.length / 2)) {
    throw swarmError(
      'failed-precondition',
      "can't remove member from the raft: this would result in a loss of quorum",
    );
  }
}

/**
 * Worker `node` is to take the place of manager `replaced`: that one stays until the other has caught up, and leaves the
 * group in the change that gives it its vote. Throws 'failed-precondition' where this can't be, or would lose the quorum.
 */
export function replacement(view: View, node: ClusterNode, replaced: ClusterNode): Change[] {
  const [name, other] = [node.Description.Hostname || node.ID, replaced.Description.Hostname || replaced.ID];
  const refuse = (why: string): never => {
    throw swarmError('failed-precondition', `node ${name} can't take the place of manager ${other}: ${why}`);
  };
  if (node.ID === replaced.ID) refuse('that is the same node');
  if (node.Spec.Role === 'manager') refuse(`${name} is a manager already; demote ${other} alone`);
  if (replaced.Spec.Role !== 'manager') refuse(`${other} is no manager; promote ${name} alone`);
  if (node.Status.State !== 'ready') {
    refuse(`${name} is ${node.Status.State} and would not catch up; it must be ready`);
  }
  if (node.Description.Engine.Labels[engineIdLabel] === undefined) {
    refuse(`${name} is a Docker Engine, which can be a worker only`);
  }
  const busy = view.list('node').find((one) => one.Private.Replaces === replaced.ID);
  if (busy) {
    const who = busy.Description.Hostname || busy.ID;
    refuse(
      `${who} is about to; wait until it has its vote, or call it off with \`shoal node demote ${who}\``,
    );
  }
  if (!hasVote(replaced)) refuse(`${other} has no vote yet; demote it and promote ${name}`);
  const voters = view.list('node').filter(hasVote);
  const isReached = (one: ClusterNode) => one.ManagerStatus?.Reachability === 'reachable';
  const staying = voters.filter((one) => one.ID !== replaced.ID);
  const quorum = Math.floor(voters.length / 2) + 1;
  if (Math.min(voters.filter(isReached).length, staying.filter(isReached).length + 1) < quorum) {
    refuse('this would result in a loss of quorum, for too few of the other managers are reachable');
  }
  const Private = { ...node.Private, Replaces: replaced.ID };
  const Spec: NodeSpec = { ...node.Spec, Role: 'manager' };
  return [{ op: 'update', kind: 'node', object: { ...node, Spec, Private } }];
}

/** The keeper calls one unknown that is in the group and has no vote yet. */
function hasVote({ ManagerStatus }: ClusterNode): boolean {
  return ManagerStatus !== undefined && ManagerStatus.Reachability !== 'unknown';
}

/** The node goes and its tasks are orphaned in one entry, so that nothing is left pointing at it. */
export function removal(view: View, node: ClusterNode, force: boolean, now: number): Change[] {
  if (node.Spec.Role === 'manager' && node.ManagerStatus) {
    throw swarmError(
      'failed-precondition',
      `node ${node.ID} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal`,
    );
  }
  if (!force && node.Status.State === 'ready') {
    throw swarmError('failed-precondition', `node ${node.ID} is not down and can't be removed`);
  }
  const orphaned = view
    .find('task', 'node', node.ID)
    .filter((task) => !isTerminal(task.Status.State))
    .map((task): Change => {
      const Timestamp = new Date(now).toISOString();
      const Message = 'Task belonged to a node that has been deleted';
      const Status = { ...task.Status, Timestamp, State: 'orphaned' as const, Message };
      return { op: 'merge', kind: 'task', id: task.ID, fields: { Status } };
    });
  return [...orphaned, { op: 'remove', kind: 'node', id: node.ID }];
}
