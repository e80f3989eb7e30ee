import assert from 'node:assert/strict';
import { TestDaemon, waitFor } from '../cli/daemon.ts';

const boundMs = 20_000;

/** Values by name with labels, as Prometheus reads them. */
async function scrape(daemon: TestDaemon): Promise<Map<string, number>> {
  const answer = await fetch(`http://127.0.0.1:${daemon.metricsPort}/metrics`);
  assert.equal(answer.status, 200);
  assert.match(answer.headers.get('content-type') ?? '', /^text\/plain/);
  const lines = (await answer.text()).split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines.map((line) => {
      const at = line.lastIndexOf(' ');
      return [line.slice(0, at), Number(line.slice(at + 1))] as const;
    }),
  );
}

describe('/metrics of real daemons', function () {
  this.timeout(120_000);
  const daemons: TestDaemon[] = [];
  let leader: TestDaemon;
  let follower: TestDaemon;

  before(async () => {
    for (const name of ['one', 'two', 'outside']) daemons.push(await TestDaemon.start(name));
    [leader, follower] = daemons as [TestDaemon, TestDaemon];
    await leader.out('swarm', 'init', '--advertise-addr', leader.address);
    const token = await leader.out('swarm', 'join-token', '-q', 'manager');
    await follower.out('swarm', 'join', '--token', token, leader.address);
    await leader.out('service', 'create', '--detach', '--name', 'web', '--replicas', '3', 'web:1');
    await waitFor('three tasks to run, by the follower', boundMs, async () => {
      return (await scrape(follower)).get('swarm_manager_tasks_total{state="running"}') === 3;
    });
  });

  after(async () => {
    for (const daemon of daemons) await daemon.destroy();
  });

  it('tell the same of the cluster on leader and follower', async () => {
    const [here, there] = [await scrape(leader), await scrape(follower)];
    const expected = {
      'swarm_manager_nodes{state="ready"}': 2,
      'swarm_manager_nodes{state="down"}': 0,
      'swarm_manager_tasks_total{state="running"}': 3,
      'swarm_manager_tasks_total{state="pending"}': 0,
      swarm_manager_services_total: 1,
      'shoal_store_objects{kind="node"}': 2,
      'shoal_store_objects{kind="task"}': 3,
      'shoal_store_objects{kind="cluster"}': 1,
      shoal_raft_members: 2,
      swarm_node_manager: 1,
    };
    for (const [name, value] of Object.entries(expected)) {
      assert.equal(here.get(name), value, `${name} on the leader`);
      assert.equal(there.get(name), value, `${name} on the follower`);
    }
    assert.ok(here.get('shoal_raft_term')! >= 1);
    assert.equal(here.get('shoal_raft_term'), there.get('shoal_raft_term'));
    const [commit, applied] = ['shoal_raft_commit_index', 'shoal_raft_applied_index'];
    assert.ok(here.get(applied)! >= 3);
    assert.ok(here.get(commit)! >= here.get(applied)!);
    assert.ok(there.get(applied)! >= 3);
  });

  it('tell who leads, and on the leader how long commits and scheduling took', async () => {
    const [here, there] = [await scrape(leader), await scrape(follower)];
    assert.equal(here.get('swarm_manager_leader'), 1);
    assert.equal(there.get('swarm_manager_leader'), 0);
    assert.ok(here.get('swarm_raft_transaction_latency_seconds_count')! > 0);
    assert.ok(here.get('swarm_raft_transaction_latency_seconds_sum')! > 0);
    assert.equal(here.get('swarm_dispatcher_scheduling_delay_seconds_count'), 3);
    assert.equal(there.get('swarm_dispatcher_scheduling_delay_seconds_count'), 0);
  });

  it('are zeros on a node that is part of no cluster', async () => {
    const values = await scrape(daemons[2]!);
    for (const name of ['swarm_node_manager', 'swarm_manager_leader', 'shoal_raft_term']) {
      assert.equal(values.get(name), 0, name);
    }
    assert.equal(values.get('swarm_manager_nodes{state="ready"}'), 0);
    assert.equal((await fetch(`http://127.0.0.1:${daemons[2]!.metricsPort}/other`)).status, 404);
  });
});
