/** Reads what `--mount` takes: docker's fields, checked against the mount's type. Pure. */
import type { Mount } from '../proto/docker.ts';
import { parseBoolean, parseBytes, parseChoice, parseFields, parseLabels } from './parse.ts';
import { UsageError } from './usage.ts';

type Reader = (mount: Mount, value: string, what: string) => void;

const propagations = ['private', 'rprivate', 'shared', 'rshared', 'slave', 'rslave'] as const;

/** What each field does to a mount. */
const readers: Record<string, Reader> = {
  type: (mount, value, what) => {
    mount.Type = parseChoice(value, what, ['bind', 'volume', 'tmpfs'] as const);
  },
  source: (mount, value) => {
    mount.Source = value;
  },
  target: (mount, value) => {
    mount.Target = value;
  },
  readonly: (mount, value, what) => {
    mount.ReadOnly = parseBoolean(value, what);
  },
  consistency: (mount, value, what) => {
    mount.Consistency = parseChoice(value, what, ['default', 'consistent', 'cached', 'delegated'] as const);
  },
  'bind-propagation': (mount, value, what) => {
    mount.BindOptions = { ...mount.BindOptions, Propagation: parseChoice(value, what, propagations) };
  },
  'bind-nonrecursive': (mount, value, what) => {
    mount.BindOptions = { ...mount.BindOptions, NonRecursive: parseBoolean(value, what) };
  },
  'bind-recursive': (mount, value, what) => {
    const choice = parseChoice(value, what, ['enabled', 'disabled', 'writable', 'readonly'] as const);
    const options = {
      enabled: {},
      disabled: { NonRecursive: true },
      writable: { ReadOnlyNonRecursive: true },
      readonly: { ReadOnlyForceRecursive: true },
    }[choice];
    if (choice !== 'enabled') mount.BindOptions = { ...mount.BindOptions, ...options };
  },
  'bind-create-src': (mount, value, what) => {
    mount.BindOptions = { ...mount.BindOptions, CreateMountpoint: parseBoolean(value, what) };
  },
  'volume-nocopy': (mount, value, what) => {
    mount.VolumeOptions = { ...mount.VolumeOptions, NoCopy: parseBoolean(value, what) };
  },
  'volume-subpath': (mount, value) => {
    mount.VolumeOptions = { ...mount.VolumeOptions, Subpath: value };
  },
  'volume-label': (mount, value) => {
    const Labels = { ...mount.VolumeOptions?.Labels, ...parseLabels([value]) };
    mount.VolumeOptions = { ...mount.VolumeOptions, Labels };
  },
  'volume-driver': (mount, value) => {
    const DriverConfig = { ...mount.VolumeOptions?.DriverConfig, Name: value };
    mount.VolumeOptions = { ...mount.VolumeOptions, DriverConfig };
  },
  'volume-opt': (mount, value) => {
    const before = mount.VolumeOptions?.DriverConfig;
    const Options = { ...before?.Options, ...parseLabels([value]) };
    mount.VolumeOptions = { ...mount.VolumeOptions, DriverConfig: { Name: '', ...before, Options } };
  },
  'tmpfs-size': (mount, value, what) => {
    mount.TmpfsOptions = { ...mount.TmpfsOptions, SizeBytes: parseBytes(value, what) };
  },
  'tmpfs-mode': (mount, value, what) => {
    if (!/^[0-7]{1,4}$/.test(value))
      throw new UsageError(`${what}: the mode "${value}" is not octal, e.g. 1777`);
    mount.TmpfsOptions = { ...mount.TmpfsOptions, Mode: Number.parseInt(value, 8) };
  },
};

const aliases: Record<string, string> = {
  src: 'source',
  dst: 'target',
  destination: 'target',
  ro: 'readonly',
};

/** A mount of `type=volume,source=data,target=/data,readonly`. */
export function parseMount(text: string): Mount {
  const what = `--mount ${text}`;
  const mount: Mount = { Type: 'volume', Target: '' };
  for (const [field, value] of parseFields(text)) {
    const read = readers[aliases[field] ?? field];
    if (!read) throw new UsageError(`--mount "${text}": unknown field "${field}"`);
    read(mount, value, what);
  }
  checkMount(mount, what);
  return mount;
}

function checkMount(mount: Mount, what: string): void {
  if (mount.Target === '') throw new UsageError(`${what}: target is missing`);
  if (mount.Type === 'bind' && !mount.Source) throw new UsageError(`${what}: a bind mount needs a source`);
  if (mount.Type === 'tmpfs' && mount.Source) throw new UsageError(`${what}: a tmpfs has no source`);
  const options = [
    { type: 'bind', given: mount.BindOptions },
    { type: 'volume', given: mount.VolumeOptions },
    { type: 'tmpfs', given: mount.TmpfsOptions },
  ];
  const mixed = options.find(({ type, given }) => given !== undefined && type !== mount.Type);
  if (mixed)
    throw new UsageError(`${what}: ${mixed.type}-* fields can't be mixed with mounts of type ${mount.Type}`);
}
