/** `shoal node promote A --demote B` in whole clusters: whoever B is, the cluster ends with A in its place. */
import assert from 'node:assert/strict';
import { replacement } from '../../manager/api/nodes.ts';
import { SimulatedCluster } from './cluster.ts';
import { differences } from './converged.ts';
import type { Machine } from './machine.ts';
import { scopeOf } from './scope.ts';

const boundMs = 60_000;

/** The first seed with so many managers, a worker at least, and nothing to expire. */
function seedOf(managers: number): number {
  for (let seed = 1; ; seed += 1) {
    const scope = scopeOf({ seed });
    const isPlain = scope.oldFormat === undefined && scope.certificates.CAConfig === undefined;
    if (scope.managers === managers && scope.workers > 0 && isPlain) return seed;
  }
}

describe('simulation: a node takes the place of a manager', () => {
  for (const [what, managers, isLeader] of [
    ['another manager than the leader', 3, false],
    ['the leader', 3, true],
    ['the only manager', 1, true],
  ] as const) {
    it(`of ${what}`, async () => {
      const cluster = new SimulatedCluster({ seed: seedOf(managers) });
      await cluster.begin();
      // Until the leader has noted of each manager that it votes.
      await cluster.pass(1_000);
      const leader = cluster.machine(cluster.leader()!.machine);
      const replaced = isLeader
        ? leader
        : cluster.machines.find((one) => one !== leader && one.manager !== undefined)!;
      const worker = cluster.machines[managers]!;
      const replace = (by: Machine) =>
        cluster.ask(leader, async (manager) => {
          await manager.readBarrier();
          const node = (machine: Machine) => manager.store.get('node', machine.nodeId)!;
          await manager.propose(replacement(manager.store, node(by), node(replaced)));
        });
      let isAsked = false;
      const asked = replace(worker).finally(() => {
        isAsked = true;
      });
      assert.ok(await cluster.passUntil(() => isAsked, boundMs));
      await asked;
      let fewest: number = managers;
      const isDone = (): boolean => {
        const now = cluster.leader();
        if (now === undefined) return false;
        const { members } = now.manager.raft.status();
        fewest = Math.min(fewest, members.filter(({ isLearner }) => !isLearner).length);
        const { store } = now.manager;
        const isReplaced =
          store.get('node', replaced.nodeId)?.Private.Role === 'worker' &&
          store.get('node', worker.nodeId)?.Private.Replaces === undefined &&
          !replaced.hasLog;
        return isReplaced && differences(cluster).length === 0;
      };
      assert.ok(await cluster.passUntil(isDone, boundMs), differences(cluster).join('; '));
      assert.equal(fewest, managers);
      assert.equal(cluster.managers().length, managers);
      assert.ok(worker.manager);
      assert.equal(cluster.invariants.violation, undefined);
    });
  }
});
