/** Names are answered in containers while the host's agent is dead, and by nobody when it has left. */
import assert from 'node:assert/strict';
import { create, idle, inside, waitForRunning } from './asking.ts';
import { formCluster } from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

/** Answers `outside.test` on the host's own address, as the DNS server of an outer network. */
const outerDns = `
const packet = require('${process.cwd()}/node_modules/dns-packet');
const socket = require('node:dgram').createSocket('udp4');
socket.on('message', (message, { port, address }) => {
  const { id, questions } = packet.decode(message);
  const [{ name, type }] = questions;
  const answers = name === 'outside.test' && type === 'A' ? [{ name, type: 'A', data: '192.0.2.80' }] : [];
  socket.send(packet.encode({ type: 'response', id, questions, answers, flags: 128 | 256 }), port, address);
});
socket.bind(53, process.argv[1], () => console.log('ready'));
setInterval(() => {}, 60_000);
`;

describe('lab: names while an agent is dead', () => {
  let lab: Lab;
  let first: LabHost;
  let second: LabHost;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(2, 'shoal-names');
    await formCluster(lab, 1);
    first = lab.host(1);
    second = lab.host(2);
    const script = `nohup ${process.execPath} -e "$1" ${second.address} >/tmp/outer-dns 2>&1 & until grep -q ready /tmp/outer-dns; do sleep 0.05; done`;
    await second.exec('sh', '-c', script, 'sh', outerDns);
    await first.shoal('network', 'create', '-d', 'overlay', 'front');
    const common = ['--network', 'front', '--stop-grace-period', '1s'];
    await create(first, 'web', '--replicas', '1', ...common, '--constraint', 'node.hostname==h1', ...idle);
    await create(first, 'probe', '--mode', 'global', ...common, '--dns', second.address, ...idle);
    await waitForRunning(first, 'web', 1);
    await waitForRunning(first, 'probe', 2);
    await waitFor('names to be answered', 30_000, async () => (await ask('tasks.web')).length === 1);
  });

  after(async () => {
    await lab?.down();
  });

  async function probeOn(host: LabHost): Promise<string> {
    const { stdout } = await host.engine('ps', '-q', '--filter', 'label=com.docker.swarm.service.name=probe');
    return stdout.trim();
  }

  /** The addresses that the probe on the second host is told; none: there is no such name. */
  async function ask(name: string): Promise<string[]> {
    const text = await inside(second, await probeOn(second), 'nslookup', '-type=a', name).catch(() => '');
    return [
      ...text
        .split('Name:')
        .slice(1)
        .join('')
        .matchAll(/^Address: (\S+)$/gm),
    ].map(([, one]) => one!);
  }

  /** Process ids, as the host sees them, of those that answer names there. */
  async function answerers(host: LabHost): Promise<string[]> {
    const { stdout } = await host.exec('sh', '-c', 'grep -l "shoal-name[s].js" /proc/[0-9]*/cmdline || true');
    return [...stdout.matchAll(/\d+/g)].map(([pid]) => pid);
  }

  async function allAnswered(): Promise<void> {
    assert.equal((await ask('web')).length, 1);
    assert.equal((await ask('tasks.web')).length, 1);
    assert.equal((await ask('web.1')).length, 1);
    assert.deepEqual(await ask('outside.test'), ['192.0.2.80']);
    assert.deepEqual(await ask('nobody.test'), []);
  }

  it('a service, a task and a foreign name are answered at once when the agent was killed', async () => {
    await allAnswered();
    const before = await answerers(second);
    assert.equal(before.length, 1);
    await second.killShoald();
    await allAnswered();
    assert.deepEqual(await answerers(second), before);
  });

  it('an agent that is started again takes the process over, and brings what is new', async () => {
    const before = await answerers(second);
    await first.shoal('service', 'scale', '--detach', 'web=3');
    await waitForRunning(first, 'web', 3);
    await allAnswered();
    await second.startShoald();
    await waitFor('the new tasks to have names', 30_000, async () => (await ask('tasks.web')).length === 3);
    assert.deepEqual(await ask('outside.test'), ['192.0.2.80']);
    assert.deepEqual(await answerers(second), before);
  });

  it('a process that was killed is replaced', async () => {
    const [before] = await answerers(second);
    await second.exec('kill', '-9', before!);
    await waitFor('another one', 30_000, async () => {
      const now = await answerers(second);
      return now.length === 1 && now[0] !== before;
    });
    await waitFor('it to answer', 30_000, async () => (await ask('tasks.web')).length === 3);
    await waitFor('the service’s own servers', 10_000, async () => (await ask('outside.test')).length === 1);
  });

  it('an orderly end leaves names to containers, and nothing where there are none', async () => {
    await second.killShoald('SIGTERM');
    assert.equal((await ask('tasks.web')).length, 3);
    await second.startShoald();
    await first.shoal('service', 'rm', 'probe');
    await waitFor('the containers to be gone', 60_000, async () => {
      const { stdout } = await second.engine('ps', '-aq');
      return stdout.trim() === '';
    });
    await second.killShoald('SIGTERM');
    assert.deepEqual(await answerers(second), []);
    await second.startShoald();
  });

  it('who leaves leaves nothing', async () => {
    assert.equal((await answerers(first)).length, 1);
    for (const host of [second, first]) {
      await host.shoal('swarm', 'leave', '--force');
      assert.deepEqual(await answerers(host), []);
      const { stdout } = await host.exec('sh', '-c', 'find /run/shoal -name "names-*" 2>/dev/null || true');
      assert.equal(stdout, '');
    }
  });
});
