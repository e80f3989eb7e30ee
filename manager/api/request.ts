/**
 * What every resource asks of a request: who may answer it, its parameters, its body. Faults are
 * ShoalErrors in the Docker Engine's words.
 */
import type { Request } from 'express';
import { assertNever, type ErrorCode, isShoalError, ShoalError } from '../../proto/errors.ts';
import { lockedMessage } from '../../proto/identity.ts';
import { type Id, newId } from '../../proto/ids.ts';
import type { Change } from '../store/change.ts';
import type { ApiHost, ManagedCluster } from './contract.ts';
import { parseJson } from './json.ts';

const notManager =
  'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.';
const notManagerPending =
  'This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster.';
const notManagerWorker =
  "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.";

/**
 * The cluster that this node manages, its store holding everything acknowledged before the call. Throws
 * why there is none, as Docker says it.
 */
export async function managedCluster(host: ApiHost): Promise<ManagedCluster> {
  const cluster = clusterOf(host);
  await cluster.readBarrier();
  return cluster;
}

function clusterOf(host: ApiHost): ManagedCluster {
  const membership = host.membership();
  switch (membership.kind) {
    case 'manager':
      return membership.cluster;
    case 'none':
      throw new ShoalError('not-a-manager', notManager);
    case 'pending':
      throw new ShoalError('not-a-manager', notManagerPending);
    case 'worker':
      throw new ShoalError('not-a-manager', notManagerWorker);
    case 'locked':
      throw new ShoalError('locked', lockedMessage);
    case 'error':
      throw new ShoalError('not-a-manager', `${notManager} (${membership.message})`);
    default:
      return assertNever(membership);
  }
}

/** How SwarmKit names a code in the messages that Docker passes on. */
const swarmKitCodes: Partial<Record<ErrorCode, string>> = {
  'invalid-argument': 'InvalidArgument',
  'not-found': 'NotFound',
  'already-exists': 'AlreadyExists',
  'failed-precondition': 'FailedPrecondition',
  'in-use': 'InvalidArgument',
  'out-of-sequence': 'Unknown',
  'not-supported': 'Unimplemented',
};

/** A fault that Docker's managers tell, with the prefix that Docker's messages then carry. */
export function swarmError(code: ErrorCode, message: string): ShoalError {
  const name = swarmKitCodes[code];
  return new ShoalError(code, name ? `rpc error: code = ${name} desc = ${message}` : message);
}

/** A thrown fault of deciding code as swarmError tells it. */
export function asSwarmError(error: unknown): unknown {
  return isShoalError(error) && !error.message.startsWith('rpc error:') && swarmKitCodes[error.code]
    ? swarmError(error.code, error.message)
    : error;
}

/** Commits changes; refusals come in Docker's words. */
export async function commit(cluster: ManagedCluster, changes: readonly Change[]): Promise<void> {
  try {
    await cluster.propose(changes);
  } catch (error) {
    throw asSwarmError(error);
  }
}

/** What makes new ids, from the host's chance. */
export function idMaker(host: ApiHost): <I extends Id<string>>() => I {
  return <I extends Id<string>>() => newId<I>(host.random);
}

// ---------------------------------------------------------------- parameters

/** A query parameter; the first when it is given more than once. */
export function query(request: Request, name: string): string {
  const value = (request.query as Record<string, unknown>)[name];
  const first: unknown = Array.isArray(value) ? value[0] : value;
  return typeof first === 'string' ? first : '';
}

/** A path parameter. */
export function pathOf(request: Request, name: string): string {
  const value = (request.params as Record<string, string | string[] | undefined>)[name];
  return typeof value === 'string' ? value : '';
}

/** A flag where Docker takes nearly anything for true. */
export function looseFlag(request: Request, name: string): boolean {
  return !['', 'no', '0', 'false', 'none'].includes(query(request, name).trim().toLowerCase());
}

/** A flag where Docker insists on a boolean. */
export function strictFlag(request: Request, name: string): boolean {
  const value = query(request, name);
  if (['', '0', 'f', 'F', 'false', 'FALSE', 'False'].includes(value)) return false;
  if (['1', 't', 'T', 'true', 'TRUE', 'True'].includes(value)) return true;
  throw new ShoalError('invalid-argument', `invalid value for ${name}: ${value}`);
}

/** The object's version that an update names. */
export function versionOf(request: Request, what: string): number {
  const raw = query(request, 'version');
  if (/^\d+$/.test(raw) && Number.isSafeInteger(Number(raw))) return Number(raw);
  if (what === 'secret' || what === 'config') {
    throw new ShoalError('invalid-argument', `invalid ${what} version`);
  }
  const fault = /^\d+$/.test(raw) ? 'value out of range' : 'invalid syntax';
  throw new ShoalError(
    'invalid-argument',
    `invalid ${what} version '${raw}': strconv.ParseUint: parsing ${JSON.stringify(raw)}: ${fault}`,
  );
}

/** The minor version of the path; that of this API when the path has none. */
export function apiVersion(request: Request): number {
  return askedVersion(request) ?? maximumMinor;
}

/** As apiVersion; undefined when the path has none. */
export function askedVersion(request: Request): number | undefined {
  return (request as Request & { apiMinor?: number }).apiMinor;
}

/** Minor versions of API 1.x that are served. */
export const minimumMinor = 25;
export const maximumMinor = 51;

// ---------------------------------------------------------------- body

/** The request's body as text; empty when there is none. */
export function textBody(request: Request): string {
  const bytes: unknown = request.body;
  return bytes instanceof Uint8Array ? decode(bytes) : '';
}

/** The value of the request's JSON body. */
export function jsonBody(request: Request): unknown {
  const type = request.headers['content-type'] ?? '';
  const text = textBody(request);
  if (text.trim() === '') {
    throw new ShoalError('invalid-argument', 'invalid JSON: got EOF while reading request body');
  }
  if (type !== '' && !/^application\/json\s*(;|$)/i.test(type)) {
    throw new ShoalError(
      'invalid-argument',
      `unsupported Content-Type header (${type}): must be 'application/json'`,
    );
  }
  return parseJson(text);
}

/**
 * The spec of an update. dockerode sends the version, which is a parameter, in the body as well: there it says
 * nothing more, as long as it is the same.
 */
export function specBody(request: Request): unknown {
  const body = jsonBody(request);
  if (typeof body !== 'object' || body === null || Array.isArray(body)) return body;
  const { version, ...spec } = body as { version?: unknown };
  return version !== undefined && String(version) === query(request, 'version') ? spec : body;
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new ShoalError('invalid-argument', 'invalid JSON: the body is not UTF-8');
  }
}
