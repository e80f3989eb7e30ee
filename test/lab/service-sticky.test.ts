/** Slots that are bound to their volumes, and host names of their own, on two hosts with real engines. */
import assert from 'node:assert/strict';
import { create, idle, inside, nodeNamed, waitForReason, waitForRunning } from './asking.ts';
import { containersOn, formCluster } from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';

describe('lab: slots that are bound to their volumes', () => {
  let lab: Lab;
  let host: LabHost;

  before(async function () {
    if (labMissing()) return this.skip();
    lab = await Lab.up(2, 'shoal-sticky');
    await formCluster(lab, 1);
    host = lab.host(1);
  });

  after(() => lab?.down());

  /** Whether another task finds the slot's container by the host name that this one has. */
  async function reaches(on: LabHost, from: string, to: string): Promise<void> {
    const name = (await inside(on, to, 'hostname')).trim();
    const own = (await inside(on, to, 'ip', '-o', '-4', 'addr')).split('\n');
    await waitFor(`${name} to lead to its container`, 30_000, async () => {
      const told = await inside(on, from, 'nslookup', '-type=a', name);
      const [, address = 'none'] = /Name:[\s\S]*Address: (\S+)/.exec(told) ?? [];
      return own.some((line) => line.includes(` ${address}/`));
    });
  }

  it('go back to the node that has them, although another has less to do, and else wait and say why', async () => {
    const mount = 'type=volume,source=db-{{.Task.Slot}},target=/data';
    const flags = [
      '--label',
      'shoal.volume.sticky=true',
      '--hostname',
      '{{.Service.Name}}.{{.Task.Slot}}',
      '--network',
      'back',
      '--mount',
      mount,
    ];
    await host.shoal('network', 'create', '-d', 'overlay', 'back');
    await host.docker('service', 'create', '--detach', '--name', 'db', ...flags, ...idle);
    const [first] = await waitForRunning(host, 'db', 1);
    const id = first?.Status.ContainerStatus?.ContainerID ?? '';
    const homes = await Promise.all(lab.hosts.map(async (on) => (await containersOn(on)).includes(id)));
    const home = lab.hosts[homes.indexOf(true)]!;
    await inside(home, id, 'touch', '/data/marker');
    assert.equal((await inside(home, id, 'hostname')).trim(), 'db.1');
    const there = ['--network', 'back', '--constraint', `node.hostname==${home.name}`];
    await create(host, 'load', '--replicas', '3', ...there, ...idle);
    const [peer] = await waitForRunning(host, 'load', 3);
    const peerId = peer?.Status.ContainerStatus?.ContainerID ?? '';
    await reaches(home, peerId, id);

    await host.shoal('service', 'update', '--force', '--update-monitor', '100ms', 'db');
    const [second] = await waitForRunning(host, 'db', 1);
    assert.notEqual(second?.ID, first?.ID);
    assert.equal(second?.NodeID, (await nodeNamed(host, home.name)).ID);
    const next = second?.Status.ContainerStatus?.ContainerID ?? '';
    assert.match(await inside(home, next, 'ls', '/data'), /marker/);
    await reaches(home, peerId, next);

    await host.shoal('node', 'update', '--availability', 'pause', home.name);
    await host.shoal('service', 'update', '--detach', '--force', 'db');
    await waitForReason(host, 'db', /the volumes of slot 1 are on node .*\(shoal\.volume\.sticky\)/);
    await host.shoal('node', 'update', '--availability', 'active', home.name);
    const [third] = await waitForRunning(host, 'db', 1);
    assert.equal(third?.NodeID, second?.NodeID);
    await waitFor('the container to be there', 20_000, async () =>
      (await containersOn(home)).includes(third?.Status.ContainerStatus?.ContainerID ?? ''),
    );
  });
});
