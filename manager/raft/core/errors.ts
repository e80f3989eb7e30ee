/**
 * What the core and its storage throw. All are ShoalErrors, so that whoever lets one through shows a
 * sentence and not a trace.
 */
import { ShoalError } from '../../../proto/errors.ts';
import type { MemberId } from './types.ts';

/** The proposal was not appended and never will be; the proposer may try again later. */
export class ProposalDropped extends ShoalError {
  readonly reason: 'no-leader' | 'forwarding-disabled' | 'transferring' | 'removed' | 'too-much-uncommitted';

  constructor(reason: ProposalDropped['reason'], message: string) {
    super('unavailable', message);
    this.name = 'ProposalDropped';
    this.reason = reason;
  }
}

/** The message must not be stepped into this member. It changed nothing. */
export class StepError extends ShoalError {
  readonly reason: 'local-message' | 'unknown-member';

  constructor(reason: StepError['reason'], message: string) {
    super('failed-precondition', message);
    this.name = 'StepError';
    this.reason = reason;
  }
}

/** The entry at the index was folded into a snapshot. */
export class CompactedError extends ShoalError {
  constructor(index: number) {
    super('internal', `raft log entry ${index} is compacted into a snapshot`);
    this.name = 'CompactedError';
  }
}

/** The log holds no such entry; thrown by Storage.snapshot(): no snapshot can be had just now. */
export class UnavailableError extends ShoalError {
  constructor(what: string) {
    super('internal', `raft log: ${what} is not available`);
    this.name = 'UnavailableError';
  }
}

export type ConfChangeRefusal =
  | 'already-joint'
  | 'no-voters-yet'
  | 'not-joint'
  | 'simple-while-joint'
  | 'removes-all-voters'
  | 'several-voters'
  | 'inconsistent';

/** The membership change makes no sense for the group as it is. */
export class ConfChangeError extends ShoalError {
  readonly reason: ConfChangeRefusal;

  constructor(reason: ConfChangeRefusal, message: string) {
    super('failed-precondition', message);
    this.name = 'ConfChangeError';
    this.reason = reason;
  }
}

/** Something that cannot be unless memory, disk or a peer is broken: the member must stop. */
export function broken(id: MemberId, what: string): never {
  throw new ShoalError('corrupted', `raft member ${id}: ${what}`);
}
