/**
 * A bug as people make them, planted into the compiled project.
 *
 * `file` is below dist/manager, `search` stands in it exactly once, `replace` takes its place. What each breaks says its
 * name. Pure.
 */
export interface Mutant {
  readonly name: string;
  readonly file: string;
  readonly search: string;
  readonly replace: string;
}

/** How the mutants of one folder (below dist/manager, with its slash) are made. */
export function mutantsOf(
  folder: string,
): (name: string, file: string, search: string, replace: string) => Mutant {
  return (name, file, search, replace) => ({ name, file: `${folder}${file}.js`, search, replace });
}
