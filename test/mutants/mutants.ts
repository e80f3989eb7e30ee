/**
 * Bugs as people make them, planted one at a time into the compiled raft, log and store; each must be found by a test.
 *
 * `file` is below dist/manager, `search` stands in it exactly once, `replace` takes its place. What each breaks says its
 * name. Pure data.
 */
export interface Mutant {
  readonly name: string;
  readonly file: string;
  readonly search: string;
  readonly replace: string;
}

const core = (name: string, file: string, search: string, replace: string): Mutant => ({
  name,
  file: `raft/core/${file}.js`,
  search,
  replace,
});
const raft = (name: string, file: string, search: string, replace: string): Mutant => ({
  name,
  file: `raft/${file}.js`,
  search,
  replace,
});
const store = (name: string, file: string, search: string, replace: string): Mutant => ({
  name,
  file: `store/${file}.js`,
  search,
  replace,
});

const recovering = (name: string, file: string, search: string, replace: string): Mutant => ({
  name,
  file: `${file}.js`,
  search,
  replace,
});

const elections: readonly Mutant[] = [
  core('two votes in one term', 'election', '(core.vote === 0 && core.lead === 0)', 'true'),
  core(
    'a vote for a shorter log',
    'election',
    'free && core.log.isUpToDate(message.logTerm ?? 0, message.index ?? 0)',
    'free',
  ),
  core('a vote that is forgotten', 'election', 'core.vote = message.from;', ''),
  core('a pre-vote binds like a vote', 'election', 'if (granted && !isPreVote) {', 'if (granted) {'),
  core(
    'a candidate does not raise its term',
    'election',
    'core.reset(core.term + 1);',
    'core.reset(core.term);',
  ),
  core('a refusal counts as a vote', 'election', 'message.reject !== true);', 'true);'),
  core(
    'a pre-candidate leads without a vote',
    'election',
    "result === 'won' && core.role === 'pre-candidate'",
    'false',
  ),
  core('a learner stands for election', 'state', 'own !== undefined && !own.isLearner', 'own !== undefined'),
  core('the vote outlives its term', 'state', 'this.vote = 0;', ''),
  core('half is a majority', 'quorum', '(voters.length >> 1) + 1', '(voters.length + 1) >> 1'),
  core(
    'one half of a joint group elects',
    'quorum',
    "first === 'lost' || second === 'lost' ? 'lost' : 'pending'",
    'first',
  ),
  core('the lease is ignored', 'step', 'if (inLease && !isTransfer(message))', 'if (false)'),
  core('a transfer is held up by the lease', 'step', 'if (inLease && !isTransfer(message))', 'if (inLease)'),
  core(
    'a later term is not taken over',
    'step',
    'state.becomeFollower(message.term, isLeaders ? message.from : 0);',
    '',
  ),
  core('a pre-vote raises the term', 'step', "if (type === 'MsgPreVote' ||", 'if ('),
  core('an earlier term is heard', 'step', 'message.term !== 0 && message.term < state.term', 'false'),
  core(
    'a stranded candidate is left deaf',
    'step',
    "(checkQuorum || preVote) && (type === 'MsgHeartbeat' || type === 'MsgApp')",
    'false',
  ),
];

const replicating: readonly Mutant[] = [
  core('a minority commits', 'quorum', 'sorted[count >> 1]', 'sorted[(count - 1) >> 1]'),
  core(
    'one half of a joint group commits',
    'quorum',
    'Math.min(index, majorityCommitted(outgoing, acked))',
    'index',
  ),
  core(
    'entries of an earlier term commit by counting',
    'log',
    'index <= this.committed || !this.matches(term, index)',
    'index <= this.committed',
  ),
  core(
    'the commit index falls',
    'log',
    'if (index <= this.committed)\n            return;\n        const last',
    'if (false)\n            return;\n        const last',
  ),
  core(
    'the log is not compared before it grows',
    'log',
    'if (!this.matches(previousTerm, previousIndex))',
    'if (false)',
  ),
  core(
    'what conflicts stays',
    'log',
    'while (at < entries.length && this.matches(entries[at].term, entries[at].index))',
    'while (at < entries.length && this.term(entries[at].index) !== undefined)',
  ),
  core(
    'more is committed than was sent',
    'log',
    'this.commitTo(Math.min(committed, last));',
    'this.commitTo(Math.min(committed, this.lastIndex));',
  ),
  core(
    'a heartbeat commits what a follower lacks',
    'replication',
    'Math.min(progress.match, core.log.committed)',
    'core.log.committed',
  ),
  core('match falls back', 'progress', 'if (index <= this.match)\n            return false;', ''),
  core(
    'a straggling refusal sets a follower back',
    'progress',
    'if (rejected <= this.match)\n                return false;',
    '',
  ),
  core(
    'a window without an end',
    'progress',
    'this.#count >= this.#limits.messages || this.#bytes >= this.#limits.bytes',
    'false',
  ),
  core('a window that is never freed', 'progress', 'this.#count--;', ''),
  core('a window that forgets its bytes', 'progress', 'this.#bytes += sizeBytes;', ''),
  core(
    'an unreachable follower is sent to blindly',
    'leader',
    "if (progress.state === 'replicate')\n                progress.becomeProbe();\n            return;\n        case 'MsgTransferLeader'",
    "return;\n        case 'MsgTransferLeader'",
  ),
  core(
    'a leader begins without an entry of its own',
    'leader',
    "append(core, [{ type: 'normal', data: noBytes }]);",
    '',
  ),
  core(
    'its own write counts before it is durable',
    'leader',
    "core.messagesAfterAppend.push({\n        type: 'MsgAppResp',\n        to: core.id,",
    "core.messages.push({\n        type: 'MsgAppResp',\n        to: core.id,",
  ),
  core(
    'an acknowledgement leaves before the flush',
    'receive',
    "core.messagesAfterAppend.push({ type: 'MsgAppResp', to, from: core.id, term: core.term, index });",
    "core.messages.push({ type: 'MsgAppResp', to, from: core.id, term: core.term, index });",
  ),
  core(
    'a snapshot of the past is taken',
    'receive',
    'if (index <= core.log.committed)\n        return false;',
    '',
  ),
  core(
    'a snapshot forgets the members',
    'receive',
    'core.membership = restoreMembership(confState, core.log.lastIndex, core.limits);',
    '',
  ),
  core(
    'a leader without a quorum stays',
    'leader',
    'if (core.config.checkQuorum)\n            checkQuorum(core);',
    '',
  ),
  core(
    'a stale write counts as the new one',
    'unstable',
    'index < this.#offset || this.#entries[index - this.#offset]?.term !== term',
    'index < this.#offset',
  ),
  core(
    'a read without asking the others',
    'read-index',
    'Math.min(quorum, this.#confirmed + this.#pending.length) - this.#confirmed',
    'this.#pending.length',
  ),
  core(
    'a read before the leader knows what is committed',
    'leader-reads',
    'core.log.term(core.log.committed) === core.term',
    'true',
  ),
  core(
    'an answer confirms reads that were asked after it',
    'read-index',
    'const count = decodeCount(context);',
    'const count = this.#confirmed + this.#pending.length;',
  ),
  core('a read that comes too early is forgotten', 'leader-reads', 'core.earlyReads.push(request);', ''),
  core(
    'a snapshot that went out is not gone on from',
    'progress',
    "const sent = this.state === 'snapshot' ? this.pendingSnapshot : 0;",
    'const sent = 0;',
  ),
  core(
    'a commit that went with a refused append counts as told',
    'progress',
    'this.next = this.match + 1;\n            this.#regressCommit();',
    'this.next = this.match + 1;',
  ),
];

const members: readonly Mutant[] = [
  core('two changes at once', 'leader', '(alreadyPending || !fits)', '(!fits)'),
  core('a new leader takes a change at once', 'leader', 'core.pendingConfIndex = core.log.lastIndex;', ''),
  core(
    'a joint group is never left',
    'leader',
    "if (core.role !== 'leader' || !core.membership.configuration.autoLeave)",
    'if (true)',
  ),
  core('two voters change outside of a joint change', 'membership', 'if (added + removed > 1)', 'if (false)'),
  core(
    'the last voter is removed',
    'membership',
    'if (draft.voters.size === 0)\n        throw noVotersLeft();\n}\nfunction makeVoter',
    '}\nfunction makeVoter',
  ),
  core(
    'a demoted voter is a learner too early',
    'membership',
    'draft.learnersNext.add(member);',
    'draft.learners.add(member);',
  ),
  raft(
    'a learner votes before it has caught up',
    'contacts',
    "known.state === 'replicate' && known.match + promotionLagEntries >= applied",
    'true',
  ),
  raft(
    'a removal that loses the quorum',
    'reach',
    'if (reachable >= quorumOf(remaining.length))',
    'if (true)',
  ),
  raft('a number is given again', 'membership-changes', 'if (removed.has(member.raftId))', 'if (false)'),
  raft(
    'a removed member is not told',
    'member',
    'this.#settings.transport.send(removed, [notice]);\n            return;',
    'return;',
  ),
  core(
    'a smaller quorum commits nothing by itself',
    'reconfigure',
    'if (advanceCommit(core)) {',
    'if (false) {',
  ),
  core('a transfer to one that is gone goes on', 'reconfigure', 'core.leadTransferee = 0;', ''),
  core(
    'a leader that is no member leads on against its setting',
    'reconfigure',
    'core.config.stepDownOnRemoval === true',
    'false',
  ),
  core(
    'who left with the outgoing half is sent to for ever',
    'membership',
    'if (!draft.voters.has(member) && !draft.learners.has(member))\n            draft.progress.delete(member);',
    '',
  ),
  core(
    'the outgoing half is not heard any more',
    'membership',
    'if (!draft.outgoing.has(member))\n        draft.progress.delete(member);',
    'draft.progress.delete(member);',
  ),
  core(
    'a newcomer counts as silent',
    'membership',
    'new Inflights(context.limits), true)',
    'new Inflights(context.limits), false)',
  ),
  raft(
    'a change that was struck out is called made',
    'membership-changes',
    'this.#queue.unshift(current.job);\n    }',
    'current.job.resolve();\n    }',
  ),
  raft(
    'a silent member counts as there',
    'contacts',
    '< 2 * electionTicks * tickMs',
    '< 2_000 * electionTicks * tickMs',
  ),
  raft(
    'who was removed is forgotten',
    'directory',
    'if (known !== undefined)\n                removed.set(raftId, known);',
    '',
  ),
];

const log: readonly Mutant[] = [
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

const answers: readonly Mutant[] = [
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
  store('a snapshot with a hole in it is believed', 'snapshot', 'requireCounts(found, value);', ''),
];

/** Autolock, recovery by force, backups. */
const recoveries: readonly Mutant[] = [
  recovering(
    'a data key that lay in the clear seals on',
    'manager',
    'unlockKey !== undefined && wasOpen ? withNewDataKey(dataKeys, random) : dataKeys',
    'dataKeys',
  ),
  recovering(
    'another unlock key is not taken over',
    'manager',
    'await (sealIdentity ? sealIdentity(unlockKey, sealDataKeys) : sealDataKeys());',
    '',
  ),
  recovering(
    'the node’s key is sealed and the log’s is not',
    'manager',
    'sealIdentity ? sealIdentity(unlockKey, sealDataKeys) : sealDataKeys()',
    'sealIdentity ? sealIdentity(unlockKey, async () => {}) : sealDataKeys()',
  ),
  recovering(
    'an empty survivor makes an empty cluster',
    'manager',
    "if (this.store.cluster() !== undefined && this.store.get('node', this.nodeId) !== undefined)",
    'if (true)',
  ),
  recovering(
    'a backup does not wait for what was acknowledged',
    'manager',
    'await this.raft.readBarrier();\n        const { appliedIndex, term, members }',
    'const { appliedIndex, term, members }',
  ),
  recovering(
    'a survivor drops what it did not know to be committed',
    'raft/recovery',
    'const index = storage.lastIndex();\n    const base = storage.firstIndex();',
    'const index = storage.initialState().hardState.commit;\n    const base = storage.firstIndex();',
  ),
  recovering(
    'a group made by force is in the term of the old one',
    'raft/recovery',
    'Math.max(term, mark.term) + 1',
    'Math.max(term, mark.term)',
  ),
  recovering(
    'a group made by force keeps who is lost',
    'raft/recovery',
    'directory = onlyMember(directory, self);\n    const snapshot',
    'const snapshot',
  ),
  recovering(
    'the versions of a restored cluster are given twice',
    'backup/restore',
    'index: facts.index + indexGap,',
    'index: facts.index + 1,',
  ),
  recovering(
    'who managed before a restore still does',
    'backup/restore',
    "Spec: { ...Spec, Role: 'worker' },",
    'Spec,',
  ),
];

/** What an entry may do, which all managers must decide alike. */
const entries: readonly Mutant[] = [
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

export const mutants: readonly Mutant[] = [
  ...elections,
  ...replicating,
  ...members,
  ...log,
  ...answers,
  ...recoveries,
  ...entries,
];
