/**
 * ShoalError ↔ gRPC status, both ways, and the wrappers that let a handler be written as a function that
 * returns or throws. Our own code travels in the metadata `shoal-code`, each detail in `shoal-<name>` (so the
 * leader's address is `shoal-leader`); a stock engine reads the status alone.
 */
import * as grpc from '@grpc/grpc-js';
import { type ErrorCode, errorTable, isShoalError, messageOf, ShoalError } from './errors.ts';

/** A manager of ours says its version in it at the head of a session; a Docker Engine sends no such header. */
export const managerHeader = 'shoal-manager';
const metadataPrefix = 'shoal-';
const codeKey = 'shoal-code';

/** gRPC status → the code it is read as when the other side did not say `shoal-code`. */
const codeOfStatus: Readonly<Record<number, ErrorCode>> = {
  [grpc.status.CANCELLED]: 'unavailable',
  [grpc.status.INVALID_ARGUMENT]: 'invalid-argument',
  [grpc.status.DEADLINE_EXCEEDED]: 'timeout',
  [grpc.status.NOT_FOUND]: 'not-found',
  [grpc.status.ALREADY_EXISTS]: 'already-exists',
  [grpc.status.PERMISSION_DENIED]: 'permission-denied',
  [grpc.status.RESOURCE_EXHAUSTED]: 'too-large',
  [grpc.status.FAILED_PRECONDITION]: 'failed-precondition',
  [grpc.status.ABORTED]: 'conflict',
  [grpc.status.UNIMPLEMENTED]: 'not-supported',
  [grpc.status.UNAVAILABLE]: 'unavailable',
  [grpc.status.DATA_LOSS]: 'corrupted',
  [grpc.status.UNAUTHENTICATED]: 'unauthenticated',
};

/** What a gRPC call is ended with for `error`. An error that is not ours becomes INTERNAL. */
export function toGrpcStatus(error: unknown): grpc.ServerErrorResponse {
  const shoalError =
    error instanceof ShoalError ? error : new ShoalError('internal', messageOf(error), { cause: error });
  const metadata = new grpc.Metadata();
  metadata.set(codeKey, shoalError.code);
  for (const [name, value] of Object.entries(shoalError.details)) {
    const key = `${metadataPrefix}${name.toLowerCase()}`;
    if (key !== codeKey && /^[ -~]*$/.test(value) && /^[a-z0-9-]+$/.test(key)) metadata.set(key, value);
  }
  return Object.assign(new Error(shoalError.message), {
    code: shoalError.grpcStatus,
    details: shoalError.message,
    metadata,
  });
}

/** The ShoalError of what a gRPC client call failed with; a value that is no gRPC error becomes `internal`. */
export function fromGrpcError(error: unknown): ShoalError {
  if (isShoalError(error)) return error;
  if (!isServiceError(error)) return new ShoalError('internal', messageOf(error), { cause: error });
  const details: Record<string, string> = {};
  let code = codeOfStatus[error.code] ?? 'internal';
  for (const [key, value] of Object.entries(error.metadata?.getMap() ?? {})) {
    if (key === codeKey) {
      if (String(value) in errorTable) code = String(value) as ErrorCode;
    } else if (key.startsWith(metadataPrefix)) {
      details[key.slice(metadataPrefix.length)] = String(value);
    }
  }
  return new ShoalError(code, inWords(error.details || error.message), { cause: error, details });
}

const socketErrors: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused: nothing listens there',
  EHOSTUNREACH: 'no route to host',
  ENETUNREACH: 'network unreachable',
  ETIMEDOUT: 'connection timed out',
};

/** What grpc-js says of a connection that did not come about, as a person would put it. */
function inWords(details: string): string {
  const failure = /^No connection established\. Last error: (?:Error: )?(.*?)\. Resolution note:/.exec(
    details,
  )?.[1];
  if (failure !== undefined) {
    const known = Object.keys(socketErrors).find((code) => failure.includes(code));
    return known ? `${socketErrors[known]} (${failure})` : `no connection: ${failure}`;
  }
  const lateBy = /^Deadline exceeded after ([\d.]+)s/.exec(details)?.[1];
  if (lateBy !== undefined) return `no answer within ${Number(lateBy).toFixed(1)} s`;
  const target = /^Name resolution failed for target dns:(.*)$/.exec(details)?.[1];
  return target === undefined ? details : `the name in ${target} can't be resolved to an address`;
}

function isServiceError(error: unknown): error is grpc.ServiceError {
  return error instanceof Error && typeof (error as { code?: unknown }).code === 'number';
}

/** A unary handler from a function that returns the answer or throws. */
export function unaryHandler<Request, Response>(
  answer: (request: Request, call: grpc.ServerUnaryCall<Request, Response>) => Promise<Response> | Response,
): grpc.handleUnaryCall<Request, Response> {
  return (call, callback) => {
    Promise.resolve()
      .then(() => answer(call.request, call))
      .then(
        (response) => callback(null, response),
        (error: unknown) => callback(toGrpcStatus(error)),
      );
  };
}

/** A server-streaming handler whose throw or rejection ends the stream with the error's status. */
export function streamHandler<Request, Response>(
  serve: (call: grpc.ServerWritableStream<Request, Response>) => Promise<void> | void,
): grpc.handleServerStreamingCall<Request, Response> {
  return (call) => {
    Promise.resolve()
      .then(() => serve(call))
      .catch((error: unknown) => failStream(call, error));
  };
}

/** Ends a streaming call with the status of `error`. */
export function failStream(call: { emit(event: 'error', error: unknown): boolean }, error: unknown): void {
  call.emit('error', toGrpcStatus(error));
}
