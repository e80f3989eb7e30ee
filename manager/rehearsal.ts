/**
 * The rehearsal of a restore: a backup's state is loaded, looked through, and made the state of a group of one whose
 * log is in memory; that member leads, is stopped and started again from its log. In: an opened backup. Out: what it
 * holds and what is wrong with it. It touches no disk, no network and no cluster.
 */
import { messageOf } from '../proto/errors.ts';
import type { Clock, Log, Random } from '../proto/ports.ts';
import type { Backup } from './backup/backup.ts';
import { type Examination, examine } from './backup/examine.ts';
import { planRestore } from './backup/restore.ts';
import { Manager, type ManagerOptions, newRaftId } from './manager.ts';
import type { RaftStart, RaftTransport } from './raft/contract.ts';
import { MemoryDisk } from './raft/memory-disk.ts';
import { createKeyFile, openKeyFile } from './raft/seal.ts';
import { Store } from './store/store.ts';
import { kinds } from './store/tables.ts';

/** Elections of a group of one need not be waited for. */
const tickMs = 5;

export interface RehearsalContext {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Answers what the backup holds; `faults` is empty when it can be restored and fits together. */
export async function rehearse(backup: Backup, context: RehearsalContext): Promise<Examination> {
  const { clock, random } = context;
  const store = new Store();
  store.restore(backup.facts.index, backup.state);
  const found = await examine(store, clock.now(), random);
  if (!store.cluster()) return found;
  try {
    const fault = await restoreAndRestart(backup, context);
    return fault ? { ...found, faults: [...found.faults, fault] } : found;
  } catch (error) {
    return { ...found, faults: [...found.faults, `it can't be restored: ${messageOf(error)}`] };
  }
}

/** Answers what differs between the state that a member was restored with and the one it restarts with. */
async function restoreAndRestart(
  backup: Backup,
  { clock, random, log }: RehearsalContext,
): Promise<string | undefined> {
  const now = clock.now();
  const plan = await planRestore(backup, { now, random, availability: 'drain', awaitNodesMs: 3_600_000 });
  const disk = new MemoryDisk();
  const dataKeys = await createKeyFile(disk, random, plan.unlockKey);
  let failure: unknown;
  const common = {
    nodeId: plan.nodeId,
    disk,
    transport: nobody,
    clock,
    random,
    log,
    onFailure: (error) => {
      failure = error;
    },
    sealedUnder: plan.unlockKey,
    decide: () => ({ reconcilers: [], finish: (_view, changes) => changes }),
    tuning: { tickMs },
  } satisfies Partial<ManagerOptions>;
  const start: RaftStart = {
    kind: 'bootstrap',
    self: { raftId: newRaftId(random), nodeId: plan.nodeId, address: 'rehearsal:2377' },
    after: { index: plan.restored.index, term: plan.restored.term, members: plan.restored.formerMembers },
  };
  const first = await Manager.start({
    ...common,
    dataKeys,
    start,
    firstChanges: plan.changes,
    restored: plan.restored,
  });
  await first.readBarrier();
  const before = contentOf(first.store);
  await first.stop({ orderly: false });
  const again = await Manager.start({
    ...common,
    dataKeys: await openKeyFile(disk, plan.unlockKey),
    start: { kind: 'restart' },
  });
  await again.readBarrier();
  const after = contentOf(again.store);
  await again.stop({ orderly: false });
  if (failure !== undefined) throw failure;
  const different = kinds.filter((kind) => before[kind] !== after[kind]);
  return different.length > 0
    ? `after a restart the restored manager holds other objects: ${different.join(', ')}`
    : undefined;
}

/** Each kind's objects as text; what the leader's keeper writes into nodes is of the moment and left out. */
function contentOf(store: Store): Record<string, string> {
  return Object.fromEntries(
    kinds.map((kind) => [
      kind,
      JSON.stringify(kind === 'node' ? store.list('node').map(({ ID }) => ID) : store.list(kind)),
    ]),
  );
}

const nobody: RaftTransport = {
  send: () => {},
  setMembers: () => {},
  forwardProposal: () => Promise.reject(new Error('a rehearsal has no other members')),
  forwardReadIndex: () => Promise.reject(new Error('a rehearsal has no other members')),
};
