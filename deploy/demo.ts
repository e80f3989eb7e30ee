/**
 * `npm run demo`: the main job, shown. Five daemons on this machine's one engine become a cluster of three
 * managers and two workers; a stack is deployed, scaled, its leader and a worker killed, and updated.
 *
 * In: flags. Out: lines and a live picture on the terminal. Everything it starts it ends, unless --keep.
 * It uses the cluster as anyone would, by the shoal command's own API; it decides nothing about it.
 */
import { parseArgs } from 'node:util';
import { messageOf } from '../proto/errors.ts';
import { Cluster } from './demo/cluster.ts';
import { type DemoEngine, findEngine, simulatedEngine } from './demo/machine.ts';
import { Stage } from './demo/stage.ts';
import { play } from './demo/story.ts';

const help = `usage: npm run demo -- [--simulate] [--keep] [--down]

  --simulate   simulated containers: needs no root and no engine
  --keep       leave the cluster up, and say what to try next
  --down       take down what an earlier --keep left up
`;

async function main(): Promise<void> {
  const { values: flags } = parseArgs({
    options: {
      simulate: { type: 'boolean', default: false },
      keep: { type: 'boolean', default: false },
      down: { type: 'boolean', default: false },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (flags.help) return void process.stdout.write(help);
  const stage = new Stage(process.stdout);
  await Cluster.takeDownLeftovers();
  if (flags.down) return stage.line('The demo is down.');
  const engine: DemoEngine = flags.simulate ? simulatedEngine() : await findEngine(stage);
  const cluster = new Cluster(engine);
  let interrupted = false;
  const interrupt = (): void => {
    if (interrupted) return;
    interrupted = true;
    stage.line('\nInterrupted: taking it down.');
    void cluster.takeDown().finally(() => process.exit(130));
  };
  process.on('SIGINT', interrupt);
  process.on('SIGTERM', interrupt);
  let failed = false;
  try {
    await play(cluster, stage);
  } catch (error) {
    if (interrupted) return;
    failed = true;
    stage.fail(messageOf(error));
    stage.line(await cluster.explain());
  }
  if (flags.keep && !failed) {
    await cluster.keep();
    stage.line(cluster.whatToTry());
  } else {
    await stage.step('take all of it down', () => cluster.takeDown());
  }
  process.exitCode = failed ? 1 : 0;
}

try {
  await main();
} catch (error) {
  process.stderr.write(`${messageOf(error)}\n`);
  process.exitCode = 1;
}
