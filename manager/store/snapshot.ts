/**
 * The store's snapshot format, as MessagePack values one after the other: a map (version, index, the last events, what
 * of addresses no object tells); for each kind its name and its objects in order of creation, in JSON arrays of some
 * tens of kilobytes; last, how many objects there are of each kind. JSON, for Node reads and writes it several times as
 * fast as anything else, into objects of half the size: a million of them stand between a start and a manager. Pure.
 */
import { Packr } from 'msgpackr';
import { isShoalError, ShoalError } from '../../proto/errors.ts';
import type { ClaimsMemory } from './claims.ts';
import type { ClusterEvent } from './cluster-event.ts';
import { PackReader } from './pack-reader.ts';
import { type AnyObject, type Kind, kinds } from './tables.ts';

const formatVersion = 2;
/** One map, in which the objects are MessagePack as well: what 0.1.0 wrote. */
const firstFormatVersion = 1;
const packr = new Packr({ useRecords: false, moreTypes: false });

/** Both formats begin with a map of this. */
interface Head {
  version: number;
  index: number;
  /** Absent in snapshots of 0.1.0. */
  events?: readonly ClusterEvent[];
  claims?: ClaimsMemory;
}

type Counts = Readonly<Record<string, number>>;

/** Objects that came one after the other. */
interface Run {
  readonly size: number;
  values(): Iterable<AnyObject>;
}

/** So many letters of JSON make a piece, or one object if that has more: about a millisecond's work. */
const pieceLetters = 32 * 2 ** 10;
/** So many objects of the first format are unpacked and taken in at a time: the same. */
const objectsInPart = 64;

/**
 * A snapshot as of `index`, in pieces. `listed` gives runs of the objects, which stay as they are now; the rest is short
 * and encoded at once. Of equal objects the bytes are equal, whatever their runs are.
 */
export function encodeSnapshot(
  index: number,
  listed: (kind: Kind) => readonly Run[],
  events: readonly ClusterEvent[],
  claims: ClaimsMemory,
): Iterable<Uint8Array> {
  const head: Head = { version: formatVersion, index, events, claims };
  return pieces(
    packed(head),
    kinds.map((kind) => ({ kind, runs: listed(kind) })),
  );
}

function* pieces(
  head: Buffer,
  listed: readonly { readonly kind: Kind; readonly runs: readonly Run[] }[],
): Generator<Uint8Array, void> {
  yield head;
  const counts: Record<string, number> = {};
  for (const { kind, runs } of listed) {
    counts[kind] = runs.reduce((sum, { size }) => sum + size, 0);
    yield packed(kind);
    yield* piecesOf(runs);
  }
  yield packed(counts);
}

function* piecesOf(runs: readonly Run[]): Generator<Uint8Array, void> {
  let texts: string[] = [];
  let letters = 0;
  for (const run of runs) {
    for (const object of run.values()) {
      const text = JSON.stringify(object);
      texts.push(text);
      letters += text.length;
      if (letters < pieceLetters) continue;
      yield pieceOf(texts);
      texts = [];
      letters = 0;
    }
  }
  if (texts.length > 0) yield pieceOf(texts);
}

/** A JSON array, as MessagePack's bytes with a length of 32 bits (0xc6). */
function pieceOf(texts: readonly string[]): Buffer {
  const text = `[${texts.join(',')}]`;
  const lengthBytes = Buffer.byteLength(text);
  const piece = Buffer.allocUnsafe(5 + lengthBytes);
  piece[0] = 0xc6;
  piece.writeUInt32BE(lengthBytes, 1);
  piece.write(text, 5, 'utf8');
  return piece;
}

/** A copy: packr's own buffer is larger. */
function packed(value: unknown): Buffer {
  return Buffer.from(packr.pack(value));
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
 * Takes a snapshot apart, of whichever format; `rest` comes last. Throws ShoalError 'corrupted' on a format
 * that this version does not know, and where the bytes are damaged, which may be after some parts.
 */
export function* snapshotParts(data: Uint8Array): Generator<SnapshotPart, void> {
  const reader = new PackReader(data, packr);
  const head: Partial<Head> = {};
  try {
    for (let fields = reader.mapHead(); fields > 0; fields -= 1) {
      const name = reader.value() as keyof Head | 'tables';
      if (name === 'tables') yield* tablesOfFirstFormat(reader);
      else Object.assign(head, { [name]: reader.value() });
      if (name === 'version') requireFormat(head.version);
    }
    requireFormat(head.version);
    if (head.version === formatVersion) yield* tableParts(reader);
    reader.requireEnd();
  } catch (cause) {
    if (isShoalError(cause)) throw cause;
    throw new ShoalError('corrupted', 'the snapshot can not be read: it is damaged or not one of shoald', {
      cause,
    });
  }
  yield { part: 'rest', events: head.events ?? [], claims: head.claims };
}

function* tableParts(reader: PackReader): Generator<SnapshotPart, void> {
  const found: Record<string, number> = {};
  let kind: Kind | undefined;
  for (;;) {
    const value = reader.value();
    if (value instanceof Uint8Array) {
      if (kind === undefined) throw new Error('objects stand before the name of their kind');
      const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
      const objects = JSON.parse(bytes.toString('utf8')) as AnyObject[];
      found[kind] = (found[kind] ?? 0) + objects.length;
      yield { part: 'objects', kind, objects };
    } else if (typeof value === 'string') {
      kind = knownKind(value);
      found[kind] ??= 0;
    } else {
      if (typeof value !== 'object' || value === null) throw new Error('the number of objects is missing');
      requireCounts(found, value as Counts);
      return;
    }
  }
}

function requireCounts(found: Counts, written: Counts): void {
  for (const kind of Object.keys({ ...found, ...written })) {
    if (found[kind] === written[kind]) continue;
    throw new Error(`${written[kind]} of ${kind} were written, ${found[kind]} are here`);
  }
}

function* tablesOfFirstFormat(reader: PackReader): Generator<SnapshotPart, void> {
  for (let tables = reader.mapHead(); tables > 0; tables -= 1) {
    const kind = knownKind(reader.value());
    for (let left = reader.arrayHead(); left > 0; left -= objectsInPart) {
      yield { part: 'objects', kind, objects: reader.values(Math.min(left, objectsInPart)) as AnyObject[] };
    }
  }
}

function knownKind(name: unknown): Kind {
  if (!kinds.includes(name as Kind)) throw new Error(`there is no table "${name}"`);
  return name as Kind;
}

function requireFormat(version: unknown): void {
  if (version === formatVersion || version === firstFormatVersion) return;
  throw new ShoalError(
    'corrupted',
    `the snapshot has format ${version}, and this shoald reads formats ${firstFormatVersion} and ${formatVersion}: run the version that wrote it, or a newer one`,
  );
}
