/**
 * Which tasks are out of date. A task is dirty when the revision it was made from differs from the
 * service's spec in what a container is made of. As in SwarmKit: a change of labels, of the number of
 * replicas or of the update's settings does not count, nor one of the placement alone while the task's
 * node still satisfies the constraints.
 */
import type { Service, ServiceSpec, Task } from '../../proto/docker.ts';
import type { RevisionId } from '../../proto/ids.ts';
import { matchesConstraints, parseConstraints } from './constraint.ts';
import type { View } from './store.ts';

type Difference = 'none' | 'placement' | 'container';

/** A test for tasks of `service`, which compares each revision once. */
export function dirtyTest(view: View, service: Service): (task: Task) => boolean {
  const known = new Map<RevisionId, Difference>();
  const constraints = parseConstraints(service.Spec.TaskTemplate.Placement?.Constraints);
  const differenceOf = (id: RevisionId): Difference => {
    const seen = known.get(id);
    if (seen) return seen;
    const revision = view.get('revision', id);
    const difference = revision ? compareSpecs(revision.Spec, service.Spec) : 'container';
    known.set(id, difference);
    return difference;
  };
  return (task) => {
    if (task.RevisionID === service.Private.RevisionID) return false;
    const difference = differenceOf(task.RevisionID);
    if (difference !== 'placement') return difference === 'container';
    const node = view.get('node', task.NodeID);
    return !node || !matchesConstraints(constraints, node);
  };
}

/** What of a task changes between two specs of its service. */
export function compareSpecs(left: ServiceSpec, right: ServiceSpec): Difference {
  if (!isAlike(left.EndpointSpec, right.EndpointSpec)) return 'container';
  const { Placement: leftPlacement, ...leftRest } = left.TaskTemplate;
  const { Placement: rightPlacement, ...rightRest } = right.TaskTemplate;
  if (!isAlike(leftRest, rightRest)) return 'container';
  return isAlike(leftPlacement, rightPlacement) ? 'none' : 'placement';
}

/** Equality in depth, where absent, empty and null are the same: clients differ in what they leave out. */
function isAlike(left: unknown, right: unknown): boolean {
  if (left === right) return true;
  if (isBlank(left) || isBlank(right)) return isBlank(left) && isBlank(right);
  if (Array.isArray(left) || Array.isArray(right)) {
    if (!Array.isArray(left) || !Array.isArray(right) || left.length !== right.length) return false;
    return left.every((item, at) => isAlike(item, right[at]));
  }
  if (!isRecord(left) || !isRecord(right)) return false;
  const keys = new Set([...Object.keys(left), ...Object.keys(right)]);
  return [...keys].every((key) => isAlike(left[key], right[key]));
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

function isBlank(value: unknown): boolean {
  if (value === undefined || value === null) return true;
  return typeof value === 'object' && Object.values(value).every(isBlank);
}
