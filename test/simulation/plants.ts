/**
 * Bugs put into a simulated cluster on purpose, each by wrapping something the product is handed: what the
 * simulation must find, so that its silence means something.
 */
import type { Engine } from '../../agent/engine/engine.ts';
import { type Decisions, decisions } from '../../manager/leader.ts';
import type { AppendFile, Disk, RaftTransport } from '../../manager/raft/contract.ts';
import type { Message } from '../../manager/raft/core/types.ts';
import type { Change } from '../../manager/store/change.ts';
import type { Reconciler, Reconciliation } from '../../manager/store/reconciler.ts';
import type { View } from '../../manager/store/store.ts';
import type { Task } from '../../proto/docker.ts';
import type { TaskId } from '../../proto/ids.ts';
import { delay } from '../../proto/ports.ts';
import { isTerminal } from '../../proto/task-state.ts';
import type { SimulatedDisk } from './disk.ts';
import { plantsOfKinds } from './kinds/plants.ts';
import type { Machine } from './machine.ts';
import type { Plant, Surroundings } from './surroundings.ts';

/** More than the margin that the managers wait. */
const hastyMs = 15_000;
/** How long written bytes stay in a cache that claims to be a disk. */
const lyingCacheMs = 400;

/** Says that bytes are durable as soon as it has them. */
function ackBeforeFlush(disk: SimulatedDisk, { clock }: Surroundings): Disk {
  const lying = (inner: AppendFile): AppendFile => {
    let tail: Promise<unknown> = Promise.resolve();
    return {
      async append(data) {
        const copy = data.slice();
        const write = async (): Promise<void> => {
          await delay(clock, lyingCacheMs);
          await inner.append(copy);
        };
        // After a crash the rest of the cache is gone.
        tail = tail.then(write);
        tail.catch(() => {});
      },
      close: () => inner.close(),
    };
  };
  return {
    list: () => disk.list(),
    read: (name) => disk.read(name),
    create: async (name) => lying(await disk.create(name)),
    reopen: async (name, keepBytes) => lying(await disk.reopen(name, keepBytes)),
    replace: (name, data) => disk.replace(name, data),
    remove: (name) => disk.remove(name),
  };
}

/** A voter that has forgotten whom it voted for: it grants what only its earlier vote forbids. */
function voteTwice(transport: RaftTransport, machine: Machine): RaftTransport {
  const grant = (message: Message): Message => {
    if (message.type !== 'MsgVoteResp' || message.reject !== true) return message;
    const status = machine.manager?.manager.raft.status();
    return status?.term === message.term ? { ...message, reject: false } : message;
  };
  return { ...transport, send: (to, messages) => transport.send(to, messages.map(grant)) };
}

/** Answers reads of other managers with a read point of long ago. */
function staleRead(transport: RaftTransport): RaftTransport {
  return { ...transport, forwardReadIndex: async () => 0 };
}

/** Takes a slot that is occupied for an empty one, now and then. */
function forgetSlot(): Decisions {
  const real = decisions(() => undefined);
  let creations = 0;
  const forgetful = (reconciler: Reconciler): Reconciler => ({
    ...reconciler,
    reconcile(view, key, now, newId, steadySince) {
      const wanted = reconciler.reconcile(view, key, now, newId, steadySince);
      const doubled = wanted.changes.flatMap((change): Change[] => {
        if (change.op !== 'create' || change.kind !== 'task') return [change];
        creations += 1;
        if (creations % 7 !== 0) return [change];
        return [change, { ...change, object: { ...change.object, ID: newId<TaskId>() } }];
      });
      return { ...wanted, changes: doubled };
    },
  });
  return {
    ...real,
    reconcilers: real.reconcilers.map((one) => (one.name === 'replicated' ? forgetful(one) : one)),
  };
}

/** Places tasks, and says of those that it can't place nothing at all. */
function wordlessScheduler(): Decisions {
  const real = decisions(() => undefined);
  const wordless = (reconciliation: Reconciliation): Reconciliation => {
    const { changes, rest } = reconciliation;
    return {
      ...reconciliation,
      changes: changes.filter(
        (change) =>
          change.op !== 'merge' || change.kind !== 'task' || change.fields.Status?.State !== 'pending',
      ),
      ...(rest ? { rest: (now: number) => wordless(rest(now)) } : {}),
    };
  };
  return {
    ...real,
    reconcilers: real.reconcilers.map((one) =>
      one.name === 'scheduler'
        ? { ...one, reconcile: (view, key, now, newId) => wordless(one.reconcile(view, key, now, newId)) }
        : one,
    ),
  };
}

/** Takes what a node was given up for to be over some time before it is. */
function hastySuccessor(): Decisions {
  const real = decisions(() => undefined);
  const hasty = (reconciler: Reconciler): Reconciler => ({
    ...reconciler,
    reconcile: (view, key, now, newId, steadySince) =>
      reconciler.reconcile(view, key, now + hastyMs, newId, steadySince),
  });
  return {
    ...real,
    reconcilers: real.reconcilers.map((one) => (one.name === 'replicated' ? hasty(one) : one)),
  };
}

/** Gives a task the address that another one of the network has, now and then. */
function addressTwice(): Decisions {
  const real = decisions(() => undefined);
  let creations = 0;
  const finish = (view: View, changes: readonly Change[], now: number): readonly Change[] =>
    (real.finish?.(view, changes, now) ?? changes).map((change) => {
      if (change.op !== 'create' || change.kind !== 'task') return change;
      creations += 1;
      return creations % 3 === 0 ? { ...change, object: withTakenAddress(view, change.object) } : change;
    });
  return { ...real, finish };
}

function withTakenAddress(view: View, task: Task): Task {
  const [first, ...rest] = task.NetworksAttachments ?? [];
  const holder =
    first && view.find('task', 'network', first.NetworkID).find((one) => !isTerminal(one.Status.State));
  const taken = holder?.NetworksAttachments?.find((one) => one.NetworkID === first?.NetworkID);
  return first && taken
    ? { ...task, NetworksAttachments: [{ ...first, Addresses: taken.Addresses }, ...rest] }
    : task;
}

/** Gives a node the virtual address of a service for its own, now and then. */
function ownAddressTwice(): Decisions {
  const real = decisions(() => undefined);
  let given = 0;
  const finish = (view: View, changes: readonly Change[], now: number): readonly Change[] =>
    (real.finish?.(view, changes, now) ?? changes).map((change): Change => {
      if (change.op !== 'merge' || change.kind !== 'node' || !change.fields.Attachments) return change;
      given += 1;
      if (given % 3 !== 0) return change;
      const Attachments = change.fields.Attachments.map((one) => {
        const services = view.find('service', 'network', one.NetworkID);
        const vip = services
          .flatMap((service) => service.Endpoint.VirtualIPs ?? [])
          .find(({ NetworkID }) => NetworkID === one.NetworkID);
        return vip ? { ...one, Addresses: [vip.Addr] } : one;
      });
      return { ...change, fields: { ...change.fields, Attachments } };
    });
  return { ...real, finish };
}

/** An engine whose removals do nothing, though they are answered. */
function lostRemove(engine: Engine): Engine {
  return new Proxy(engine, {
    get(target, name) {
      if (name === 'remove') return async () => {};
      const value: unknown = Reflect.get(target, name);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

export const plants: Readonly<Record<string, Plant>> = {
  'ack-before-flush': { what: 'the disk says that bytes are durable before they are', disk: ackBeforeFlush },
  'vote-twice': {
    what: 'a voter forgets its vote within a term',
    transport: voteTwice,
    weather: { delayMs: [50, 250], lossRate: 0.02, duplicateRate: 0, reorderRate: 0 },
  },
  'forget-slot': {
    what: 'a reconciler creates a task for an occupied slot',
    decide: forgetSlot,
    whole: true,
  },
  'address-twice': {
    what: 'the allocator hands out a used address',
    decide: addressTwice,
    isStoreBlind: true,
    whole: true,
  },
  'own-address-twice': {
    what: 'the allocator gives a node the address of a service',
    decide: ownAddressTwice,
    isStoreBlind: true,
    whole: true,
  },
  'hasty-successor': {
    what: 'a successor is started before the task that stops on isolation has stopped',
    decide: hastySuccessor,
    guarded: true,
  },
  'wordless-scheduler': {
    what: 'the scheduler does not say why a task has no node',
    decide: wordlessScheduler,
    whole: true,
  },
  'stale-read': { what: 'a read is answered from a point of long ago', transport: staleRead },
  'lost-remove': { what: 'the engine forgets to remove containers', engine: lostRemove, whole: true },
  'no-way-back': {
    what: 'managers take no signature of a node whose certificate has expired',
    authority: (authority) => ({ ...authority, isSigned: () => false }),
  },
  ...plantsOfKinds,
};
