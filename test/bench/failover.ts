/**
 * Hosts that lose their power: how long until another leader takes a write, until what ran there runs elsewhere,
 * and until a host that comes back is ready. Each run has a fresh lab of 3 managers and 2 workers.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { type LabHost, labMissing, waitFor } from '../lab/lab.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { Contender, labUp, type SeenTask, type Side } from './contender.ts';
import type { Limit, Metric } from './report.ts';

const managers = 3;
const hosts = 5;
const replicas = 10;
const defaultRuns = 3;
const peerRuns = 1;
const boundMs = 150_000;
const writeEveryMs = 100;
const mostWritesUnderWay = 10;

/** The most of each metric, and its unit; `needless-moves` are tasks of nodes that were never lost. */
const limits = {
  'leader-answers': [3, 's'],
  'leaders-tasks-elsewhere': [8, 's'],
  'all-ready-after-return': [10, 's'],
  'workers-tasks-elsewhere': [6, 's'],
  'needless-moves': [0, 'tasks'],
} as const;
type MetricName = keyof typeof limits;
type Samples = Record<MetricName, number[]>;

export const failover: Bench = {
  name: 'failover',
  description: 'hosts lose power: next leader, tasks elsewhere, return; peer: Docker Swarm',
  missing: labMissing,
  run: measureFailover,
};

async function measureFailover({ runs, withPeer, progress }: BenchOptions): Promise<Metric[]> {
  const samples = { ours: noSamples(), peer: noSamples() };
  for (let run = 1; run <= (runs ?? defaultRuns); run += 1) {
    const sides: Side[] = withPeer && run <= peerRuns ? ['ours', 'peer'] : ['ours'];
    for (const side of sides) {
      await measureOnce(side, samples[side], (words) => progress(`run ${run}, ${side}: ${words}`));
    }
  }
  return (Object.keys(limits) as MetricName[]).map((name) => {
    const [atMost, unit] = limits[name];
    const limit: Limit = { kind: 'worst', atMost };
    return { name, unit, ours: samples.ours[name], peer: samples.peer[name], limit };
  });
}

function noSamples(): Samples {
  return {
    'leader-answers': [],
    'leaders-tasks-elsewhere': [],
    'all-ready-after-return': [],
    'workers-tasks-elsewhere': [],
    'needless-moves': [],
  };
}

async function measureOnce(side: Side, samples: Samples, progress: (words: string) => void): Promise<void> {
  const lab = await labUp(hosts);
  try {
    const contender = new Contender(side, lab);
    await contender.form(managers);
    const note = (name: MetricName, value: number): void => {
      samples[name].push(value);
      progress(`${name} ${Number(value.toFixed(2))} ${limits[name][1]}`);
    };
    await loseLeader(contender, note);
    await loseWorker(contender, note);
  } finally {
    keepLogs(lab.hosts, side);
    await lab.down();
  }
}

type Note = (name: MetricName, value: number) => void;

async function loseLeader(contender: Contender, note: Note): Promise<void> {
  const { lab } = contender;
  const leader = await contender.leader(lab.host(1));
  const witness = leader === lab.host(1) ? lab.host(2) : lab.host(1);
  const service = await spreadService(contender, witness, 'leader');
  const lostId = await nodeId(contender, witness, leader);
  const unharmed = await contender.runningTasks(witness, service, lostId);
  const cut = performance.now();
  const elsewhere = allElsewhere(contender, witness, service, lostId);
  // A write that begins before the cable is cut would be answered by the leader that is about to go.
  await leader.powerOff();
  const answered = await firstWrite(contender, witness);
  note('leader-answers', (answered - cut) / 1000);
  note('leaders-tasks-elsewhere', ((await elsewhere) - cut) / 1000);
  const back = performance.now();
  await contender.boot(leader);
  await contender.allReady(witness, boundMs);
  note('all-ready-after-return', (performance.now() - back) / 1000);
  note('needless-moves', await movedOf(contender, witness, service, unharmed));
  await contender.removeService(witness, service);
}

async function loseWorker(contender: Contender, note: Note): Promise<void> {
  const { lab } = contender;
  const witness = lab.host(1);
  const worker = lab.host(hosts);
  const service = await spreadService(contender, witness, 'worker');
  const lostId = await nodeId(contender, witness, worker);
  const unharmed = await contender.runningTasks(witness, service, lostId);
  const cut = performance.now();
  const [elsewhere] = await Promise.all([
    allElsewhere(contender, witness, service, lostId),
    worker.powerOff(),
  ]);
  note('workers-tasks-elsewhere', (elsewhere - cut) / 1000);
  note('needless-moves', await movedOf(contender, witness, service, unharmed));
}

/** A service with its tasks on every host. */
async function spreadService(contender: Contender, witness: LabHost, name: string): Promise<string> {
  const id = await contender.createService(witness, name, replicas);
  await waitFor('the service to run', boundMs, async () => {
    return (await contender.runningSlots(witness, id)) === replicas;
  });
  const nodes = new Set((await contender.tasks(witness, id)).map(({ NodeID }) => NodeID));
  if (nodes.size !== hosts) throw new Error(`the service runs on ${nodes.size} of ${hosts} hosts`);
  return id;
}

async function nodeId(contender: Contender, witness: LabHost, host: LabHost): Promise<string> {
  const nodes = await contender.nodes(witness);
  return nodes.find(({ Description }) => Description.Hostname === host.name)?.ID ?? '';
}

/** How many of these tasks run no more. */
async function movedOf(
  contender: Contender,
  witness: LabHost,
  service: string,
  tasks: readonly SeenTask[],
): Promise<number> {
  const running = new Set((await contender.runningTasks(witness, service)).map(({ ID }) => ID));
  return tasks.filter(({ ID }) => !running.has(ID)).length;
}

/** When all slots run on other nodes. */
async function allElsewhere(
  contender: Contender,
  witness: LabHost,
  service: string,
  lostId: string,
): Promise<number> {
  return waitFor('all tasks to run elsewhere', boundMs, async () => {
    const running = await contender.runningSlots(witness, service, lostId);
    return running === replicas && performance.now();
  });
}

/** When the first write succeeded; attempts begin at a steady pace, for one that hangs must not hide the next. */
async function firstWrite(contender: Contender, witness: LabHost): Promise<number> {
  let underWay = 0;
  let count = 0;
  let succeededAtMs: number | undefined;
  let lastAttemptMs = -Infinity;
  return waitFor('a write to succeed', boundMs, () => {
    if (underWay < mostWritesUnderWay && performance.now() - lastAttemptMs >= writeEveryMs) {
      lastAttemptMs = performance.now();
      underWay += 1;
      count += 1;
      contender
        .write(witness, `probe-${count}`)
        .then(
          () => {
            succeededAtMs ??= performance.now();
          },
          () => undefined,
        )
        .finally(() => {
          underWay -= 1;
        });
    }
    return succeededAtMs;
  });
}

/** With BENCH_LOGS=FOLDER the daemons' logs outlive the lab. */
function keepLogs(all: readonly LabHost[], side: Side): void {
  const folder = process.env.BENCH_LOGS;
  if (folder === undefined || side === 'peer') return;
  for (const host of all) writeFileSync(`${folder}/${host.name}.log`, readFileSync(host.logPath));
}
