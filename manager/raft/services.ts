/**
 * The server side of the transport: what other managers send arrives here.
 *
 * In: links and calls on the cluster's port, from certificates of role manager of this very cluster only. Out: messages
 * for the node, and the leader's answers to forwarded questions. It decides nothing.
 */
import type { handleClientStreamingCall } from '@grpc/grpc-js';
import { pack } from 'msgpackr';
import { assertNever, ShoalError } from '../../proto/errors.ts';
import type { SnapshotChunk__Output } from '../../proto/generated/shoal/v1/SnapshotChunk.ts';
import type { SnapshotResult } from '../../proto/generated/shoal/v1/SnapshotResult.ts';
import type { Link } from '../../proto/link.ts';
import type { Clock } from '../../proto/ports.ts';
import { type AuthenticatedCall, type RpcServer, requireRole } from '../../proto/rpc.ts';
import { toGrpcStatus, unaryHandler } from '../../proto/rpc-status.ts';
import type { ProposalResult, RaftNode } from './contract.ts';
import type { MemberId, Message } from './core/types.ts';
import {
  type Answer,
  answerError,
  decodeFrame,
  encodeAnswers,
  encodeRefusal,
  type Question,
} from './frame.ts';
import { encodeMessages, withSnapshotData } from './message-codec.ts';
import type { Peers } from './peers.ts';
import { ChunkAssembly } from './snapshot.ts';

const maxSnapshotBytes = 2 ** 31;

export interface RaftServicesOptions {
  readonly clusterId: string;
  readonly clock: Clock;
  /**
   * Whether a node that was a member once may be one again, of which this member has not heard yet. When
   * absent it may not.
   */
  readonly mayReturn?: (call: AuthenticatedCall, nodeId: string) => boolean;
}

/** Takes links on the cluster's port, and registers shoal.v1.Raft and shoal.v1.Forward there. */
export function registerRaftServices(
  server: RpcServer,
  node: RaftNode,
  peers: Peers,
  options: RaftServicesOptions,
): void {
  server.acceptLinks(linkHandler(node, peers, options), options.clock);
  server.addService('Raft', { InstallSnapshot: snapshotHandler(node, options) });
  server.addService('Forward', {
    Propose: unaryHandler(async (request, call) => {
      requireMember(requireManager(call, options.clusterId), node);
      const { index, result } = await node.proposeAsLeader(request.data ?? new Uint8Array(0));
      return { index: String(index), result: pack(result) };
    }),
    ReadIndex: unaryHandler(async (_request, call) => {
      requireMember(requireManager(call, options.clusterId), node);
      return { index: String(await node.readIndexAsLeader()) };
    }),
  });
}

/** The leader's answers to one other manager; those of one moment leave in one frame. */
class Answers {
  readonly #node: RaftNode;
  readonly #link: Link;
  readonly #requireMember: () => void;
  #unsent: Answer[] = [];
  #pending = 0;
  #isEnding = false;

  constructor(node: RaftNode, link: Link, requireMember: () => void) {
    this.#node = node;
    this.#link = link;
    this.#requireMember = requireMember;
  }

  /** Ends the link as soon as everything is answered. */
  endLink(): void {
    this.#isEnding = true;
    if (this.#pending === 0 && this.#unsent.length === 0) this.#link.end();
  }

  to({ id, kind, data }: Question): void {
    this.#pending += 1;
    this.#answer(kind, data).then(
      ({ index, result }) => this.#send({ id, index, result }),
      (error: unknown) => this.#send({ id, error: answerError(error) }),
    );
  }

  async #answer(kind: Question['kind'], data: Uint8Array): Promise<ProposalResult> {
    this.#requireMember();
    if (kind === 'propose') return this.#node.proposeAsLeader(data);
    return { index: await this.#node.readIndexAsLeader(), result: undefined };
  }

  #send(answer: Answer): void {
    this.#pending -= 1;
    if (this.#unsent.length === 0) queueMicrotask(() => this.#flush());
    this.#unsent.push(answer);
  }

  #flush(): void {
    const answers = this.#unsent;
    this.#unsent = [];
    this.#link.write(encodeAnswers(answers));
    if (this.#isEnding) this.endLink();
  }
}

/** The id of the calling node, which holds a manager's certificate of this cluster. */
function requireManager(call: AuthenticatedCall, clusterId: string): string {
  const identity = requireRole(call, 'manager');
  if (identity.clusterId === clusterId) return identity.nodeId;
  throw new ShoalError('permission-denied', `node ${identity.nodeId} belongs to another cluster`);
}

/** Only a member may ask the leader. Whether the caller is one, the leader alone knows for sure. */
function requireMember(nodeId: string, node: RaftNode): void {
  if (node.status().role !== 'leader' || node.standing(nodeId) === 'member') return;
  throw notMember(nodeId);
}

/**
 * Lets a message pass that its sender may send: one that speaks as the member it is, one that was removed (it
 * is told so by the node), and one that this member has not heard of, for it may be behind.
 */
function requireSender(
  call: AuthenticatedCall,
  nodeId: string,
  node: RaftNode,
  from: MemberId,
  mayReturn: RaftServicesOptions['mayReturn'],
): void {
  const standing = node.standing(nodeId, from);
  switch (standing) {
    case 'member':
    case 'removed':
    case 'unknown':
      return;
    case 'former':
      if (mayReturn?.(call, nodeId) === true) return;
      throw notMember(nodeId);
    case 'impostor':
      throw new ShoalError('permission-denied', `node ${nodeId} may not speak as member ${from}`);
    default:
      assertNever(standing);
  }
}

function notMember(nodeId: string): ShoalError {
  return new ShoalError(
    'permission-denied',
    `node ${nodeId} is not one of the cluster's managers (any more), whatever its certificate says`,
  );
}

function linkHandler(node: RaftNode, peers: Peers, options: RaftServicesOptions) {
  return (link: Link, call: AuthenticatedCall): void => {
    const hangUp = (error: unknown): void => {
      link.write(encodeRefusal(error));
      link.end();
    };
    let nodeId: string;
    try {
      // Once a link: asking a connection for its certificate costs more than a message.
      nodeId = requireManager(call, options.clusterId);
    } catch (error) {
      link.start({ frame: () => {}, closed: () => {} });
      hangUp(error);
      return;
    }
    let isKnown = false;
    let isRefused = false;
    const answers = new Answers(node, link, () => requireMember(nodeId, node));
    link.start({
      frame: (bytes) => {
        if (isRefused) return;
        try {
          const heard = decodeFrame(bytes);
          if (heard.kind === 'questions') for (const question of heard.questions) answers.to(question);
          if (heard.kind !== 'messages') return;
          for (const message of heard.messages) {
            requireSender(call, nodeId, node, message.from, options.mayReturn);
            if (!isKnown) peers.opened(message.from, link);
            isKnown = true;
            node.receive(message);
          }
        } catch (error) {
          isRefused = true;
          hangUp(error);
        }
      },
      ended: () => answers.endLink(),
      closed: () => peers.closed(link),
    });
    const notices = node.removalNotices(nodeId);
    if (notices.length > 0) link.write(encodeMessages(notices));
  };
}

function snapshotHandler(
  node: RaftNode,
  options: RaftServicesOptions,
): handleClientStreamingCall<SnapshotChunk__Output, SnapshotResult> {
  return (call, callback) => {
    let announced: { readonly message: Message; readonly assembly: ChunkAssembly } | undefined;
    let isOver = false;
    const refuse = (error: unknown) => {
      if (isOver) return;
      isOver = true;
      callback(toGrpcStatus(error));
    };
    let nodeId: string;
    try {
      nodeId = requireManager(call, options.clusterId);
    } catch (error) {
      refuse(error);
      return;
    }
    call.on('data', (chunk) => {
      if (isOver) return;
      try {
        if (announced === undefined) {
          announced = announcementOf(chunk);
          requireSender(call, nodeId, node, announced.message.from, options.mayReturn);
        }
        announced.assembly.add(Number(chunk.offset ?? 0), chunk.data ?? new Uint8Array(0));
      } catch (error) {
        refuse(error);
      }
    });
    call.on('error', () => {
      isOver = true;
    });
    call.on('end', () => {
      if (isOver) return;
      const whole = announced?.assembly.whole();
      if (announced === undefined || whole === undefined) {
        refuse(new ShoalError('invalid-argument', 'the snapshot ended before it was complete'));
        return;
      }
      isOver = true;
      node.receive(withSnapshotData(announced.message, whole));
      callback(null, { received_bytes: String(whole.length) });
    });
  };
}

function announcementOf(chunk: SnapshotChunk__Output): {
  readonly message: Message;
  readonly assembly: ChunkAssembly;
} {
  const frame = decodeFrame(chunk.message ?? new Uint8Array(0));
  const message = frame.kind === 'messages' ? frame.messages[0] : undefined;
  const totalBytes = Number(chunk.total_bytes ?? 0);
  if (message?.type !== 'MsgSnap' || !(totalBytes <= maxSnapshotBytes)) {
    throw new ShoalError(
      'invalid-argument',
      'the first chunk does not announce a snapshot of a fitting size',
    );
  }
  return { message, assembly: new ChunkAssembly(totalBytes) };
}
