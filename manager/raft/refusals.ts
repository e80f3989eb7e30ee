/** What a member says when it cannot do what it was asked: for the person at the terminal, and for retries. */
import { messageOf, ShoalError } from '../../proto/errors.ts';
import type { Member } from './contract.ts';

/** Nothing was appended: whoever asked may ask again, here or elsewhere. */
const notAppended = { outcome: 'not-appended' };

export function notLeader(leader: Member | undefined): ShoalError {
  if (leader === undefined) {
    return new ShoalError('not-leader', 'this manager is not the leader, nor knows one', {
      details: notAppended,
    });
  }
  return new ShoalError('not-leader', `this manager is not the leader; ${leader.address} is`, {
    details: { ...notAppended, leader: leader.address },
  });
}

export function wasRemoved(): ShoalError {
  return new ShoalError(
    'not-a-manager',
    'this manager was removed from the cluster; join it anew to manage it',
    { details: notAppended },
  );
}

export function hasFailed(failure: unknown): ShoalError {
  return new ShoalError('internal', `this manager has stopped: ${messageOf(failure)}`, { cause: failure });
}

export function shuttingDown(): ShoalError {
  return new ShoalError('unavailable', 'this manager is shutting down', { details: notAppended });
}

export function tooLarge(sizeBytes: number, limitBytes: number): ShoalError {
  return new ShoalError(
    'too-large',
    `a change of ${sizeBytes} bytes is too large: at most ${limitBytes} bytes can be changed at once`,
  );
}

/** To who asks while the disk is full. */
export function refusedByDisk(cause: ShoalError): ShoalError {
  return new ShoalError('disk-full', cause.message, { cause, details: { ...cause.details, ...notAppended } });
}

/** The leader made the change, but this member has not got there. */
export function notSeenYet(index: number, cause: unknown): ShoalError {
  return new ShoalError(
    'timeout',
    `the change was made, but this manager has not applied it yet (${messageOf(cause)}); do not repeat it`,
    { cause, details: { outcome: 'made', index: String(index) } },
  );
}

/** For who had asked before the member came to a stop for `cause`: it may have been appended. */
export function leftOpen(cause: ShoalError): ShoalError {
  return new ShoalError(cause.code, `${cause.message}; whether a change under way was made is unknown`, {
    cause,
    details: { ...cause.details, outcome: 'unknown' },
  });
}
