/**
 * The one error class, and the table that says for each code what it is over HTTP and gRPC and whether
 * asking again may help. Messages are for the person at the terminal: what is wrong, where, what to do.
 */

interface CodeRow {
  /** HTTP status of the answer. */
  readonly http: number;
  /** gRPC status code, by number (grpc.status). */
  readonly grpc: number;
  /** Whether the same request may succeed later, unchanged. */
  readonly retriable: boolean;
}

/** code → how it looks on each door. HTTP statuses are those of the Docker Engine for the same fault. */
export const errorTable = {
  'invalid-argument': { http: 400, grpc: 3, retriable: false },
  unauthenticated: { http: 401, grpc: 16, retriable: false },
  'permission-denied': { http: 403, grpc: 7, retriable: false },
  'not-found': { http: 404, grpc: 5, retriable: false },
  'already-exists': { http: 409, grpc: 6, retriable: false },
  conflict: { http: 409, grpc: 10, retriable: false },
  'too-large': { http: 413, grpc: 3, retriable: false },
  'failed-precondition': { http: 400, grpc: 9, retriable: false },
  /** Something else uses the object (Docker answers 400 with InvalidArgument for secrets in use). */
  'in-use': { http: 400, grpc: 9, retriable: false },
  /** The version that an update names is not the current one; Docker answers 500 "update out of sequence". */
  'out-of-sequence': { http: 500, grpc: 9, retriable: false },
  /** What only one may have (an address, a vxlan id) was given to another meanwhile: deciding anew helps. */
  taken: { http: 409, grpc: 10, retriable: true },
  'not-a-manager': { http: 503, grpc: 9, retriable: false },
  'already-in-swarm': { http: 503, grpc: 9, retriable: false },
  locked: { http: 503, grpc: 9, retriable: false },
  'not-leader': { http: 503, grpc: 14, retriable: true },
  'no-quorum': { http: 503, grpc: 14, retriable: true },
  'disk-full': { http: 503, grpc: 8, retriable: true },
  unavailable: { http: 503, grpc: 14, retriable: true },
  timeout: { http: 503, grpc: 4, retriable: true },
  'not-supported': { http: 501, grpc: 12, retriable: false },
  corrupted: { http: 500, grpc: 15, retriable: false },
  internal: { http: 500, grpc: 13, retriable: false },
} as const satisfies Record<string, CodeRow>;

export type ErrorCode = keyof typeof errorTable;

/** Whether a word from elsewhere is one of the codes. */
export function isErrorCode(text: string): text is ErrorCode {
  return Object.hasOwn(errorTable, text);
}

/** Every error that is meant to be understood by someone: a code and a sentence. */
export class ShoalError extends Error {
  readonly code: ErrorCode;
  /** Extra facts for machines, e.g. {leader: 'host:port'}; never secrets. */
  readonly details: Readonly<Record<string, string>>;

  constructor(
    code: ErrorCode,
    message: string,
    options: { cause?: unknown; details?: Record<string, string> } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'ShoalError';
    this.code = code;
    this.details = options.details ?? {};
  }

  get httpStatus(): number {
    return errorTable[this.code].http;
  }

  get grpcStatus(): number {
    return errorTable[this.code].grpc;
  }

  get retriable(): boolean {
    return errorTable[this.code].retriable;
  }
}

/** Whether `error` is a ShoalError, of `code` when one is given. */
export function isShoalError(error: unknown, code?: ErrorCode): error is ShoalError {
  return error instanceof ShoalError && (code === undefined || error.code === code);
}

/** The sentence of any thrown value. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Closes a switch over a tagged union: the compiler refuses a case that was forgotten. */
export function assertNever(value: never): never {
  throw new ShoalError('internal', `unexpected variant: ${JSON.stringify(value)}`);
}
