/** Commands in tasks, from a manager's board to a node's engine, over TLS on loopback ports. */
import assert from 'node:assert/strict';
import { Agent } from '../../agent/agent.ts';
import { SimulatedEngine } from '../../agent/engine/simulated.ts';
import { MemoryJournal } from '../../agent/journal.ts';
import { RememberedFiles } from '../../agent/secrets.ts';
import { Dispatcher } from '../../manager/dispatcher/dispatcher.ts';
import { registerDispatcher } from '../../manager/dispatcher/service.ts';
import { ExecBoard } from '../../manager/exec/board.ts';
import type { ExecOutput } from '../../manager/exec/command.ts';
import { type ExecLeadership, registerExec, summonThroughLeader } from '../../manager/exec/service.ts';
import { Summons } from '../../manager/exec/summons.ts';
import { type ErrorCode, isShoalError } from '../../proto/errors.ts';
import type { ExecCommand } from '../../proto/exec-command.ts';
import { asId, type NodeId, type TaskId } from '../../proto/ids.ts';
import { silentLog } from '../../proto/ports.ts';
import { createRpcServer, type NodeIdentity, type RpcServer } from '../../proto/rpc.ts';
import { makeCluster, makeNode, makeRevision, makeTask, TestBed } from '../manager/dispatcher/cluster.ts';
import { makeRoot, type TestRoot } from '../proto/certificates.ts';
import { seededRandom } from '../simulation/random.ts';
import { realClock, waitFor } from './wait.ts';

const patienceMs = 10_000;
const isCode = (code: ErrorCode) => (error: unknown) => isShoalError(error, code);
const task = { id: asId<TaskId>('a'), nodeId: asId<NodeId>('node1'), nodeName: 'alpha' };
const echo: ExecCommand = {
  command: ['echo', 'hello'],
  env: [],
  user: '',
  workingDir: '',
  tty: true,
  stdin: false,
  stdout: true,
  stderr: true,
  detachKeys: '',
  privileged: false,
};

/** What came out, and how it ended. */
class Output implements ExecOutput {
  text = '';
  ended: { readonly error: Error | undefined } | undefined;
  /** Holds up whoever writes while it is set. */
  gate: Promise<void> | undefined;

  async write(bytes: Uint8Array): Promise<void> {
    await this.gate;
    this.text += Buffer.from(bytes).toString();
  }

  end(error: Error | undefined): void {
    this.ended = { error };
  }
}

describe('commands in tasks over gRPC', function () {
  this.timeout(30_000);
  const clock = realClock();
  let root: TestRoot;
  let bed: TestBed;
  let dispatcher: Dispatcher;
  let summons: Summons;
  let servers: RpcServer[];
  let addresses: string[];
  let boards: ExecBoard[];
  let leader: number;
  let engine: SimulatedEngine;
  let agent: Agent;

  before(async () => {
    root = await makeRoot();
  });

  beforeEach(async () => {
    bed = new TestBed();
    bed.commit(
      { op: 'create', kind: 'cluster', object: makeCluster() },
      {
        op: 'create',
        kind: 'revision',
        object: makeRevision('revision1', { ContainerSpec: { Image: 'web:1' } }),
      },
      { op: 'create', kind: 'node', object: makeNode('node1') },
      { op: 'create', kind: 'node', object: makeNode('stock') },
      { op: 'create', kind: 'task', object: makeTask('a', 'node1') },
    );
    const { store, propose } = bed;
    dispatcher = new Dispatcher({ store, propose, clock, random: seededRandom(1), log: silentLog });
    dispatcher.start();
    summons = new Summons(store);
    leader = 0;
    servers = [];
    addresses = [];
    boards = [];
    for (const number of [0, 1]) await listen(number);
    engine = new SimulatedEngine({ clock, random: seededRandom(3) });
    agent = await join();
    await waitFor(() => bed.task('a').Status.State === 'running', patienceMs, 'a running task');
  });

  afterEach(async () => {
    await agent.stop();
    for (const board of boards) board.stop();
    summons.stop();
    dispatcher.stop();
    for (const server of servers) await server.close();
  });

  async function listen(number: number): Promise<void> {
    const identity = await root.issue({ nodeId: `manager${number}`, role: 'manager', clusterId: 'cluster' });
    const server = createRpcServer({ credentials: identity });
    const leads = (): boolean => leader === number;
    const at = () => ({ nodeId: 'leader', address: addresses[leader]! });
    const leadership: ExecLeadership = { summons: () => (leads() ? summons : undefined), leader: at };
    const board = new ExecBoard({
      clock,
      random: seededRandom(10 + number),
      summon: (nodeId, execId) =>
        summonThroughLeader(leadership, () => identity, clock, {
          nodeId,
          execId,
          address: addresses[number]!,
        }),
    });
    registerDispatcher(server, { dispatcher: () => (leads() ? dispatcher : undefined), leader: at });
    registerExec(server, leadership, board);
    servers.push(server);
    boards.push(board);
    addresses.push(`127.0.0.1:${await server.listen('127.0.0.1:0')}`);
  }

  async function join(): Promise<Agent> {
    const identity: NodeIdentity = await root.issue({
      nodeId: 'node1',
      role: 'worker',
      clusterId: 'cluster',
    });
    const made = new Agent({
      identity: {
        current: () => ({ identity, certificate: { nodeId: 'node1' } }),
        tlsInfo: () => undefined,
        onChange: () => () => {},
      },
      engine,
      clock,
      random: seededRandom(4),
      log: silentLog,
      hostname: 'alpha',
      managers: addresses,
      dataDir: '/nowhere',
      runDir: '/nowhere',
      journal: new MemoryJournal(),
      files: new RememberedFiles(),
    });
    await made.start();
    return made;
  }

  it('run through the leader and through any other manager', async () => {
    for (const board of boards) {
      const id = await board.make(task, echo);
      assert.equal(board.facts(id).isRunning, false);
      const output = new Output();
      const handle = await board.start(id, output, { detach: false });
      await handle.over;
      assert.equal(output.text, 'hello\n');
      assert.deepEqual(output.ended, { error: undefined });
      const [container] = await engine.list({});
      assert.deepEqual(
        [board.facts(id).exitCode, board.facts(id).isRunning, board.facts(id).containerId],
        [0, false, container!.id],
      );
      await assert.rejects(board.start(id, output, { detach: false }), isCode('conflict'));
    }
  });

  it('are handed their input and the size of their terminal, and outlive a change of the leader', async () => {
    const board = boards[1]!;
    const id = await board.make(task, { ...echo, command: ['cat'], stdin: true });
    const output = new Output();
    const handle = await board.start(id, output, { detach: false });
    await board.resize(id, 31, 101);
    await waitFor(() => engine.execs.sizes.length === 1, patienceMs, 'the size');
    assert.deepEqual(engine.execs.sizes, [{ height: 31, width: 101 }]);
    leader = 1;
    await servers[0]!.close();
    await waitFor(
      () => agent.session.kind === 'established' && agent.session.address === addresses[1],
      patienceMs,
      'a session with the next leader',
    );
    await handle.input(Buffer.from('still there'));
    await waitFor(() => output.text === 'still there', patienceMs, 'the echo');
    handle.endInput();
    await handle.over;
    assert.equal(board.facts(id).exitCode, 0);
    const again = await board.make(task, echo);
    await (await board.start(again, new Output(), { detach: false })).over;
  });

  it('are held up by a client that does not read, and end with what it missed', async () => {
    const board = boards[0]!;
    const id = await board.make(task, { ...echo, command: ['cat'], stdin: true });
    const output = new Output();
    let open = (): void => {};
    output.gate = new Promise((resolve) => {
      open = resolve;
    });
    const handle = await board.start(id, output, { detach: false });
    await handle.input(Buffer.alloc(1_000_000, 'x'));
    handle.endInput();
    assert.equal(output.text, '');
    open();
    await handle.over;
    assert.equal(output.text.length, 1_000_000);
  });

  it('carry many bytes, and leave nothing behind for each time that they waited', async () => {
    const warnings: string[] = [];
    const onWarning = ({ name }: Error): number => warnings.push(name);
    process.on('warning', onWarning);
    try {
      const board = boards[0]!;
      const id = await board.make(task, { ...echo, command: ['cat'], stdin: true });
      const output = new Output();
      const handle = await board.start(id, output, { detach: false });
      const chunk = Buffer.alloc(64 * 1024, 'x');
      for (let sent = 0; sent < 256; sent += 1) await handle.input(chunk);
      handle.endInput();
      await handle.over;
      assert.equal(output.text.length, 256 * chunk.length);
      assert.deepEqual(warnings, []);
    } finally {
      process.off('warning', onWarning);
    }
  });

  it('that nobody waits for are left to themselves', async () => {
    const board = boards[0]!;
    const detached = await board.make(task, { ...echo, command: ['cat'], stdin: true });
    await (await board.start(detached, new Output(), { detach: true })).over;
    assert.deepEqual([board.facts(detached).isRunning, board.facts(detached).exitCode], [true, undefined]);
    const left = await board.make(task, { ...echo, command: ['cat'], stdin: true });
    const handle = await board.start(left, new Output(), { detach: false });
    handle.close();
    assert.equal(board.facts(left).isRunning, true);
    await assert.rejects(handle.over, /hung up/);
  });

  it('are refused in words: a task that is not there, a stock engine, a node that is none', async () => {
    const board = boards[1]!;
    await assert.rejects(
      board.make({ ...task, id: asId<TaskId>('b') }, echo),
      /task b has no running container on this node/,
    );
    const at = (nodeId: string) => ({ ...task, nodeId: asId<NodeId>(nodeId) });
    await assert.rejects(
      board.make(at('stock'), echo),
      /is a stock Docker Engine.*use docker exec on that node/,
    );
    await assert.rejects(board.make(at('nobody'), echo), isCode('not-found'));
    engine.crash('gone');
    await assert.rejects(board.make(task, echo), isCode('unavailable'));
  });

  it('are carried by the node that was summoned alone', async () => {
    const reports = async function* () {
      yield { hello: 'guessed', report: 'hello' } as const;
    };
    const sink = { send: async () => {}, end: () => {} };
    await assert.rejects(boards[0]!.carry(asId<NodeId>('node2'), reports(), sink), isCode('not-found'));
  });
});
