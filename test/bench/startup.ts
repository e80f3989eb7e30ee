/** Seconds from creating a service to all of its replicas running: ours and a stock Swarm on the same engine. */
import { labMissing, waitFor } from '../lab/lab.ts';
import type { Bench, BenchOptions } from './bench.ts';
import { Contender, labUp, type Side } from './contender.ts';
import type { Metric } from './report.ts';

const replicas = 30;
const defaultRuns = 3;
const boundMs = 120_000;
/** Looking costs processor time that the engine then lacks. */
const lookEveryMs = 100;

export const startup: Bench = {
  name: 'startup',
  description: `service create --replicas ${replicas} to all running, one engine; peer: Docker Swarm`,
  missing: labMissing,
  run: measureStartup,
};

async function measureStartup({ runs, withPeer, progress }: BenchOptions): Promise<Metric[]> {
  const samples: Record<Side, number[]> = { ours: [], peer: [] };
  const lab = await labUp(1);
  try {
    const sides: Side[] = withPeer ? ['ours', 'peer'] : ['ours'];
    const contenders = sides.map((side) => new Contender(side, lab));
    for (const contender of contenders) await contender.form(1);
    for (let run = 1; run <= (runs ?? defaultRuns); run += 1) {
      // In turn, and who begins in turn: the machine is not equally busy all the time.
      const order = run % 2 === 1 ? contenders : [...contenders].reverse();
      for (const contender of order) {
        const seconds = await secondsToRun(contender, `bench${run}`);
        progress(`run ${run}, ${contender.side}: ${seconds.toFixed(2)} s`);
        samples[contender.side].push(seconds);
      }
    }
  } finally {
    await lab.down();
  }
  return [{ name: 'all-running', unit: 's', ...samples, limit: { kind: 'ratio', atMost: 1 } }];
}

async function secondsToRun(contender: Contender, name: string): Promise<number> {
  const host = contender.lab.host(1);
  const begin = performance.now();
  const id = await contender.createService(host, name, replicas);
  let lookAtMs = 0;
  await waitFor(`${replicas} replicas to run`, boundMs, async () => {
    if (performance.now() < lookAtMs) return false;
    lookAtMs = performance.now() + lookEveryMs;
    return (await contender.runningSlots(host, id)) === replicas;
  });
  const seconds = (performance.now() - begin) / 1000;
  await contender.removeService(host, id);
  return seconds;
}
