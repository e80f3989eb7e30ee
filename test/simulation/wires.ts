/**
 * The two protocols of the cluster over the simulated network: Raft between managers, the worker protocol between
 * agents and managers. Where a run is exact about it, what they carry goes through the same encodings as over gRPC;
 * elsewhere Raft's messages are handed over as they are, for encoding them is a quarter of a run.
 */
import { unpack } from 'msgpackr';
import type {
  ConnectDispatcher,
  SessionHandlers,
  Stream,
  StreamHandlers,
  UsageStream,
} from '../../agent/dispatcher-client.ts';
import { millisecondsOf, type WireAssignments, type WireSessionMessage } from '../../agent/wire.ts';
import { type Dispatcher, notLeader } from '../../manager/dispatcher/dispatcher.ts';
import type { Member, RaftTransport } from '../../manager/raft/contract.ts';
import type { MemberId, Message } from '../../manager/raft/core/types.ts';
import { encodeMessages, messagesOf, withSnapshotData } from '../../manager/raft/message-codec.ts';
import type { UsageHandle } from '../../manager/usage/board.ts';
import { notMeasured } from '../../manager/usage/service.ts';
import { isShoalError, ShoalError } from '../../proto/errors.ts';
import type { UsageReport } from '../../proto/generated/shoal/v1/UsageReport.ts';
import type { UsageWishes__Output as UsageWishes } from '../../proto/generated/shoal/v1/UsageWishes.ts';
import type { NodeId } from '../../proto/ids.ts';
import { loadPackage, type NodeIdentity } from '../../proto/rpc.ts';
import type { StreamHandle } from '../../proto/rpc-stream.ts';
import { refuseClient, refuseServer } from './certificates.ts';
import type { RunningManager } from './machine.ts';
import { connectionRefused, type Endpoint, type Network, StreamPipe } from './network.ts';

const forwardTimeoutMs = 10_000;
const reportTimeoutMs = 10_000;
const snapshotTimeoutMs = 4_000;

/** Who is where. */
export interface Places {
  readonly network: Network;
  /** Whether Raft's messages are encoded on their way. */
  readonly isExact: boolean;
  /** Whether agents tell what their tasks use. */
  readonly isMeasured: boolean;
  /** Machine name of an address (host:port). */
  machineAt(address: string): string;
  /** The manager that runs on a machine now. */
  managerOn(machine: string): RunningManager | undefined;
  /** What a machine shows to those who connect to it. */
  shownBy(machine: string): NodeIdentity | undefined;
  /** A manager took in an agent whose node it does not know. */
  onStranger(machine: string, nodeId: NodeId): void;
  /** The machine of a running member. */
  machineOf(raftId: MemberId): string | undefined;
  /** Every batch of Raft messages, as it arrives. */
  onDelivered?(from: string, to: string, messages: readonly Message[]): void;
}

/** The Raft transport of the manager at `self`. */
export function raftTransport(
  places: Places,
  self: Endpoint,
  node: () => RunningManager | undefined,
): RaftTransport {
  const { network } = places;
  const machineOf = (member: Member): string | undefined =>
    member.address === '' ? places.machineOf(member.raftId) : places.machineAt(member.address);
  const deliver = (to: string, messages: readonly Message[]): void => {
    const target = places.managerOn(to);
    if (target === undefined) return;
    places.onDelivered?.(self.machine, to, messages);
    target.process.run(() => {
      for (const message of messages) target.manager.raft.receive(message);
    });
  };
  const ask = async <T>(leader: Member, work: (server: RunningManager) => Promise<T>): Promise<T> => {
    const to = places.machineAt(leader.address);
    if (network.isCut(self.machine, to)) {
      throw new ShoalError('unavailable', 'not connected', { details: { outcome: 'not-appended' } });
    }
    try {
      return await network.call(self, to, () => places.managerOn(to), forwardTimeoutMs, work);
    } catch (error) {
      throw outcomeOf(error);
    }
  };
  return {
    setMembers() {},
    isConnected: (member) => {
      const to = machineOf(member);
      return to !== undefined && !network.isCut(self.machine, to) && places.managerOn(to) !== undefined;
    },
    send(member, messages) {
      const to = machineOf(member);
      if (to === undefined || !self.process.isAlive) return;
      const snapshots = messages.filter((message) => message.type === 'MsgSnap');
      const carried = places.isExact ? encoded(messages) : () => messages;
      let isDelivered = false;
      // A snapshot goes in a call of its own, which breaks when the way is cut under it.
      if (snapshots.length > 0) {
        self.process.after(snapshotTimeoutMs, () => {
          if (!isDelivered) node()?.manager.raft.reportSnapshot(member.raftId, false);
        });
      }
      const arrived = network.datagram(self.machine, to, () => {
        isDelivered = true;
        deliver(to, carried());
        if (snapshots.length > 0) {
          self.process.run(() => node()?.manager.raft.reportSnapshot(member.raftId, true));
        }
      });
      if (arrived) return;
      self.process.after(network.delayMs(self.machine, to), () => {
        if (network.isCut(self.machine, to)) node()?.manager.raft.reportUnreachable(member.raftId);
        if (snapshots.length > 0) node()?.manager.raft.reportSnapshot(member.raftId, false);
      });
    },
    forwardProposal: (leader, data) => ask(leader, (server) => server.manager.raft.proposeAsLeader(data)),
    forwardReadIndex: (leader) => ask(leader, (server) => server.manager.raft.readIndexAsLeader()),
  };
}

/** What comes off the wire, each time that it does. */
function encoded(messages: readonly Message[]): () => readonly Message[] {
  const bytes = encodeMessages(messages);
  return () =>
    messagesOf(unpack(bytes) as unknown[]).map((message, at) => {
      const { snapshot } = messages[at]!;
      return snapshot === undefined ? message : withSnapshotData(message, snapshot.data.slice());
    });
}

/** A connection that was refused carried nothing; one that broke leaves the outcome open. */
function outcomeOf(error: unknown): unknown {
  if (!isShoalError(error) || error.details.outcome !== undefined || error.code === 'not-leader')
    return error;
  if (error.code !== 'unavailable' && error.code !== 'timeout') return error;
  const outcome = error.message === connectionRefused().message ? 'not-appended' : 'unknown';
  return new ShoalError('unavailable', error.message, { cause: error, details: { outcome } });
}

interface Encoding {
  serialize(value: object): Buffer;
  deserialize(bytes: Buffer): unknown;
}

type Method = { [Half in 'request' | 'response' as `${Half}Serialize`]: Encoding['serialize'] } & {
  [Half in 'request' | 'response' as `${Half}Deserialize`]: Encoding['deserialize'];
};

/** `message` as it comes off the wire on the other side. */
function overWire<T>(method: string, half: 'request' | 'response', message: object): T {
  const definition = (loadPackage().Dispatcher.service as unknown as Record<string, Method>)[method]!;
  return definition[`${half}Deserialize`](definition[`${half}Serialize`](message)) as T;
}

/** How the agent of `nodeId` at `self` reaches managers. */
export function dispatcherOver(places: Places, self: Endpoint, nodeId: NodeId): ConnectDispatcher {
  const { network } = places;
  return (address, identity) => {
    const to = places.machineAt(address);
    const greeted = (server: RunningManager): Dispatcher => {
      refuseServer(self.process, places.shownBy(to));
      refuseClient(identity, server.process);
      return dispatcherOf(server);
    };
    const ask = <T>(timeoutMs: number, work: (dispatcher: Dispatcher) => T | Promise<T>): Promise<T> =>
      network.call(
        self,
        to,
        () => places.managerOn(to),
        timeoutMs,
        (server) => work(greeted(server)),
      );
    const opened = <Message>(
      pipe: StreamPipe<Message>,
      open: (server: RunningManager) => StreamHandle | Promise<StreamHandle>,
    ): Stream => {
      const arrive = (): void => {
        const server = places.managerOn(to);
        if (server === undefined) {
          pipe.end(connectionRefused());
          return;
        }
        server.process.run(() => {
          Promise.resolve()
            .then(() => open(server))
            .then(
              (handle) => {
                if (!server.manager.store.get('node', nodeId)) places.onStranger(to, nodeId);
                pipe.accept(server, () => handle.close());
              },
              (error: unknown) => pipe.end(asShoalError(error)),
            );
        });
      };
      network.carry(self.machine, to, arrive, () => pipe.breakDown());
      return { cancel: () => pipe.cancel() };
    };
    const stream = <Message extends object>(
      method: string,
      handlers: StreamHandlers<Message>,
      open: (dispatcher: Dispatcher, pipe: StreamPipe<Message>) => StreamHandle | Promise<StreamHandle>,
    ): Stream => {
      const pipe = new StreamPipe<Message>(network, self, to, handlers);
      const encoded = {
        send: (message: Message) => pipe.send(overWire<Message>(method, 'response', message)),
        end: (error?: ShoalError) => pipe.end(error),
      } as StreamPipe<Message>;
      return opened(pipe, (server) => open(greeted(server), encoded));
    };
    const watchUsage = (handlers: StreamHandlers<UsageWishes>): UsageStream => {
      const pipe = new StreamPipe<UsageWishes>(network, self, to, handlers);
      let handle: UsageHandle | undefined;
      const { cancel } = opened(pipe, (server) => {
        greeted(server);
        const board = server.manager.leading()?.usage;
        if (board === undefined) throw notMeasured();
        const watch = board.watch(nodeId, pipe as never);
        handle = watch;
        return watch;
      });
      const report = (said: UsageReport): void =>
        network.carry(
          self.machine,
          to,
          () => handle?.report(said),
          () => {},
        );
      return { cancel, report };
    };
    return {
      address,
      ...(places.isMeasured ? { watchUsage } : {}),
      session: (description, handlers: SessionHandlers) =>
        stream<WireSessionMessage>('Session', handlers, (dispatcher, sink) => {
          if (places.isMeasured) self.process.run(() => handlers.onManagerKind('shoal'));
          return dispatcher.session(
            { nodeId, role: 'worker', address: hostOf(self.machine) },
            overWire('Session', 'request', { description }),
            sink as never,
          );
        }),
      heartbeat: async (sessionId, timeoutMs) => {
        const answer = await ask(timeoutMs, (dispatcher) => dispatcher.heartbeat(nodeId, sessionId));
        return millisecondsOf(answer.period) ?? 0;
      },
      updateTaskStatus: async (sessionId, updates) => {
        const request = overWire<{ updates?: never[] }>('UpdateTaskStatus', 'request', {
          session_id: sessionId,
          updates,
        });
        await ask(reportTimeoutMs, (dispatcher) =>
          dispatcher.updateTaskStatus(nodeId, sessionId, request.updates ?? []),
        );
      },
      assignments: (sessionId, handlers: StreamHandlers<WireAssignments>) =>
        stream('Assignments', handlers, (dispatcher, sink) =>
          dispatcher.assignments(nodeId, sessionId, sink as never),
        ),
      listenSubscriptions: () => ({ cancel: () => {} }),
      publishLogs: () => ({
        send: () => Promise.reject(connectionRefused()),
        close: () => Promise.resolve(),
      }),
      close: () => {},
    };
  };
}

function dispatcherOf({ manager }: RunningManager): Dispatcher {
  const dispatcher = manager.dispatcher();
  if (dispatcher === undefined) throw notLeader(manager.leaderMember()?.address);
  return dispatcher;
}

function asShoalError(error: unknown): ShoalError {
  return isShoalError(error) ? error : new ShoalError('internal', String(error), { cause: error });
}

/** The address of a machine: m3's is 192.168.0.3. */
export function hostOf(machine: string): string {
  return `192.168.0.${machine.slice(1)}`;
}
