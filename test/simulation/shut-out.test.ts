/** Nodes whose certificates expire while they are away, where nobody may come back late: who is let in again. */
import assert from 'node:assert/strict';
import { SimulatedCluster } from './cluster.ts';
import type { Machine } from './machine.ts';
import { scopeOf } from './scope.ts';

const strictMs = 2_000;
const boundMs = 60_000;

/** The first seed whose three managers have certificates that expire, and hardly a way back after that. */
function strictSeed(): { seed: number; lifeMs: number } {
  for (let seed = 1; ; seed += 1) {
    const { managers, oldFormat, certificates } = scopeOf({ seed });
    if (managers !== 3 || oldFormat !== undefined || !certificates.Labels) continue;
    return { seed, lifeMs: certificates.CAConfig!.NodeCertExpiry! / 1e6 };
  }
}

describe('simulation: certificates that expire while a node is away', () => {
  const { seed, lifeMs } = strictSeed();
  let cluster: SimulatedCluster;
  let machine: Machine;

  beforeEach(async () => {
    cluster = new SimulatedCluster({ seed });
    await cluster.begin();
    await cluster.pass(500);
    machine = cluster.machines.find(({ name }) => name !== cluster.leader()?.machine && name <= 'm3')!;
  });

  const isVoter = (): boolean => {
    const members = cluster.leader()?.manager.raft.status().members ?? [];
    return members.some((member) => member.nodeId === machine.nodeId && !member.isLearner);
  };
  const isReady = (): boolean =>
    cluster.leader()?.manager.store.get('node', machine.nodeId)?.Status.State === 'ready';

  it('an agent whose manager was dead so long is not shut out: the manager makes it a certificate', async () => {
    const { nodeId } = machine;
    machine.killManager();
    machine.killAgent(() => false);
    await cluster.pass(lifeMs + strictMs + 5_000);
    cluster.startAgent(machine);
    await cluster.pass(3_000);
    assert.equal(machine.shutOut, undefined);
    cluster.startManager(machine);
    assert.ok(await cluster.passUntil(() => isVoter() && isReady(), boundMs), 'it is not back');
    assert.equal(machine.nodeId, nodeId);
    assert.equal(cluster.invariants.violation, undefined);
  });

  it('a manager that lost its disk and comes too late is admitted as another node only', async () => {
    const { nodeId } = machine;
    machine.isOff = true;
    machine.killAgent(() => false);
    await machine.wipe();
    await cluster.pass(lifeMs + strictMs + 5_000);
    machine.isOff = false;
    await cluster.pass(1_000);
    assert.equal(machine.hasLog, false, 'it was admitted with a certificate that has expired');
    cluster.startAgent(machine);
    assert.ok(
      await cluster.passUntil(() => machine.nodeId !== nodeId && isReady(), boundMs),
      'it is not back',
    );
    const isGone = (): boolean => {
      const { store, raft } = cluster.leader()!.manager;
      return (
        store.get('node', nodeId) === undefined &&
        raft.status().members.every((member) => member.nodeId !== nodeId)
      );
    };
    assert.ok(await cluster.passUntil(isGone, boundMs), 'what it was is there still');
    assert.equal(cluster.invariants.violation, undefined);
  });
});
