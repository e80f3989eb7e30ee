/**
 * `npm run faults -- --minutes 30`: real faults on real processes and disks, in the lab, under load. What happens is
 * told on standard error, one line of JSON at the end on standard output; exit code 0 when nothing was violated, 2
 * when the lab cannot run here.
 */
import { commandLine, numberAbove0 } from './command-line.ts';
import { runFaults } from './lab/fault-run/fault-run.ts';
import { labMissing } from './lab/lab.ts';

async function main(): Promise<number> {
  const { values } = commandLine('usage: npm run faults -- [--minutes N]   (2 minutes by default)', {
    options: { minutes: { type: 'string', default: '2' } },
  });
  const minutes = numberAbove0('minutes', values.minutes);
  const missing = labMissing();
  if (missing !== undefined) {
    console.error(missing);
    return 2;
  }
  const began = performance.now();
  const tell = (words: string): void =>
    console.error(`${((performance.now() - began) / 1000).toFixed(1).padStart(7)} s  ${words}`);
  const report = await runFaults({
    labName: 'shoal-fault-run',
    faultsMs: minutes * 60_000,
    clients: 6,
    gapMs: 4_000,
    lastsMs: 5_000,
    tell,
  });
  console.log(JSON.stringify(report));
  for (const violation of report.violations) console.error(`VIOLATION ${violation}`);
  return report.violations.length === 0 ? 0 : 1;
}

process.exitCode = await main();
