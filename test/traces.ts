/** What a run could leave on the machine: processes, interfaces, nft tables, namespaces, mounts, cgroups. */
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

function lines(command: string, args: string[]): string[] {
  const result = spawnSync(command, args, { encoding: 'utf8' });
  return result.status === 0 ? result.stdout.split('\n').filter((line) => line.trim() !== '') : [];
}

function processes(): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
        const ours = /shoald|dockerd|containerd|lab-host|etcd|docker-proxy/.test(command);
        return ours ? [`process ${pid}: ${command.slice(0, 120)}`] : [];
      } catch {
        return []; // it ended while we looked
      }
    });
}

/** Everything of that kind that there is now. */
export function traces(): ReadonlySet<string> {
  const interfaces = lines('ip', ['-br', 'link']).map((line) => `interface ${line.split(/\s+/)[0]}`);
  const tables = lines('nft', ['list', 'tables']).map((line) => `nft ${line}`);
  const namespaces = lines('ip', ['netns', 'list']).map((line) => `namespace ${line.split(/\s+/)[0]}`);
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '')
    .filter((path) => /shoal|lab|docker/.test(path))
    .map((path) => `mount ${path}`);
  return new Set([...processes(), ...interfaces, ...tables, ...namespaces, ...mounts]);
}

/** What there is now and was not there before. */
export function leftovers(before: ReadonlySet<string>): string[] {
  return [...traces()].filter((trace) => !before.has(trace));
}
