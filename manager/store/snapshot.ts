/** The store's snapshot format: a version, every object of every kind in order of creation, the last events, what of addresses no object tells. */
import { Packr } from 'msgpackr';
import { isShoalError, ShoalError } from '../../proto/errors.ts';
import type { ClaimsMemory } from './claims.ts';
import type { ClusterEvent } from './cluster-event.ts';
import { PackReader } from './pack-reader.ts';
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
/** So many are unpacked and taken in at a time: the same. */
const objectsInPart = 64;

/**
 * The same, but for the width of lengths, in pieces. `listed` gives runs of the objects that stay as they are now; the
 * rest is short and encoded at once.
 */
export function encodeSnapshotInPieces(
  index: number,
  listed: (kind: Kind) => readonly Run[],
  events: readonly ClusterEvent[],
  claims: ClaimsMemory,
): Iterable<Uint8Array> {
  const runs = kinds.map((kind) => ({ kind, runs: listed(kind) }));
  const { tables: _, ...rest }: Format = { version: formatVersion, index, tables: {}, events, claims };
  const fields = Object.entries(rest).map(([name, value]) => Buffer.concat([packed(name), packed(value)]));
  // MessagePack: a map with as many fields as Format has, `tables` last.
  const start = Buffer.concat([head(0xdf, fields.length + 1), ...fields, packed('tables')]);
  return pieces(start, runs);
}

/** Objects that came one after the other. */
interface Run {
  readonly size: number;
  values(): Iterable<AnyObject>;
}

function* pieces(
  start: Buffer,
  listed: readonly { readonly kind: Kind; readonly runs: readonly Run[] }[],
): Generator<Uint8Array, void> {
  yield Buffer.concat([start, head(0xdf, listed.length)]);
  for (const { kind, runs } of listed) {
    const count = runs.reduce((sum, { size }) => sum + size, 0);
    yield Buffer.concat([packed(kind), head(0xdd, count)]);
    for (const run of runs) yield* piecesOf(run);
  }
}

function* piecesOf(run: Run): Generator<Uint8Array, void> {
  let piece: Buffer[] = [];
  for (const object of run.values()) {
    piece.push(packed(object));
    if (piece.length < objectsInPiece) continue;
    yield Buffer.concat(piece);
    piece = [];
  }
  if (piece.length > 0) yield Buffer.concat(piece);
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

/** What a snapshot holds, a little at a time: objects in order of creation within their kind, the rest once. */
export type SnapshotPart =
  | { readonly part: 'objects'; readonly kind: Kind; readonly objects: readonly AnyObject[] }
  | {
      readonly part: 'rest';
      readonly events: readonly ClusterEvent[];
      readonly claims: ClaimsMemory | undefined;
    };

/**
 * Takes a snapshot apart, whichever way it was encoded; `rest` comes last. Throws ShoalError 'corrupted' on a format
 * that this version does not know, and where the bytes are damaged, which may be after some parts.
 */
export function* snapshotParts(data: Uint8Array): Generator<SnapshotPart, void> {
  const reader = new PackReader(data, packr);
  const rest: Partial<Pick<Format, 'version' | 'events' | 'claims'>> = {};
  try {
    for (let fields = reader.mapHead(); fields > 0; fields -= 1) {
      const name = reader.value() as keyof Format;
      if (name === 'tables') yield* tableParts(reader);
      else Object.assign(rest, { [name]: reader.value() });
      if (name === 'version') requireFormat(rest.version);
    }
    requireFormat(rest.version);
    reader.requireEnd();
  } catch (cause) {
    if (isShoalError(cause)) throw cause;
    throw new ShoalError('corrupted', 'the snapshot can not be read: it is damaged or not one of shoald', {
      cause,
    });
  }
  yield { part: 'rest', events: rest.events ?? [], claims: rest.claims };
}

function* tableParts(reader: PackReader): Generator<SnapshotPart, void> {
  for (let tables = reader.mapHead(); tables > 0; tables -= 1) {
    const kind = reader.value() as Kind;
    if (!kinds.includes(kind)) throw new Error(`there is no table "${kind}"`);
    for (let left = reader.arrayHead(); left > 0; left -= objectsInPart) {
      yield { part: 'objects', kind, objects: reader.values(Math.min(left, objectsInPart)) as AnyObject[] };
    }
  }
}

function requireFormat(version: unknown): void {
  if (version === formatVersion) return;
  throw new ShoalError(
    'corrupted',
    `the snapshot has format ${version}, and this shoald reads format ${formatVersion}: run the version that wrote it, or a newer one`,
  );
}
