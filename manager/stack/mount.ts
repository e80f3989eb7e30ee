/** Mounts: `[source:]target[:options]` and the long form, as the engine's mounts. */
import type { Mount } from '../../proto/docker.ts';
import { BadValue, parseBytes } from './quantity.ts';
import type { Tree } from './tree.ts';

/** A mount of a compose file. `source` is a path, or the name that the file gives a volume. */
export interface ComposeMount {
  readonly type: Mount['Type'];
  readonly source?: string | undefined;
  readonly target: string;
  readonly read_only?: boolean | undefined;
  readonly consistency?: string | undefined;
  readonly bind?:
    | {
        propagation?: string | undefined;
        create_host_path?: boolean | undefined;
        recursive?: 'enabled' | 'disabled' | 'writable' | 'readonly' | undefined;
      }
    | undefined;
  readonly volume?: { nocopy?: boolean | undefined; subpath?: string | undefined } | undefined;
  readonly tmpfs?: { size?: number | undefined; mode?: number | undefined } | undefined;
}

const propagations = ['private', 'rprivate', 'shared', 'rshared', 'slave', 'rslave'];
const consistencies = ['consistent', 'cached', 'delegated'];

/** The long form of a short one. Throws BadValue. */
export function parseShortMount(text: string): ComposeMount {
  const parts = text.split(':');
  if (text === '' || parts.some((part) => part === '') || parts.length > 3) {
    throw new BadValue(`invalid volume ${JSON.stringify(text)}: write [source:]target[:options]`);
  }
  if (parts.length === 1) return { type: 'volume', target: parts[0]! };
  const [source, target, options] = parts;
  const type = /^[./~]/.test(source!) ? 'bind' : 'volume';
  const mount: { -readonly [K in keyof ComposeMount]: ComposeMount[K] } = { type, source, target: target! };
  for (const option of (options ?? '').split(',').filter((one) => one !== '')) {
    if (option === 'ro') mount.read_only = true;
    else if (option === 'rw') mount.read_only = false;
    else if (option === 'nocopy' && type === 'volume') mount.volume = { nocopy: true };
    else if (propagations.includes(option) && type === 'bind') mount.bind = { propagation: option };
    else if (consistencies.includes(option)) mount.consistency = option;
    else
      throw new BadValue(
        `volume ${JSON.stringify(text)}: the option ${JSON.stringify(option)} is not supported`,
      );
  }
  return mount;
}

/** The mount of one line under `tmpfs:`, `/run` or `/run:size=64m,mode=1770`. Throws BadValue. */
export function parseTmpfs(text: string): Mount {
  const [target, options = ''] = text.split(':');
  const TmpfsOptions: NonNullable<Mount['TmpfsOptions']> = {};
  for (const option of options.split(',').filter((one) => one !== '')) {
    const [name, value = ''] = option.split('=');
    if (name === 'size') TmpfsOptions.SizeBytes = parseBytes(value);
    else if (name === 'mode' && /^[0-7]+$/.test(value)) TmpfsOptions.Mode = Number.parseInt(value, 8);
    else
      throw new BadValue(
        `tmpfs ${JSON.stringify(text)}: the option ${JSON.stringify(option)} is not supported`,
      );
  }
  return { Type: 'tmpfs', Target: target!, ...(options === '' ? {} : { TmpfsOptions }) };
}

/** By what a mount is told from others when files are merged: where it is mounted. */
export function mountTarget(tree: Tree): string | undefined {
  if (tree.kind === 'scalar') {
    const parts = String(tree.value).split(':');
    return parts[1] ?? parts[0];
  }
  const target = tree.kind === 'map' ? tree.entries.get('target')?.value : undefined;
  return target?.kind === 'scalar' ? String(target.value) : undefined;
}
