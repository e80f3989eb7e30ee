/** The store's snapshot format: a version, every object of every kind in order of creation, the last events, what of addresses no object tells. */
import { Packr } from 'msgpackr';
import { ShoalError } from '../../proto/errors.ts';
import type { ClaimsMemory } from './claims.ts';
import type { ClusterEvent } from './cluster-event.ts';
import { type AnyObject, type Kind, kinds } from './tables.ts';

const formatVersion = 1;
const packr = new Packr({ useRecords: false, moreTypes: false });

interface Format {
  version: number;
  index: number;
  tables: Partial<Record<Kind, AnyObject[]>>;
  /** Absent in snapshots of 0.1.0. */
  events?: readonly ClusterEvent[];
  claims?: ClaimsMemory;
}

/** The bytes of a snapshot as of `index`. */
export function encodeSnapshot(
  index: number,
  list: (kind: Kind) => AnyObject[],
  events: readonly ClusterEvent[],
  claims: ClaimsMemory,
): Uint8Array {
  const format: Format = {
    version: formatVersion,
    index,
    tables: Object.fromEntries(kinds.map((kind) => [kind, list(kind)])),
    events,
    claims,
  };
  return packr.pack(format);
}

/** What a snapshot holds. Throws ShoalError 'corrupted' on a format that this version does not know. */
export function decodeSnapshot(data: Uint8Array): {
  objects: { kind: Kind; object: AnyObject }[];
  events: readonly ClusterEvent[];
  claims: ClaimsMemory | undefined;
} {
  const format = unpack(data);
  if (format.version !== formatVersion) {
    throw new ShoalError(
      'corrupted',
      `the snapshot has format ${format.version}, and this shoald reads format ${formatVersion}: run the version that wrote it, or a newer one`,
    );
  }
  const objects = kinds.flatMap((kind) => (format.tables[kind] ?? []).map((object) => ({ kind, object })));
  return { objects, events: format.events ?? [], claims: format.claims };
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
