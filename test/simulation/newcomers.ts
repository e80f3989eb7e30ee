/**
 * What an operator does about nodes that are told that they are out, for they were removed or came back too late: they
 * leave, join anew with a token, and the old node is removed.
 */
import { nodeIdLabel } from '../../agent/engine/container-spec.ts';
import { removal } from '../../manager/api/nodes.ts';
import type { Cluster, NodeRole } from '../../proto/docker.ts';
import { messageOf } from '../../proto/errors.ts';
import type { NodeId } from '../../proto/ids.ts';
import type { NodeIdentity } from '../../proto/rpc.ts';
import { certificateText } from './certificates.ts';
import type { SimulatedCluster } from './cluster.ts';
import type { Machine } from './machine.ts';

/** What a machine has from the beginning; the cluster knows of it from its first entry on. */
export function firstCertificate(
  cluster: Cluster,
  machine: Machine,
  role: NodeRole,
  now: number,
): { requestPem: string; identity: NodeIdentity } {
  const keyPem = machine.newKey();
  const requestPem = `request for ${keyPem}`;
  const { nodeId } = machine;
  const certificatePem = certificateText(cluster, { requestPem, nodeId, role }, now);
  return { requestPem, identity: { certificatePem, keyPem, rootsPem: '' } };
}

export class Newcomers {
  readonly #cluster: SimulatedCluster;
  readonly #busy = new Set<Machine>();
  /** Machines that are to join anew, and the key of their request. */
  readonly #requests = new Map<Machine, string>();
  /** Ids that machines had before, whose nodes and containers are to go. */
  readonly #former = new Map<NodeId, Machine>();

  constructor(cluster: SimulatedCluster) {
    this.#cluster = cluster;
  }

  tend(machine: Machine): void {
    this.#clearAway(machine);
    const reason = machine.toldOut();
    const isOut = reason !== undefined && (!machine.hasLog || machine.shutOut !== undefined);
    if (isOut && !this.#requests.has(machine)) {
      this.#refuseWithoutCause(machine);
      // A manager that had got nothing of the cluster yet when its certificate expired.
      if (machine.hasLog) void machine.wipe();
      this.#cluster.trace.note(`${machine.name}: is out (${reason.slice(0, 90)}): leaves and joins anew`);
      this.#requests.set(machine, machine.newKey());
    }
    const keyPem = this.#requests.get(machine);
    if (keyPem === undefined || machine.isOff || this.#busy.has(machine)) return;
    this.#busy.add(machine);
    this.#join(machine, keyPem)
      .catch((error: unknown) => this.#cluster.trace.note(`${machine.name}: not yet: ${messageOf(error)}`))
      .finally(() => this.#busy.delete(machine));
  }

  /** Where a month is allowed nobody comes too late, and who was not removed is let in. */
  #refuseWithoutCause(machine: Machine): void {
    const { scope, invariants, hasOneHistory } = this.#cluster;
    const node = this.#cluster.leader()?.manager.store.get('node', machine.nodeId);
    if (machine.shutOut === undefined || scope.certificates.Labels || !hasOneHistory || !node) return;
    invariants.violate('comes-back', `${machine.name} was not let in again: ${machine.shutOut}`);
  }

  /** Asked until it works; by the same request, which the managers know again. */
  async #join(machine: Machine, keyPem: string): Promise<void> {
    const leader = this.#cluster.leader();
    if (leader === undefined) return;
    const { agent } = machine;
    if (agent && agent.agent.session.kind !== 'stopped') {
      await new Promise<void>((resolve, reject) => {
        agent.process.onDeath(() => reject(new Error('the agent died while it left')));
        agent.agent.leave().then(() => resolve(), reject);
      });
    }
    const requestPem = `request for ${keyPem}`;
    const certificatePem = await this.#cluster.ask(this.#cluster.machine(leader.machine), async (manager) => {
      await manager.readBarrier();
      const { ID: id, JoinTokens } = manager.store.cluster()!;
      // What an earlier version wrote may know of none.
      const token = JoinTokens.Worker || 'worker-token';
      if (JoinTokens.Worker === '') {
        const fields = { JoinTokens: { ...JoinTokens, Worker: token } };
        await manager.propose([{ op: 'merge', kind: 'cluster', id, fields }]);
      }
      const nodeId = await manager.certificates.issue({
        applicant: { kind: 'joiner', token },
        requestPem,
        availability: 'active',
        isShoal: true,
      });
      return (await manager.certificates.status(nodeId)).certificatePem;
    });
    this.#requests.delete(machine);
    this.#former.set(machine.nodeId, machine);
    machine.become({ certificatePem, keyPem, rootsPem: '' });
    this.#cluster.startAgent(machine);
  }

  /** An engine that did not answer when its node left still has that node's containers; the managers may have the node. */
  #clearAway(machine: Machine): void {
    for (const [id, owner] of this.#former) {
      if (owner !== machine) continue;
      const left = machine.engine.states().filter(({ labels }) => labels[nodeIdLabel] === id);
      for (const container of left) void machine.engine.remove(container.id).catch(() => {});
      const leader = this.#cluster.leader();
      const node = leader?.manager.store.get('node', id);
      if (leader && node && node.Status.State !== 'ready' && !this.#busy.has(machine)) {
        this.#busy.add(machine);
        this.#cluster
          .ask(this.#cluster.machine(leader.machine), async (manager) => {
            await manager.readBarrier();
            const known = manager.store.get('node', id);
            if (known === undefined) return;
            if (known.Spec.Role === 'worker') {
              await manager.propose(removal(manager.store, known, true, this.#cluster.clock.now()));
              return;
            }
            // It was let into the group again a moment before; it is taken out of that first.
            const fields = { Spec: { ...known.Spec, Role: 'worker' as const } };
            await manager.propose([{ op: 'merge', kind: 'node', id, fields }]);
          })
          .catch(() => {})
          .finally(() => this.#busy.delete(machine));
      }
    }
  }
}
