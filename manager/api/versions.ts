/**
 * What the version in a request's path has to do with it. Pure. A field that the version does not have yet says
 * nothing there, as in Docker; unlike there, the client is told. Sources: Docker's API version history.
 */
import { ShoalError } from '../../proto/errors.ts';

/** A field of a body, step by step; `*` is every item of a list. */
type FieldPath = readonly string[];

interface VersionedField {
  /** Minor version of API 1.x that brought the field. */
  readonly since: number;
  readonly path: FieldPath;
}

function field(since: number, path: string): VersionedField {
  return { since, path: path.split('.') };
}

const container = 'TaskTemplate.ContainerSpec';

/** Fields of a service spec that came after 1.25. */
const serviceFields: readonly VersionedField[] = [
  field(40, `${container}.Sysctls`),
  field(40, `${container}.Privileges.CredentialSpec.Config`),
  field(40, `${container}.Configs.*.Runtime`),
  field(40, 'TaskTemplate.Placement.MaxReplicas'),
  field(41, `${container}.CapabilityAdd`),
  field(41, `${container}.CapabilityDrop`),
  field(41, `${container}.Ulimits`),
  field(41, 'TaskTemplate.Resources.Limits.Pids'),
  field(41, 'Mode.ReplicatedJob'),
  field(41, 'Mode.GlobalJob'),
  field(44, `${container}.Privileges.Seccomp`),
  field(44, `${container}.Privileges.AppArmor`),
  field(44, `${container}.Privileges.NoNewPrivileges`),
  field(44, `${container}.Healthcheck.StartInterval`),
  field(46, `${container}.OomScoreAdj`),
  field(46, `${container}.Mounts.*.TmpfsOptions.Options`),
];

const initFields: readonly VersionedField[] = [
  field(39, 'DefaultAddrPool'),
  field(39, 'SubnetSize'),
  field(40, 'DataPathPort'),
];

/** A body as its version understands it, and what was left out because of that, in words. */
export interface Understood {
  readonly body: unknown;
  readonly ignored: readonly string[];
}

/** A service spec in a request to API 1.`minor`. */
export function understoodService(body: unknown, minor: number): Understood {
  return understood(body, serviceFields, minor);
}

/** The body of POST /swarm/init to API 1.`minor`. */
export function understoodInit(body: unknown, minor: number): Understood {
  return understood(body, initFields, minor);
}

const templatingMinor = 37;

/** Secrets and configs that are templates came with API 1.37; before, Docker refuses them. */
export function refuseEarlyTemplating(what: 'secret' | 'config', templating: unknown, minor: number): void {
  if (templating === undefined || minor >= templatingMinor) return;
  const message = `${what} templating is not supported on the specified API version: 1.${minor}`;
  throw new ShoalError('invalid-argument', message);
}

function understood(body: unknown, fields: readonly VersionedField[], minor: number): Understood {
  const ignored: string[] = [];
  let rest = body;
  for (const { since, path } of fields) {
    if (since <= minor) continue;
    const next = without(rest, path);
    if (next === rest) continue;
    rest = next;
    ignored.push(
      `${path.join('.')} is ignored: it came with API 1.${since}, and this request is of API 1.${minor}`,
    );
  }
  return { body: rest, ignored };
}

/** `value` without what is at `path`; itself when nothing is there. */
function without(value: unknown, path: FieldPath): unknown {
  const [step, ...rest] = path;
  if (typeof value !== 'object' || value === null || step === undefined) return value;
  if (step === '*') {
    if (!Array.isArray(value)) return value;
    const items = value.map((item) => without(item, rest));
    return items.some((item, index) => item !== value[index]) ? items : value;
  }
  const fields = value as Record<string, unknown>;
  const key = Object.keys(fields).find((name) => name.toLowerCase() === step.toLowerCase());
  if (key === undefined || fields[key] === undefined || fields[key] === null) return value;
  if (rest.length === 0) {
    const { [key]: _dropped, ...kept } = fields;
    return kept;
  }
  const inner = without(fields[key], rest);
  return inner === fields[key] ? value : { ...fields, [key]: inner };
}
