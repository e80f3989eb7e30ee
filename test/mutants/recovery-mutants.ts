/** Bugs of autolock, recovery by force and backups. */
import { type Mutant, mutantsOf } from './mutant.ts';

const manager = mutantsOf('');

export const recoveries: readonly Mutant[] = [
  manager(
    'a data key that lay in the clear seals on',
    'manager',
    'unlockKey !== undefined && wasOpen ? withNewDataKey(dataKeys, random) : dataKeys',
    'dataKeys',
  ),
  manager(
    'another unlock key is not taken over',
    'manager',
    'await (sealIdentity ? sealIdentity(unlockKey, sealDataKeys) : sealDataKeys());',
    '',
  ),
  manager(
    'the node’s key is sealed and the log’s is not',
    'manager',
    'sealIdentity ? sealIdentity(unlockKey, sealDataKeys) : sealDataKeys()',
    'sealIdentity ? sealIdentity(unlockKey, async () => {}) : sealDataKeys()',
  ),
  manager(
    'an empty survivor makes an empty cluster',
    'manager',
    "if (this.store.cluster() !== undefined && this.store.get('node', this.nodeId) !== undefined)",
    'if (true)',
  ),
  manager(
    'a backup does not wait for what was acknowledged',
    'manager',
    'await this.raft.readBarrier();\n        const { appliedIndex, term, members }',
    'const { appliedIndex, term, members }',
  ),
  manager(
    'a survivor drops what it did not know to be committed',
    'raft/recovery',
    'const index = storage.lastIndex();\n    const base = storage.firstIndex();',
    'const index = storage.initialState().hardState.commit;\n    const base = storage.firstIndex();',
  ),
  manager(
    'a group made by force is in the term of the old one',
    'raft/recovery',
    'Math.max(term, mark.term) + 1',
    'Math.max(term, mark.term)',
  ),
  manager(
    'a group made by force keeps who is lost',
    'raft/recovery',
    'directory = onlyMember(directory, self);\n    const snapshot',
    'const snapshot',
  ),
  manager(
    'the versions of a restored cluster are given twice',
    'backup/restore',
    'index: facts.index + indexGap,',
    'index: facts.index + 1,',
  ),
  manager(
    'who managed before a restore still does',
    'backup/restore',
    "Spec: { ...Spec, Role: 'worker' },",
    'Spec,',
  ),
];
