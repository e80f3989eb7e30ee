/** The folders beside this file: what earlier versions wrote (see README.md). */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { SimulatedDisk } from '../../simulation/disk.ts';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..', '..');
const formats = join(root, 'test', 'manager', 'formats');

/** Versions of which there is a folder. */
export const oldFormats: readonly string[] = readdirSync(formats, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map((entry) => entry.name);

const read = new Map<string, readonly { readonly name: string; readonly data: Uint8Array }[]>();

/** Puts the files of `version` on `disk`. */
export function placeOldFormat(disk: Pick<SimulatedDisk, 'place'>, version: string): void {
  const files =
    read.get(version) ??
    readdirSync(join(formats, version)).map((name) => ({
      name,
      data: readFileSync(join(formats, version, name)),
    }));
  read.set(version, files);
  for (const { name, data } of files) disk.place(name, data);
}
