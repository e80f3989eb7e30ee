import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { realClock, realRandom } from '../../../cli/runtime.ts';
import type { Member, RaftNode, RaftStart } from '../../../manager/raft/contract.ts';
import type { Message } from '../../../manager/raft/core/types.ts';
import { openDisk } from '../../../manager/raft/disk.ts';
import {
  decodeFrame,
  encodeAnswers,
  encodeQuestions,
  groupsThatFit,
  sizeOfMessage,
} from '../../../manager/raft/frame.ts';
import { encodeMessages, withSnapshotData } from '../../../manager/raft/message-codec.ts';
import { createRaftNode } from '../../../manager/raft/node.ts';
import { createPeers, type Peers } from '../../../manager/raft/peers.ts';
import { createKeyFile, keyFileState, openKeyFile } from '../../../manager/raft/seal.ts';
import { registerRaftServices } from '../../../manager/raft/services.ts';
import { isShoalError, ShoalError } from '../../../proto/errors.ts';
import { silentLog } from '../../../proto/ports.ts';
import { createChannel, createRpcServer, type RpcServer } from '../../../proto/rpc.ts';
import { makeRoot, type TestRoot } from '../../proto/certificates.ts';
import { linkTo } from './link-client.ts';
import { Journal } from './raft-cluster.ts';

const clusterId = 'c'.repeat(25);
const boundMs = 40_000;

async function waitFor(condition: () => boolean, what: string): Promise<void> {
  const endMs = realClock.monotonicMs() + boundMs;
  while (!condition()) {
    assert.ok(realClock.monotonicMs() < endMs, `${what} did not come about`);
    await new Promise<void>((resolve) => {
      realClock.after(10, resolve);
    });
  }
}

function decodeMessages(bytes: Uint8Array): readonly Message[] {
  const frame = decodeFrame(bytes);
  assert.ok(frame.kind === 'messages');
  return frame.messages;
}

interface Manager {
  readonly member: Member;
  readonly node: RaftNode;
  readonly journal: Journal;
  readonly peers: Peers;
  readonly server: RpcServer;
}

describe('messages on the wire', () => {
  const entries = [
    { term: 3, index: 7, type: 'normal', data: Buffer.from('data') },
    { term: 3, index: 8, type: 'conf-change-v2', data: Buffer.from('change') },
  ] as const;
  const messages: Message[] = [
    { type: 'MsgApp', to: 2, from: 1, term: 3, logTerm: 2, index: 6, commit: 5, entries },
    { type: 'MsgAppResp', to: 1, from: 2, term: 3, index: 6, reject: true, rejectHint: 4, logTerm: 2 },
    { type: 'MsgHeartbeat', to: 2, from: 1, term: 3, commit: 2 ** 40, context: Buffer.from('read') },
  ];

  it('come back as they were', () => {
    const decoded = decodeMessages(encodeMessages(messages));
    for (const [position, message] of messages.entries()) {
      for (const [field, value] of Object.entries(message)) {
        assert.deepEqual(decoded[position]?.[field as keyof Message], value, `${message.type} ${field}`);
      }
    }
  });

  it('carry a snapshot without its data, which is put back', () => {
    const confState = {
      voters: [1, 2],
      votersOutgoing: [],
      learners: [],
      learnersNext: [],
      autoLeave: false,
    };
    const snapshot = { metadata: { index: 5, term: 2, confState }, data: Buffer.from('state') };
    const [decoded] = decodeMessages(
      encodeMessages([{ type: 'MsgSnap', to: 2, from: 1, term: 3, snapshot }]),
    );
    assert.equal(decoded?.snapshot?.data.length, 0);
    assert.deepEqual(withSnapshotData(decoded!, snapshot.data).snapshot, snapshot);
  });

  it('travel beside questions and answers', () => {
    const questions = [
      { id: 1, kind: 'propose', data: Buffer.from('change') },
      { id: 2, kind: 'read-index', data: Buffer.alloc(0) },
    ] as const;
    assert.deepEqual(decodeFrame(encodeQuestions(questions)), { kind: 'questions', questions });
    const error = new ShoalError('not-leader', 'ask the other', { details: { leader: '10.0.0.1:2377' } });
    const decoded = decodeFrame(
      encodeAnswers([
        { id: 1, index: 9, result: { ok: true } },
        { id: 2, error },
      ]),
    );
    assert.ok(decoded.kind === 'answers');
    assert.deepEqual(decoded.answers[0], { id: 1, index: 9, result: { ok: true } });
    const [, refused] = decoded.answers;
    assert.ok(refused !== undefined && 'error' in refused);
    const { code, message, details } = refused.error;
    assert.deepEqual([code, message, details], [error.code, error.message, error.details]);
  });

  it('are spread over frames of a bounded size, in order', () => {
    const sizes = [1, 2, 3, 5, 1, 1].map((size) => size * 2 ** 20);
    const groups = [...groupsThatFit(sizes, (size) => size)];
    assert.deepEqual(
      groups.map((group) => group.map((size) => size / 2 ** 20)),
      [[1, 2], [3], [5], [1, 1]],
    );
    assert.deepEqual([...groupsThatFit([], () => 1)], []);
    const [app] = messages;
    assert.ok(Math.abs(sizeOfMessage(app!) - encodeMessages([app!]).length) < 100);
  });

  it('are refused when they are anything else', () => {
    for (const bytes of [Buffer.alloc(0), Buffer.from('nonsense'), Buffer.from([0x91, 0x91, 0xff])]) {
      assert.throws(
        () => decodeMessages(bytes),
        (error) => isShoalError(error, 'invalid-argument'),
      );
    }
  });
});

describe('managers over gRPC', function () {
  this.timeout(180_000);
  let root: TestRoot;
  let folder: string;
  const managers = new Map<number, Manager>();

  before(async () => {
    root = await makeRoot();
    folder = mkdtempSync(join(tmpdir(), 'shoal-peers-'));
  });

  after(async () => {
    for (const raftId of [...managers.keys()]) await stop(raftId);
    rmSync(folder, { recursive: true, force: true });
  });

  async function start(
    raftId: number,
    startOf: (self: Member) => RaftStart,
    address = '127.0.0.1:0',
  ): Promise<Manager> {
    const nodeId = `node-${raftId}`;
    const identity = await root.issue({ nodeId, role: 'manager', clusterId });
    const server = createRpcServer({ credentials: identity });
    const port = await server.listen(address);
    const member = { raftId, nodeId, address: `127.0.0.1:${port}` };
    const disk = await openDisk(join(folder, String(raftId)), realClock);
    const hasKeys = (await keyFileState(disk)) !== 'absent';
    const dataKeys = hasKeys ? await openKeyFile(disk) : await createKeyFile(disk, realRandom);
    const peers = createPeers({ clusterId, identity: () => identity, clock: realClock, log: silentLog });
    const journal = new Journal();
    const node = await createRaftNode({
      start: startOf(member),
      disk,
      dataKeys,
      clock: realClock,
      random: realRandom,
      log: silentLog,
      transport: peers,
      stateMachine: journal,
      // As long as a busy machine may hold one up: what is tested here are connections, not elections.
      tickMs: 100,
      snapshotEntries: 50,
      keepEntries: 5,
    });
    peers.attach(node);
    registerRaftServices(server, node, peers, { clusterId, clock: realClock });
    const manager = { member, node, journal, peers, server };
    managers.set(raftId, manager);
    return manager;
  }

  async function stop(raftId: number): Promise<void> {
    const manager = managers.get(raftId)!;
    managers.delete(raftId);
    await manager.node.stop();
    manager.peers.close();
    await manager.server.close();
  }

  async function admit(raftId: number, leader: Manager): Promise<Manager> {
    const members = leader.node.status().members;
    const joiner = await start(raftId, (self) => ({ kind: 'join', self, members }));
    await leader.node.addMember(joiner.member);
    await waitFor(() => joiner.node.status().role === 'follower', `member ${raftId} votes`);
    return joiner;
  }

  function leader(): Manager | undefined {
    return [...managers.values()].find(({ node }) => node.status().role === 'leader');
  }

  const propose = (manager: Manager, text: string) => manager.node.propose(Buffer.from(text));
  const termOf = () => Math.max(...[...managers.values()].map(({ node }) => node.status().term));

  /**
   * Proposes all at once. Whatever was acknowledged is there once, nothing is there twice, and only where a leader or a
   * connection was lost (`mayLose`) may an outcome be left open. Answers how many were acknowledged.
   */
  async function proposeAll(texts: readonly string[], via: readonly Manager[], mayLose = false) {
    const term = termOf();
    const outcomes = await Promise.allSettled(
      texts.map((text, number) => propose(via[number % via.length]!, text)),
    );
    const [lines = []] = await Promise.all(
      via.map(async ({ node, journal }) => {
        await waitFor(() => leader() !== undefined, 'someone leads');
        await node.readBarrier();
        return journal.lines;
      }),
    );
    for (const [number, outcome] of outcomes.entries()) {
      const count = lines.filter((line) => line === texts[number]).length;
      if (outcome.status === 'fulfilled') assert.equal(count, 1, texts[number]?.slice(0, 40));
      else {
        assert.ok(
          count <= 1 && (mayLose || termOf() !== term),
          `${texts[number]?.slice(0, 40)}: ${outcome.reason}`,
        );
        assert.ok(isShoalError(outcome.reason) && outcome.reason.retriable, String(outcome.reason));
      }
    }
    return outcomes.filter(({ status }) => status === 'fulfilled').length;
  }

  it('form a group, forward proposals and read points', async () => {
    const first = await start(1, (self) => ({ kind: 'bootstrap', self }));
    await waitFor(() => first.node.status().role === 'leader', 'the first leads');
    for (const raftId of [2, 3]) await admit(raftId, first);
    for (const manager of managers.values()) {
      const text = `from ${manager.member.nodeId}`;
      const { result } = await propose(manager, text);
      assert.equal(manager.journal.lines.at(-1), text);
      assert.deepEqual(result, { position: manager.journal.lines.length });
    }
    await Promise.all([...managers.values()].map(({ node }) => node.readBarrier()));
    for (const { journal } of managers.values()) assert.equal(journal.lines.length, 3);
    assert.ok(
      managers
        .get(2)!
        .node.status()
        .members.every(({ isActive }) => isActive),
    );
  });

  it('carry many proposals from all of them at once', async () => {
    const texts = Array.from({ length: 300 }, (_, number) => `many ${number}`);
    const all = [...managers.values()];
    assert.ok((await proposeAll(texts, all)) > 0);
    await Promise.all(all.map(({ node }) => node.readBarrier()));
    for (const { journal } of all) assert.deepEqual(journal.lines, all[0]!.journal.lines);
  });

  it('answer what is under way while the connections are made anew', async () => {
    const all = [...managers.values()];
    const texts = Array.from({ length: 60 }, (_, number) => `renewed ${number}`);
    const proposals = proposeAll(texts, all, true);
    for (const { peers } of all) peers.reconnect();
    // The leader's own ask nobody; of the others an old connection waits a while for the answers it owes.
    assert.ok((await proposals) >= 20);
  });

  it('bring one back over its port with a snapshot of several chunks', async () => {
    const { address } = managers.get(3)!.member;
    await stop(3);
    const large = 'x'.repeat(100_000);
    await waitFor(() => leader() !== undefined, 'one of the two leads');
    const texts = Array.from({ length: 80 }, (_, number) => `${number} ${large}`);
    for (let from = 0; from < texts.length; from += 5)
      await proposeAll(texts.slice(from, from + 5), [...managers.values()]);
    const back = await start(3, () => ({ kind: 'restart' }), address);
    await back.node.readBarrier();
    assert.deepEqual(back.journal.lines, managers.get(1)!.journal.lines);
    assert.ok(back.journal.restores >= 2, 'from its disk and from the leader');
  });

  it('carry changes of many megabytes at once', async () => {
    const follower = [...managers.values()].find(({ node }) => node.status().role !== 'leader')!;
    const large = 'z'.repeat(3 * 2 ** 20);
    // A busy machine may take the connection for lost over so much.
    for (let round = 1, acknowledged = 0; acknowledged === 0; round += 1) {
      assert.ok(round <= 6, 'none was carried in six rounds');
      const texts = Array.from({ length: 6 }, (_, number) => `${round}.${number} ${large}`);
      acknowledged = await proposeAll(texts, [follower], true);
    }
  });

  it('go on when the leader stops', async () => {
    const old = leader()!;
    await stop(old.member.raftId);
    await waitFor(() => leader() !== undefined, 'another leads');
    await proposeAll(['after the leader'], [...managers.values()]);
    const back = await start(old.member.raftId, () => ({ kind: 'restart' }), old.member.address);
    await back.node.readBarrier();
    assert.deepEqual(back.journal.lines, leader()!.journal.lines);
  });

  it('tell a member that it was removed while it was away', async () => {
    const away = [...managers.values()].find(({ node }) => node.status().role !== 'leader')!;
    const { raftId, nodeId, address } = away.member;
    await stop(raftId);
    await leader()!.node.removeMember(nodeId);
    const back = await start(raftId, () => ({ kind: 'restart' }), address);
    await waitFor(() => back.node.status().role === 'removed', 'it knows');
  });

  it('answer a question as a unary call, too', async () => {
    const { member, node } = leader()!;
    const identity = await root.issue({ nodeId: member.nodeId, role: 'manager', clusterId });
    const channel = createChannel(member.address, { identity, roots: root.pem, serverName: 'swarm-manager' });
    try {
      const { index } = await channel.call('Forward', 'Propose', { data: Buffer.from('by call') });
      assert.ok(Number(index) <= node.status().appliedIndex);
      const read = await channel.call('Forward', 'ReadIndex', {});
      assert.ok(Number(read.index) >= Number(index));
    } finally {
      channel.close();
    }
  });

  it('admit managers of this cluster only', async () => {
    const { address } = leader()!.member;
    const strangers = [
      { nodeId: 'worker', role: 'worker', clusterId },
      { nodeId: 'elsewhere', role: 'manager', clusterId: 'd'.repeat(25) },
    ] as const;
    for (const stranger of strangers) {
      const identity = await root.issue(stranger);
      const channel = createChannel(address, { identity, roots: root.pem, serverName: 'swarm-manager' });
      try {
        const details = await linkTo(address, identity).ended;
        assert.match(details, /may not call this|belongs to another cluster/);
        await assert.rejects(channel.call('Forward', 'Propose', { data: Buffer.from('x') }), (error) =>
          isShoalError(error, 'permission-denied'),
        );
      } finally {
        channel.close();
      }
    }
  });
});
