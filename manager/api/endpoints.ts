/**
 * Which requests are whose. Pure. The API's doors ask before anything is read: what is not in this list is the
 * container engine's, and goes there as it came. Of the two that both have a part in, networks and events, the
 * cluster's side asks the engine for its share.
 */

/** Resources that the cluster answers, by the first part of the path. */
const clusterResources: ReadonlySet<string> = new Set([
  '_ping',
  'configs',
  'events',
  'info',
  'networks',
  'nodes',
  'secrets',
  'services',
  'stacks',
  'swarm',
  'tasks',
  'version',
]);

/** A request's target without its query, taken apart. */
export interface Target {
  /** Minor version of /v1.NN in front of it; undefined when there is none. */
  readonly version: { readonly major: number; readonly minor: number } | undefined;
  /** The rest, which begins with a slash. */
  readonly path: string;
}

/** Takes /v1.NN off a request's target, e.g. /v1.41/containers/json?all=1. */
export function readTarget(target: string): Target {
  const [whole] = target.split('?', 1) as [string];
  const match = /^\/v(\d+)\.(\d+)(?=\/|$)/.exec(whole);
  if (!match) return { version: undefined, path: whole };
  const version = { major: Number(match[1]), minor: Number(match[2]) };
  return { version, path: whole.slice(match[0].length) || '/' };
}

/** Whether the container engine answers requests for `path`, which carries no version. */
export function isEngines(path: string): boolean {
  return !clusterResources.has(path.split('/', 2)[1] ?? '');
}

const answeredLocked = /^\/(_ping|version|info|events|networks|swarm\/unlock|swarm\/leave)(\/|$)/;

/**
 * Whether a manager answers requests for `path` while it is locked: how it is, the ways in and out, and what its
 * engine has a part in, of which only the cluster's is refused.
 */
export function isAnsweredLocked(path: string): boolean {
  return answeredLocked.test(path);
}

const takenOver = /^\/(?:containers\/[^/]+\/attach|exec\/[^/]+\/start)$/;

/**
 * Whether the engine makes the connection of such a request a bare stream in both directions, even when the
 * request does not say `Upgrade`, and answers then with 200 and not 101.
 */
export function isTakenOver(method: string, path: string): boolean {
  return method === 'POST' && takenOver.test(path);
}
