/** What the tests of the log share: a member, entries, keys, and a log opened over a simulated disk. */
import type { Member } from '../../../manager/raft/contract.ts';
import type { Entry } from '../../../manager/raft/core/types.ts';
import type { LogBatch } from '../../../manager/raft/log-record.ts';
import { createSealer, type DataKeys, type Sealer } from '../../../manager/raft/seal.ts';
import { seededRandom } from '../../simulation/random.ts';

export const self: Member = { raftId: 7, nodeId: 'node-7', address: '10.0.0.7:2377' };

export const testKeys: DataKeys = { current: 0, keys: new Map([[0, new Uint8Array(32).fill(9)]]) };

export function testSealer(seed = 1): Sealer {
  return createSealer(testKeys, seededRandom(seed));
}

export function entry(index: number, text = `entry ${index}`, term = 1): Entry {
  return { term, index, type: 'normal', data: Buffer.from(text) };
}

export function batchOf(...entries: readonly Entry[]): LogBatch {
  const last = entries.at(-1);
  const hardState = last === undefined ? undefined : { term: last.term, vote: 7, commit: last.index - 1 };
  return { hardState, mark: undefined, entries };
}

/** Entries in a form that compares. */
export function texts(entries: readonly Entry[]): string[] {
  return entries.map((one) => `${one.term}/${one.index} ${Buffer.from(one.data).toString()}`);
}
