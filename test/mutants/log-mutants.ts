/** Bugs of the log on disk, of what leaves a member and of what it answers, and of the store. */
import { type Mutant, mutantsOf } from './mutant.ts';

const raft = mutantsOf('raft/');
const store = mutantsOf('store/');

export const log: readonly Mutant[] = [
  raft(
    'a record is acknowledged before it is written',
    'wal',
    'return flush.then(() => this.#written(bytes.length));',
    'this.#written(bytes.length);\n        return undefined;',
  ),
  raft(
    'a torn record is believed',
    'segment',
    'if (crc32(bytes.subarray(start, end)) !== bytes.readUInt32LE(at + 4))\n        return undefined;',
    '',
  ),
  raft(
    'a damaged record in the middle is cut off with all behind it',
    'segment',
    'if (!isLast || hasRecordAfter(bytes, number, at, end))',
    'if (false)',
  ),
  raft(
    'a missing segment is passed over',
    'wal',
    'else if (number !== previous.number + 1) {',
    'else if (false) {',
  ),
  raft(
    'a segment that lost its end is believed',
    'wal',
    'first.head.previousBytes !== previousBytes',
    'false',
  ),
  raft('a stump of a failed write stays', 'wal', '|| this.#hasStump ||', '||'),
  raft(
    'the tail of the leader before stays in the log',
    'wal',
    'this.#entries.length = Math.max(0, kept);',
    '',
  ),
  raft('segments go that are still needed', 'wal', 'if (first.lastIndex > index)', 'if (false)'),
  raft(
    'the vote is not on the disk',
    'ready-loop',
    '!ready.mustSync && ready.entries.length === 0 &&',
    'ready.entries.length === 0 &&',
  ),
  raft('acknowledged before the flush', 'ready-loop', 'await flush;', ''),
  raft(
    'a full disk ends the member',
    'ready-loop',
    "if (!isShoalError(error, 'disk-full') || this.#isStopped)",
    'if (true)',
  ),
  raft(
    'a damaged snapshot is not passed over',
    'snapshot',
    'for (const mark of [...marks].reverse()) {',
    'for (const mark of marks.slice(-1)) {',
  ),
  raft(
    'a snapshot opens elsewhere',
    'seal',
    "cipher.setAAD(Buffer.from(place, 'utf8'));\n    const sealed",
    'const sealed',
  ),
  raft('what was changed after it was sealed opens', 'seal', 'decipher.final();', ''),
  raft(
    'a slow disk is waited for on the spot',
    'flush-pace',
    'return this.#pooledLeft === 0;',
    'return true;',
  ),
  raft('a failed write on the spot counts', 'disk', 'return Promise.reject(named(this.#path, error));', ''),
  raft('a notice of a commit never leaves', 'outbox', 'else\n            this.flush();', ''),
  raft('a newer append does not stand for the notice before it', 'outbox', 'this.#held.delete(to);', ''),
  raft(
    'a notice waits though someone waits for it',
    'member',
    'isAwaited: () => this.#forwarded > 0,',
    'isAwaited: () => false,',
  ),
  raft('a nonce is used again', 'seal', 'counter += 1;', ''),
  raft(
    'the log is kept in memory for ever',
    'compaction',
    'if (compactTo >= storage.firstIndex())',
    'if (false)',
  ),
  raft('a snapshot counts before it is marked', 'compaction', 'this.#pendingMark = { index, term };', ''),
  raft('chunks out of order are believed', 'snapshot', 'offset !== this.#receivedBytes || ', ''),
  raft(
    'a disk in trouble is tried as soon again',
    'flush-pace',
    'this.#trial = Math.min(2 * this.#trial, longestTrial);',
    '',
  ),
  raft(
    'one slow flush leaves the disk to the pool',
    'flush-pace',
    'if (this.#lead < slowLead && durationMs < troubleMs)',
    'if (false)',
  ),
  raft(
    'an append is held like a notice',
    'outbox',
    'if (mayHold && message.entries?.length === 0) {',
    'if (mayHold) {',
  ),
  raft(
    'the older snapshot can not stand in for the newer',
    'compaction',
    'const [oldest, newest] = this.#marks;',
    'const [newest, oldest] = this.#marks;',
  ),
  raft(
    'a gap in the log is passed over',
    'recovery',
    'if (first !== undefined && first.index > base + 1)',
    'if (false)',
  ),
  raft(
    'a key ring that is sealed lies beside it in the clear',
    'seal',
    'file = { format: 1, sealed:',
    'file = { format: 1, plain: ring, sealed:',
  ),
  raft(
    'a new data key takes the place of the old one',
    'seal',
    'new Map([...dataKeys.keys, [number, random.bytes(keyBytes)]])',
    'new Map([[number, random.bytes(keyBytes)]])',
  ),
];

export const answers: readonly Mutant[] = [
  raft(
    'a proposal is answered with another one',
    'proposals',
    'if (data[at] !== this.#incarnation[at])',
    'if (false)',
  ),
  raft(
    'a lost proposal is called made',
    'proposals',
    "pending.reject(new ShoalError('unavailable', 'the leader changed before the change was committed; it was not made'",
    "pending.resolve({ index, result: undefined }); void (new ShoalError('unavailable', 'x'",
  ),
  raft(
    'a forwarded proposal is answered before it is seen here',
    'member',
    'await this.#waiters.wait(result.index, deadlineMs);',
    '',
  ),
  raft(
    'a read does not wait for what it must show',
    'member',
    'return await this.#waiters.wait(index, deadlineMs);',
    'return;',
  ),
  raft(
    'a change of unknown outcome is repeated',
    'proposals',
    "return isShoalError(error) && error.details.outcome === 'not-appended';",
    'return isShoalError(error);',
  ),
  raft(
    'an answer leaves before the flush',
    'ready-loop',
    "if (this.role === 'leader') {\n                // First",
    'this.#outbox.send(unsent);\n            unsent = [];\n            if (false) {\n                // First',
  ),
  raft(
    'nobody stands where a leader is gone',
    'succession',
    'this.#loop.report((core) => core.campaign());',
    'return;',
  ),
  store(
    'a stale update is taken',
    'draft',
    'previous.Version.Index !== change.object.Version.Index',
    'false',
  ),
  store('a removed object is still found', 'store', 'table.objects.delete(id);', ''),
  store('an index keeps the key of before', 'store', 'if (!after.includes(key))', 'if (false)'),
  store('an index is blind to a field', 'store', 'if (object[field] !== previous[field])', 'if (false)'),
  store('a refused entry does not count', 'store', 'this.lastIndex = index;\n        let draft', 'let draft'),
  store(
    'a snapshot leaves the index out',
    'store',
    'this.lastIndex = index;\n        this.tell',
    'this.tell',
  ),
  store(
    'a snapshot in pieces shows what came later',
    'snapshot',
    'kinds.map((kind) => ({ kind, runs: listed(kind) }))',
    'kinds.map((kind) => ({ kind, get runs() { return listed(kind); } }))',
  ),
  store(
    'a snapshot in pieces shows what changed while it was read',
    'objects',
    'values() {\n        return this.#listed();',
    'values() {\n        return (function* (slots) { for (const one of slots) if (one !== undefined) yield one; })(this.#page?.slots ?? this.#kept);',
  ),
  store('a snapshot with a hole in it is believed', 'snapshot', 'requireCounts(found, value);', ''),
];

/** What an entry may do, which all managers must decide alike. */
export const entries: readonly Mutant[] = [
  store('two objects of one name', 'draft', 'holder === undefined || holder === object.ID', 'true'),
  store('what is in use is removed', 'draft', 'if (usage)\n                return usage;', ''),
  store(
    'an address is given to two',
    'draft',
    'if (!this.claims)\n            return undefined;',
    'return undefined;',
  ),
  store(
    'a status goes backwards',
    'change',
    'compareTaskStates(Status.State, task.Status.State) < 0',
    'false',
  ),
  store(
    'a task that was stopped is wanted again',
    'change',
    'desiredStateRank[to] >= desiredStateRank[from]',
    'true',
  ),
  store(
    'a field that was taken away stays as nothing',
    'draft',
    'if (replaced[field] !== undefined)\n            copy[field] = replaced[field];',
    'copy[field] = replaced[field];',
  ),
  store(
    'a task is stopped for one that does not serve',
    'draft',
    'change.whileServes !== undefined && !this.serves(change.whileServes)',
    'false',
  ),
];
