/** Puts a planted bug into the text of a compiled file. Pure. */
import type { Mutant } from './mutant.ts';

/** `text` with the bug. Throws when what it replaces is not there exactly once: the list is out of date. */
export function planted(text: string, { name, file, search, replace }: Mutant): string {
  const parts = text.split(search);
  if (parts.length !== 2) {
    throw new Error(
      `the planted bug "${name}" is out of date: what it replaces stands ${parts.length - 1} times in ${file}`,
    );
  }
  return parts.join(replace);
}
