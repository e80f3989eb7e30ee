/** shoal service history, shoal stack history, and the ways back. */
import type { Command } from 'commander';
import type { HistoryEntry } from '../../manager/api/history.ts';
import type { Service } from '../../proto/docker.ts';
import { type Context, listOptions } from '../context.ts';
import { type Column, type ListOptions, print, renderList } from '../output.ts';

const columns: readonly Column<HistoryEntry>[] = [
  { heading: 'NUMBER', field: 'Number', value: numberOf },
  { heading: 'WHEN', field: 'At', value: (row) => row.At },
  { heading: 'WHO', field: 'By', value: (row) => row.By },
  { heading: 'WHAT', field: 'What', value: (row) => row.What },
];

/** What can't be gone back to as a whole has none. */
function numberOf({ Number: number, IsKept }: HistoryEntry): string {
  return number === 0 ? '-' : `${number}${IsKept ? '' : ' (not kept)'}`;
}

/** `history` of a noun whose objects stand under `path`. */
export function addHistory(noun: Command, context: Context, path: 'services' | 'stacks'): void {
  const what = path === 'services' ? 'service' : 'stack';
  listOptions(
    noun.command('history').description(`who changed a ${what}, when, and what`).argument(`<${what}>`),
  ).action(async (name: string, flags: ListOptions) => {
    const entries = await context
      .client()
      .get<HistoryEntry[]>(`/${path}/${encodeURIComponent(name)}/history`);
    print(renderList(entries, columns, (row) => String(row.Number), flags));
  });
}

/** Takes a service back to a revision that is kept; answers its id. */
export async function rollBackTo(context: Context, name: string, to: string): Promise<string> {
  const client = context.client();
  const service = await client.get<Service>(`/services/${encodeURIComponent(name)}`);
  const version = String(service.Version.Index);
  await client.post(`/services/${service.ID}/rollback`, {}, { to, version });
  return service.ID;
}
