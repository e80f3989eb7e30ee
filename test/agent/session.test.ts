import assert from 'node:assert/strict';
import { Remotes } from '../../agent/remotes.ts';
import { ShoalError } from '../../proto/errors.ts';
import { seededRandom } from '../simulation/random.ts';
import { startNode, wireTask } from './node.ts';

const three = ['m1:2377', 'm2:2377', 'm3:2377'];

describe('session', () => {
  it('beats at the period that it is told', async () => {
    const node = await startNode();
    node.managers.heartbeatMs = 4_000;
    await node.clock.run(2_000);
    const { beats } = node.managers;
    await node.clock.run(40_000);
    assert.equal(node.managers.beats - beats, 10);
  });

  it('follows the leader by what a manager that does not lead says', async () => {
    const node = await startNode({}, three);
    node.managers.leader = 'm3:2377';
    node.managers.kill('m1:2377');
    const beganMs = node.clock.monotonicMs();
    await node.until(() => node.managers.session?.manager.address === 'm3:2377');
    assert.ok(node.clock.monotonicMs() - beganMs < 500, `took ${node.clock.monotonicMs() - beganMs} ms`);
    assert.deepEqual(
      node.agent.managers.map(({ address }) => address),
      three,
    );
  });

  it('notices a leader that fell silent within two seconds', async () => {
    const node = await startNode({}, three);
    await node.clock.run(10_000);
    const beganMs = node.clock.monotonicMs();
    node.managers.manager('m1:2377').isSilent = true;
    node.managers.leader = 'm2:2377';
    await node.until(() => node.agent.session.kind === 'connecting');
    assert.ok(node.clock.monotonicMs() - beganMs <= 2_000, `took ${node.clock.monotonicMs() - beganMs} ms`);
    await node.until(() => node.managers.session?.manager.address === 'm2:2377');
    assert.ok(node.clock.monotonicMs() - beganMs <= 2_500, `took ${node.clock.monotonicMs() - beganMs} ms`);
  });

  it('moves at once to the leader that its own manager knows', async () => {
    const node = await startNode({}, three);
    node.managers.manager('m1:2377').isSilent = true;
    node.managers.leader = 'm2:2377';
    const beganMs = node.clock.monotonicMs();
    node.agent.leaderHint('m2:2377');
    await node.until(() => node.managers.session?.manager.address === 'm2:2377');
    assert.ok(node.clock.monotonicMs() - beganMs < 10);
  });

  it('waits for a manager that was elected and is about to lead, and not at one without power', async () => {
    const node = await startNode({}, three);
    node.managers.manager('m1:2377').isSilent = true;
    node.managers.manager('m2:2377').isTakingOver = true;
    node.managers.leader = 'm2:2377';
    node.managers.connections.length = 0;
    node.agent.leaderHint('m2:2377');
    await node.clock.run(500);
    node.managers.manager('m2:2377').isTakingOver = false;
    await node.clock.run(900);
    assert.equal(node.managers.session?.manager.address, 'm2:2377');
    assert.deepEqual([...new Set(node.managers.connections)], ['m2:2377']);
  });

  it('gives a manager without power one second, and then ever longer, to answer', async () => {
    const node = await startNode({}, three);
    for (const { address } of node.managers.managers) node.managers.manager(address).isSilent = true;
    await node.until(() => node.agent.session.kind === 'connecting');
    node.managers.connections.length = 0;
    await node.clock.run(2_000);
    assert.ok(node.managers.connections.length >= 2, `${node.managers.connections.length} attempts`);
    await node.clock.run(20_000);
    node.managers.connections.length = 0;
    await node.clock.run(60_000);
    assert.ok(node.managers.connections.length <= 12, `${node.managers.connections.length} attempts`);
  });

  it('keeps trying, first quickly, then every one or two seconds', async () => {
    const node = await startNode();
    node.managers.kill('m1:2377');
    node.managers.connections.length = 0;
    await node.clock.run(1_000);
    assert.ok(node.managers.connections.length >= 3);
    node.managers.connections.length = 0;
    await node.clock.run(60_000);
    const { length } = node.managers.connections;
    assert.ok(length >= 30 && length <= 90, `${length} attempts in a minute`);
    node.managers.manager('m1:2377').isAlive = true;
    await node.until(() => node.agent.session.kind === 'established');
  });

  it('opens a new session when its own is not known any more', async () => {
    const node = await startNode();
    node.managers.endSession(new ShoalError('not-found', 'no such session'));
    await node.until(() => node.agent.session.kind === 'established');
    assert.equal(node.managers.session?.id, 'session-2');
  });

  it('asks for all assignments again when a message is missing', async () => {
    const node = await startNode();
    node.managers.assign(wireTask('t1'));
    await node.untilState('t1', 'RUNNING');
    node.managers.skipRevision();
    node.managers.assign(wireTask('t2'));
    await node.untilState('t2', 'RUNNING');
    assert.equal(node.managers.connections.length, 1);
    assert.equal((await node.engine.list({})).length, 2);
  });

  it('drops with a complete set what is not in it', async () => {
    const node = await startNode();
    node.managers.assign(wireTask('t1'));
    node.managers.assign(wireTask('t2'));
    await node.untilState('t2', 'RUNNING');
    node.managers.unassignSilently('t1');
    node.managers.kill('m1:2377');
    node.managers.manager('m1:2377').isAlive = true;
    await node.clock.run(5_000);
    assert.deepEqual(
      (await node.engine.list({})).map(({ name }) => name),
      ['web.1.t2'],
    );
  });

  it('reports until it is acknowledged, the newest of each task', async () => {
    const node = await startNode();
    node.managers.refusesReports = true;
    node.managers.assign(wireTask('t1'));
    await node.clock.run(5_000);
    assert.deepEqual(node.managers.reports, []);
    node.managers.refusesReports = false;
    await node.untilState('t1', 'RUNNING');
    assert.deepEqual(node.managers.states('t1'), ['RUNNING']);
  });

  it('hands session messages on, the last one also to who comes later', async () => {
    const node = await startNode();
    const roles: (string | undefined)[] = [];
    const off = node.agent.onSessionMessage((message) => roles.push(message.node?.spec?.desired_role));
    node.managers.session!.handlers.onMessage({ node: { spec: { desired_role: 'MANAGER' } } });
    off();
    node.managers.session!.handlers.onMessage({ node: { spec: { desired_role: 'WORKER' } } });
    assert.deepEqual(roles, [undefined, 'MANAGER']);
  });

  it('remembers the managers across a restart', async () => {
    const node = await startNode({}, three);
    node.managers.kill('m1:2377');
    node.managers.leader = 'm2:2377';
    await node.restart();
    await node.until(() => node.agent.session.kind === 'established');
    assert.equal(node.managers.session?.manager.address, 'm2:2377');
  });
});

describe('remotes', () => {
  it('name everyone who may be a manager: of the list, hinted at, and of earlier lists', () => {
    const remotes = new Remotes(seededRandom(5), ['a:1']);
    remotes.replace([{ nodeId: 'b', address: 'b:1', weight: 1 }]);
    assert.deepEqual(remotes.addresses(), ['b:1', 'a:1']);
    remotes.hint('c:1');
    assert.equal(remotes.pick(), 'c:1');
    assert.deepEqual(remotes.addresses(), ['b:1', 'c:1', 'a:1'], 'also once the hint was followed');
  });

  it('draws by weight among those that failed least', () => {
    const remotes = new Remotes(seededRandom(5), ['a:1']);
    assert.equal(remotes.pick(), 'a:1');
    remotes.replace([
      { nodeId: 'a', address: 'a:1', weight: 1 },
      { nodeId: 'b', address: 'b:1', weight: 9 },
    ]);
    const drawn = Array.from({ length: 200 }, () => remotes.pick());
    const count = drawn.filter((address) => address === 'b:1').length;
    assert.ok(count > 150 && count < 200, `${count} of 200`);
    remotes.failed('b:1');
    assert.deepEqual(new Set(Array.from({ length: 20 }, () => remotes.pick())), new Set(['a:1']));
    remotes.failed('a:1');
    remotes.failed('a:1');
    assert.equal(remotes.pick(), 'b:1');
    remotes.hint('c:1');
    assert.equal(remotes.pick(), 'c:1');
    assert.equal(remotes.pick(), 'b:1');
  });

  it('turns to managers of earlier lists when all of the newest fail', () => {
    const remotes = new Remotes(seededRandom(5), ['old:1']);
    remotes.replace([{ nodeId: 'a', address: 'a:1', weight: 1 }]);
    const picked: (string | undefined)[] = [];
    for (let round = 0; round < 5; round += 1) {
      const address = remotes.pick();
      picked.push(address);
      remotes.failed(address!);
    }
    assert.deepEqual(picked, ['a:1', 'a:1', 'a:1', 'old:1', 'old:1']);
    assert.deepEqual(
      remotes.list().map(({ address }) => address),
      ['a:1'],
    );
  });

  it('knows none when none was named', () => {
    assert.equal(new Remotes(seededRandom(5), []).pick(), undefined);
  });
});
