/** What there is to see of networks that do not come up: gathered before a lab goes down, for who reads why a run failed. */
import { readFileSync } from 'node:fs';
import { messageOf } from '../../proto/errors.ts';
import type { Lab, LabHost } from './lab.ts';

const logLines = 25;
const engineLogLines = 12;
/** Levels of the daemon's log from `warn` on. */
const isWorthTelling = (line: string) => /"level":(4|5|6)0/.test(line);

/** Tasks and reasons as users see them, then each host's difference, tunnels and last words. Never rejects. */
export async function networkEvidence(lab: Lab, witness: LabHost): Promise<string> {
  const parts: string[] = [];
  const tell = async (title: string, run: () => Promise<string>) => {
    const text = await run().catch((error: unknown) => messageOf(error));
    parts.push(`== ${title}\n${text.trim()}`);
  };
  const shoal = async (...args: string[]) => (await witness.shoal(...args)).stdout;
  await tell('nodes', () => shoal('node', 'ls'));
  await tell('services', () => shoal('service', 'ls'));
  for (const name of await named(() => shoal('service', 'ls', '--format', '{{.Name}}'))) {
    await tell(`tasks of ${name}`, () => shoal('service', 'ps', '--no-trunc', name));
    await tell(`why ${name}`, () => shoal('service', 'why', name));
  }
  const overlays = ['--filter', 'driver=overlay', '--format', '{{.Name}}'];
  for (const name of await named(() => shoal('network', 'ls', ...overlays))) {
    await tell(`network ${name}`, () => shoal('network', 'inspect', '--pretty', name));
  }
  for (const host of lab.hosts) {
    const inside = async (...command: string[]) => (await host.exec(...command)).stdout;
    await tell(`${host.name}: node inspect`, () => shoal('node', 'inspect', '--pretty', host.name));
    await tell(`${host.name}: difference`, () => shoal('network', 'diff', host.name));
    await tell(`${host.name}: wg`, () => inside('wg', 'show'));
    await tell(`${host.name}: links`, () => inside('ip', '-br', 'link'));
    await tell(`${host.name}: containers`, () => inside('docker', 'ps', '-a', '--no-trunc'));
    await tell(`${host.name}: processes`, () => inside('ps', '-eo', 'pid,etimes,stat,args'));
    await tell(`${host.name}: shoald`, async () =>
      lastOf(readFileSync(host.logPath, 'utf8').split('\n').filter(isWorthTelling), logLines),
    );
    await tell(`${host.name}: engine`, async () =>
      lastOf((await lab.script('log', host.name, String(engineLogLines))).stdout.split('\n'), engineLogLines),
    );
  }
  return parts.join('\n');
}

async function named(list: () => Promise<string>): Promise<string[]> {
  return (await list().catch(() => '')).split('\n').filter(Boolean);
}

function lastOf(lines: readonly string[], count: number): string {
  return lines.slice(-count).join('\n');
}
