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

/** So many objects are packed at a time: about a millisecond's work. */
const objectsInPiece = 200;

/**
 * The same, but for the width of lengths, in pieces. What is listed is listed at once: objects are replaced and never
 * changed, so it stays as it was; the rest is short and encoded at once.
 */
export function encodeSnapshotInPieces(
  index: number,
  list: (kind: Kind) => AnyObject[],
  events: readonly ClusterEvent[],
  claims: ClaimsMemory,
): Iterable<Uint8Array> {
  const listed = kinds.map((kind) => ({ kind, objects: list(kind) }));
  const { tables: _, ...rest }: Format = { version: formatVersion, index, tables: {}, events, claims };
  const fields = Object.entries(rest).map(([name, value]) => Buffer.concat([packed(name), packed(value)]));
  // MessagePack: a map with as many fields as Format has, `tables` last.
  const start = Buffer.concat([head(0xdf, fields.length + 1), ...fields, packed('tables')]);
  return pieces(start, listed);
}

function* pieces(
  start: Buffer,
  listed: readonly { readonly kind: Kind; readonly objects: readonly AnyObject[] }[],
): Generator<Uint8Array, void> {
  yield Buffer.concat([start, head(0xdf, listed.length)]);
  for (const { kind, objects } of listed) {
    yield Buffer.concat([packed(kind), head(0xdd, objects.length)]);
    for (let at = 0; at < objects.length; at += objectsInPiece) {
      yield Buffer.concat(objects.slice(at, at + objectsInPiece).map(packed));
    }
  }
}

/** A copy: packr's own buffer is used again by the next call. */
function packed(value: unknown): Buffer {
  return Buffer.from(packr.pack(value));
}

/** The head of a long map (0xdf) or array (0xdd). */
function head(type: number, length: number): Buffer {
  const bytes = Buffer.alloc(5);
  bytes[0] = type;
  bytes.writeUInt32BE(length, 1);
  return bytes;
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
