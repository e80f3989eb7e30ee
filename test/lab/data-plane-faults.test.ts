/**
 * After random operations and faults the kernel of every host is as the plan says, and after leaving it is as it was
 * before joining. SHOAL_NETWORK_FAULTS: how many of them; SHOAL_SEED: which. A few of one seed belong to every run; more, of other
 * seeds, are for whoever looks for faults (docs/networks.md says what is open).
 */
import assert from 'node:assert/strict';
import { messageOf } from '../../proto/errors.ts';
import { formCluster, isReady, nodesSeenBy, runningTasks, tasksOf } from './cluster.ts';
import { hostState, planOn, staleness } from './host-state.ts';
import { Lab, type LabHost, labMissing, waitFor } from './lab.ts';
import { NetworkChaos } from './network-chaos.ts';
import { networkEvidence } from './network-evidence.ts';
import { askFrom, lookFrom, virtualAddressQuestions } from './virtual-addresses.ts';

const hostCount = 4;
const managers = 3;
const count = Number(process.env.SHOAL_NETWORK_FAULTS ?? 15);
const seed = Number(process.env.SHOAL_SEED ?? 7);
const healMs = 120_000;
const perFaultMs = 5_000;
/** To look at everything once, with commands that wait for managers that do not answer. */
const evidenceMs = 600_000;

describe('lab: networks under faults', () => {
  let lab: Lab;
  let chaos: NetworkChaos;
  const stateBefore = new Map<LabHost, string[]>();

  before(async function () {
    const missing = labMissing();
    if (missing) return this.skip();
    lab = await Lab.up(hostCount, 'shoal-lab-chaos');
    for (const host of lab.hosts) {
      // An engine's first container brings rules and addresses that stay, whoever starts it.
      await host.engine('run', '--rm', 'busybox:lab', 'true');
      stateBefore.set(host, await hostState(host));
    }
    await formCluster(lab, managers);
    chaos = new NetworkChaos({ lab, managers, seed, gapMs: 300, lastsMs: 2_500 });
  });

  after(async () => {
    await lab?.down();
  });

  afterEach(async function () {
    this.timeout(evidenceMs);
    if (this.currentTest?.state === 'failed') console.log(await networkEvidence(lab, lab.host(1)));
  });

  /** What the managers know to be wrong with a host's networks. */
  async function problemsOf(host: LabHost): Promise<string[]> {
    const node = (await nodesSeenBy(lab.host(1))).find(
      ({ Description }) => Description.Hostname === host.name,
    );
    return (node?.Problems ?? []).map(({ Message }) => Message);
  }

  /** Whoever looks after a node does what its problems say. */
  async function startToldEngines(): Promise<void> {
    for (const host of lab.hosts) {
      if (!(await problemsOf(host)).some((message) => /start the engine anew/.test(message))) continue;
      await lab.script('crash', host.name);
      await lab.script('start', host.name);
      chaos.story.push(`${host.name}: its engine is started anew, as its problem says`);
    }
  }

  const story = () => `seed ${seed}:\n${chaos.story.join('\n')}`;

  it('the kernel of every host is as the plan says, and the plan as the managers do', async function () {
    this.timeout(healMs * 3 + count * perFaultMs);
    await chaos.run(count);
    assert.deepEqual(chaos.troubles, [], story());
    const [first] = lab.hosts;
    await waitFor(`every node to be back, ${story()}`, healMs, async () =>
      (await nodesSeenBy(first!)).every(isReady),
    );
    await startToldEngines();
    for (const name of chaos.services.keys()) {
      await waitFor(`${name} to run as asked, ${story()}`, healMs, async () => {
        const tasks = (await tasksOf(first!, name)).filter(({ DesiredState }) => DesiredState === 'running');
        return tasks.every(({ Status }) => Status.State === 'running');
      });
    }
    for (const host of lab.hosts) {
      let last = '';
      const isSo = async () => {
        last = [
          (await staleness(host, first!)) ?? '',
          ...(await planOn(lab, host)),
          ...(await problemsOf(host)),
        ]
          .filter(Boolean)
          .join('\n');
        return last === '';
      };
      await waitFor(`${host.name} to be as planned`, healMs, isSo).catch((error: unknown) => {
        throw new Error(`${error instanceof Error ? error.message : error}\n${last}\n${story()}`);
      });
    }
  });

  it('and every published port answers on every host', async () => {
    const [first] = lab.hosts;
    for (const [name, { port }] of chaos.services) {
      if (port === undefined || (await runningTasks(first!, name)).length === 0) continue;
      for (const host of lab.hosts) {
        await waitFor(`${name} on ${host.name}:${port}, ${story()}`, healMs, async () => {
          const ask = ['exec', 'sw', 'curl', '-s', '-m', '3', `http://${host.address}:${port}/`];
          return (await lab.script(...ask)).stdout.trim() === name;
        });
      }
    }
  });

  it('and every service by its virtual address and its name, from every task on a network of it', async function () {
    this.timeout(healMs * 3);
    const questions = await virtualAddressQuestions(lab, lab.host(1), [...chaos.services.keys()]);
    for (const question of questions) {
      const { host, service, address } = question;
      for (const to of [address, service]) {
        await waitFor(`${service} by ${to} on ${host.name}, ${story()}`, healMs, async () => {
          return (await askFrom(question, to)) === service;
        }).catch(async (error: unknown) => {
          throw new Error(`${messageOf(error)}\n${await lookFrom(question)}`);
        });
      }
    }
  });

  it('after leaving every host is as it was before it joined', async function () {
    this.timeout(healMs * 2);
    for (const host of [...lab.hosts].reverse()) await host.shoal('swarm', 'leave', '--force');
    for (const host of lab.hosts) {
      // Strangers flushed the engine's own rules, too: it makes them anew when it starts.
      await lab.script('crash', host.name);
      await lab.script('start', host.name);
      assert.deepEqual(
        difference(stateBefore.get(host) ?? [], await hostState(host)),
        [],
        `${host.name}, ${story()}`,
      );
    }
  });
});

/** Lines of one and not of the other, marked. */
function difference(before: readonly string[], after: readonly string[]): string[] {
  const [had, has] = [new Set(before), new Set(after)];
  return [
    ...before.filter((line) => !has.has(line)).map((line) => `- ${line}`),
    ...after.filter((line) => !had.has(line)).map((line) => `+ ${line}`),
  ];
}
