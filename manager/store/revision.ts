/**
 * Which tasks are out of date. A task is dirty when the revision it was made from differs from the
 * service's spec in what a container is made of. As in SwarmKit: a change of labels, of the number of
 * replicas or of the update's settings does not count, nor one of the registry's credentials, which only the next
 * pull needs (moby#31063), nor one of the placement alone while the task's node still satisfies the constraints, nor another way of writing the same.
 */
import type { ContainerSpec, Service, ServiceSpec, Task } from '../../proto/docker.ts';
import type { RevisionId } from '../../proto/ids.ts';
import { matchesConstraints, parseConstraints } from './constraint.ts';
import { canonicalServiceSpec, sameValue } from './normalize.ts';
import { privilegesOf } from './privileges.ts';
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
  const [one, other] = [partsOf(left), partsOf(right)];
  if (!sameValue(one.endpoint, other.endpoint) || !sameValue(one.container, other.container)) {
    return 'container';
  }
  return sameValue(one.placement, other.placement) ? 'none' : 'placement';
}

function partsOf(spec: ServiceSpec): { endpoint: unknown; container: unknown; placement: unknown } {
  const { EndpointSpec, TaskTemplate } = canonicalServiceSpec(spec) as Partial<ServiceSpec>;
  const { Placement, ContainerSpec, ...rest } = (TaskTemplate ?? {}) as Partial<ServiceSpec['TaskTemplate']>;
  const { PullOptions: _credentials, ...container } = (ContainerSpec ?? {}) as Partial<ContainerSpec>;
  const privileges = privilegesOf(spec.Labels ?? {});
  return { endpoint: EndpointSpec, container: { ...rest, container, privileges }, placement: Placement };
}
