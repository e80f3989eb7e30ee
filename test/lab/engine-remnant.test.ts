/** An engine that remembers the bridge of a network and not the network, as one does that was killed between writing the two. */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { waitForRunning } from './asking.ts';
import { formCluster, nodesSeenBy } from './cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';
import { askFrom, virtualAddressQuestions } from './virtual-addresses.ts';

const healMs = 120_000;
const tries = 12;
const server = ['sh', '-c', 'mkdir /www; echo web >/www/index.html; exec httpd -f -p 80 -h /www'];

describe('lab: an engine that was killed while it made a network', function () {
  this.timeout(healMs * 4);
  let lab: Lab;

  before(async function () {
    const missing = labMissing();
    if (missing) return this.skip();
    lab = await Lab.up(1, 'shoal-lab-remnant');
    await formCluster(lab, 1);
  });

  after(async () => {
    await lab?.down();
  });

  const problems = async (host: LabHost) =>
    (await nodesSeenBy(host)).flatMap(({ Problems = [] }) => Problems.map(({ Message }) => Message));
  const startAnew = async (host: LabHost) => {
    await lab.script('crash', host.name);
    await lab.script('start', host.name);
  };

  it('is told of as what it is, and has the network again once it was started anew', async () => {
    const host = lab.host(1);
    const place = await madeAtAnEnd(host);
    const forgotten = (await host.engine('network', 'inspect', '--format', '{{.Id}}', 'front')).stdout.trim();
    await lab.script('crash', host.name);
    forgetNetwork(host, forgotten, place);
    await lab.script('start', host.name);
    await waitFor('the node to say what to do', healMs, async () => {
      const told = await problems(host);
      if (told.some((one) => /start the engine anew.*networks have same bridge name/.test(one))) return true;
      throw new Error(told.join('\n'));
    });
    await startAnew(host);
    await waitForHealed(host);
    // What it remembers comes back at each start, and is in nobody's way while the network is there.
    await startAnew(host);
    await waitForHealed(host);
    const left = await host.shoal('swarm', 'leave', '--force');
    assert.match(left.stderr, /Warning: the engine was once killed .* makes its bridge shoal\d+ again/);
    const links = (await host.exec('ip', '-o', 'link')).stdout;
    assert.ok(!/shoal\d|vx\d/.test(links), links);
  });

  async function waitForHealed(host: LabHost): Promise<void> {
    await waitFor('no problem to be left', healMs, async () => {
      const told = await problems(host);
      if (told.length === 0) return true;
      throw new Error(told.join('\n'));
    });
    await waitFor('the service to answer', healMs, async () => {
      const [question] = await virtualAddressQuestions(lab, host, ['web']);
      return question !== undefined && (await askFrom(question, question.address)) === 'web';
    });
  }

  /** A network with a service on it that is the first or the last of the engine's list of networks: forgetNetwork needs that. */
  async function madeAtAnEnd(host: LabHost): Promise<'first' | 'last'> {
    for (let attempt = 0; attempt < tries; attempt += 1) {
      await host.shoal('network', 'create', '-d', 'overlay', 'front');
      const options = ['--name', 'web', '--network', 'front', '--stop-signal', 'SIGKILL'];
      await host.shoal('service', 'create', ...options, 'busybox:lab', ...server);
      await waitForRunning(host, 'web', 1);
      const place = await placeOf(host);
      if (place !== undefined) return place;
      await host.shoal('service', 'rm', 'web');
      await waitFor('the network to be removed', healMs, async () => {
        await host.shoal('network', 'rm', 'front');
        return true;
      });
      await waitFor('the engine to remove it', healMs, async () => {
        const { stdout } = await host.engine('network', 'ls', '--format', '{{.Name}}');
        return !stdout.split('\n').includes('front');
      });
    }
    throw new Error(`no network of ${tries} was the first or the last of the engine's`);
  }

  async function placeOf(host: LabHost): Promise<'first' | 'last' | undefined> {
    const { stdout } = await host.engine('network', 'ls', '--no-trunc', '--format', '{{.ID}} {{.Name}}');
    const names = stdout.trim().split('\n').sort();
    if (names[0]?.endsWith(' front')) return 'first';
    return names.at(-1)?.endsWith(' front') ? 'last' : undefined;
  }

  /** Takes the network out of what the stopped engine knows, and leaves in what its bridge driver does. */
  function forgetNetwork(host: LabHost, id: string, place: 'first' | 'last'): void {
    const path = join(dirname(host.dataDir), 'docker', 'network', 'files', 'local-kv.db');
    const bytes = readFileSync(path);
    const prefix = 'docker/network/v1.0/networ';
    let changed = 0;
    for (
      let at = bytes.indexOf(`${prefix}k/${id}`);
      at >= 0;
      at = bytes.indexOf(`${prefix}k/${id}`, at + 1)
    ) {
      // The keys stay in order, by which the engine finds the others.
      bytes.write(place === 'first' ? 'j' : 'l', at + prefix.length);
      changed += 1;
    }
    assert.ok(changed > 0, 'the engine keeps its networks otherwise than this test knows');
    writeFileSync(path, bytes);
  }
});
