/** The store's snapshot format: a version, then every object of every kind in order of creation. */
import { Packr } from 'msgpackr';
import { ShoalError } from '../../proto/errors.ts';
import { type AnyObject, type Kind, kinds } from './tables.ts';

const formatVersion = 1;
const packr = new Packr({ useRecords: false, moreTypes: false });

interface Format {
  version: number;
  index: number;
  tables: Partial<Record<Kind, AnyObject[]>>;
}

/** The bytes of a snapshot as of `index`. */
export function encodeSnapshot(index: number, list: (kind: Kind) => AnyObject[]): Uint8Array {
  const format: Format = {
    version: formatVersion,
    index,
    tables: Object.fromEntries(kinds.map((kind) => [kind, list(kind)])),
  };
  return packr.pack(format);
}

/** The objects of a snapshot. Throws ShoalError 'corrupted' on a format that this version does not know. */
export function decodeSnapshot(data: Uint8Array): { kind: Kind; object: AnyObject }[] {
  const format = unpack(data);
  if (format.version !== formatVersion) {
    throw new ShoalError(
      'corrupted',
      `the snapshot has format ${format.version}, and this shoald reads format ${formatVersion}: run the version that wrote it, or a newer one`,
    );
  }
  return kinds.flatMap((kind) => (format.tables[kind] ?? []).map((object) => ({ kind, object })));
}

function unpack(data: Uint8Array): Format {
  try {
    return packr.unpack(data) as Format;
  } catch (cause) {
    throw new ShoalError('corrupted', 'the snapshot can not be read: it is damaged or not one of shoald', {
      cause,
    });
  }
}
