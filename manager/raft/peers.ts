/**
 * The RaftTransport over links: one to each other member, for messages and for questions to the leader.
 *
 * In: messages and the list of members. Out: messages at the other members' doors; unreachable members and
 * the fate of snapshots reported to this member's node. It orders and repeats nothing, and may lose.
 */
import type { Link } from '../../proto/link.ts';
import type { Clock, Log } from '../../proto/ports.ts';
import { type Keepalive, type NodeIdentity, openLink } from '../../proto/rpc.ts';
import type { Member, ProposalResult, RaftNode, RaftTransport } from './contract.ts';
import type { MemberId, Message } from './core/types.ts';
import type { QuestionKind } from './frame.ts';
import { encodeMessages } from './message-codec.ts';
import { Peer, unreachableLeader } from './peer.ts';
import { sendSnapshot } from './snapshot-sender.ts';

export interface PeersOptions {
  readonly clusterId: string;
  /** This node's certificate as of now; asked for each new connection. */
  readonly identity: () => NodeIdentity;
  readonly clock: Clock;
  readonly log: Log;
  /** How long a question to the leader may take. Default 10 s. */
  readonly forwardTimeoutMs?: number;
  readonly keepalive?: Keepalive;
}

/** The transport, with the ends that the node and the server side hold. */
export interface Peers extends RaftTransport {
  /** The node that receives; to be called once, right after createRaftNode. */
  attach(node: RaftNode): void;
  isConnected(member: Member): boolean;
  /** From the server side: `link` was opened by member `from`; answers to strangers go back through it. */
  opened(from: MemberId, link: Link): void;
  closed(link: Link): void;
  /** Connects anew to everyone, with the identity as of now (it was renewed, or the roots changed). */
  reconnect(): void;
  close(): void;
}

const defaultForwardTimeoutMs = 10_000;

/** Connects to nobody until the node says who the members are. */
export function createPeers(options: PeersOptions): Peers {
  return new GrpcPeers(options);
}

class GrpcPeers implements Peers {
  readonly #options: PeersOptions;
  readonly #peers = new Map<MemberId, Peer>();
  readonly #inbound = new Map<MemberId, Link>();
  #node: RaftNode | undefined;

  constructor(options: PeersOptions) {
    this.#options = options;
  }

  attach(node: RaftNode): void {
    this.#node = node;
  }

  setMembers(members: readonly Member[]): void {
    const wanted = new Map(members.map((member) => [member.raftId, member]));
    for (const [raftId, peer] of this.#peers) {
      if (wanted.get(raftId)?.address === peer.member.address) continue;
      this.#peers.delete(raftId);
      peer.close();
    }
    for (const member of members) {
      if (!this.#peers.has(member.raftId)) this.#peers.set(member.raftId, this.#connect(member));
    }
  }

  send(to: Member, messages: readonly Message[]): void {
    const peer = this.#peers.get(to.raftId);
    if (peer !== undefined) {
      peer.send(messages);
      return;
    }
    // Someone this member does not know, or knows no longer, is answered where the question came from.
    const answers = messages.filter(({ type }) => type !== 'MsgSnap');
    if (answers.length > 0) this.#inbound.get(to.raftId)?.write(encodeMessages(answers));
    if (answers.length < messages.length) this.#node?.reportSnapshot(to.raftId, false);
  }

  isConnected(member: Member): boolean {
    return this.#peers.get(member.raftId)?.isConnected === true;
  }

  forwardProposal(leader: Member, data: Uint8Array): Promise<ProposalResult> {
    return this.#ask(leader, 'propose', data);
  }

  async forwardReadIndex(leader: Member): Promise<number> {
    const { index } = await this.#ask(leader, 'read-index', new Uint8Array(0));
    return index;
  }

  async #ask(leader: Member, kind: QuestionKind, data: Uint8Array): Promise<ProposalResult> {
    const peer = this.#peers.get(leader.raftId);
    if (peer === undefined) throw unreachableLeader(leader);
    return peer.ask(kind, data);
  }

  opened(from: MemberId, link: Link): void {
    this.#inbound.set(from, link);
  }

  closed(link: Link): void {
    for (const [from, known] of this.#inbound) if (known === link) this.#inbound.delete(from);
  }

  reconnect(): void {
    const members = [...this.#peers.values()].map(({ member }) => member);
    this.close();
    this.setMembers(members);
  }

  close(): void {
    for (const peer of this.#peers.values()) peer.close();
    this.#peers.clear();
  }

  #connect(member: Member): Peer {
    const { clusterId, clock, log, identity, keepalive } = this.#options;
    const own = identity();
    const { raftId, address } = member;
    const shown = { identity: own, serverName: 'swarm-manager', keepalive } as const;
    return new Peer({
      member,
      clusterId,
      openLink: () => openLink(address, { ...shown, roots: own.rootsPem, clock }),
      sendSnapshot: (offer) => sendSnapshot({ ...shown, address }, offer),
      clock,
      log,
      questionTimeoutMs: this.#options.forwardTimeoutMs ?? defaultForwardTimeoutMs,
      receive: (message) => this.#node?.receive(message),
      unreachable: () => this.#node?.reportUnreachable(raftId),
      gone: () => this.#node?.reportGone(raftId),
      snapshotSent: (ok) => this.#node?.reportSnapshot(raftId, ok),
    });
  }
}
