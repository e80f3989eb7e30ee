/**
 * Which services wait for which: `depends_on` of compose files, stored as the option `shoal.depends-on`. A task of a
 * service starts only when all that the service depends on is so far; one that runs is not stopped when that changes.
 *
 * A dependency is so far when, for its condition,
 * - service_started: one of its tasks has a container that was started, or has completed
 * - service_healthy: one of its tasks runs, which a task with a health check does once the check has passed
 * - service_completed_successfully: as many of its tasks completed as it wants; of a job those of its present run
 * on nodes that answer, for what is known of others may be long past.
 */
import type { Service, ServiceSpec, Task } from '../../proto/docker.ts';
import { assertNever } from '../../proto/errors.ts';
import { dirtyTest } from './revision.ts';
import { type Dependency, namesOfDependency, serviceOption } from './service-options.ts';
import type { View } from './store.ts';
import { modeName, slotKey } from './tables.ts';

/** The services that name `service` as what they depend on. */
export function dependentsOf(view: View, service: Pick<Service, 'Spec'>): Service[] {
  return view.find('service', 'dependency', service.Spec.Name);
}

/**
 * What a service still waits for before its tasks may start, in words, one line each; empty when it waits for
 * nothing. With `isUpdate` only tasks of the dependencies' present revisions count: what an update of the
 * service may need is there when they are up to date as well.
 */
export function unmetDependencies(view: View, service: Pick<Service, 'Spec'>, isUpdate = false): string[] {
  return serviceOption(service.Spec.Labels, 'dependsOn').flatMap((dependency) => {
    const lacking = lackOf(view, service.Spec, dependency, isUpdate);
    return lacking === undefined
      ? []
      : [`waiting for dependency ${dependency.service} (${dependency.condition}): ${lacking}`];
  });
}

function lackOf(
  view: View,
  spec: ServiceSpec,
  dependency: Dependency,
  isUpdate: boolean,
): string | undefined {
  const service = findDependency(view, spec, dependency);
  if (!service) return `there is no service ${namesOfDependency(spec.Labels, dependency)[0]}`;
  const tasks = view.find('task', 'service', service.ID).filter((task) => isOfPresentRun(service, task));
  const { condition } = dependency;
  switch (condition) {
    case 'service_started':
    case 'service_healthy': {
      const isDirty = isUpdate ? dirtyTest(view, service) : () => false;
      const isFar = condition === 'service_started' ? hasStarted : isHealthy;
      const counts = (task: Task) => isFar(task) && isReachable(view, task) && !isDirty(task);
      if (tasks.some(counts)) return undefined;
      if (service.Spec.Mode.Replicated?.Replicas === 0) return 'it has 0 replicas';
      const what = condition === 'service_started' ? 'has started' : 'runs and is healthy';
      return `none of its ${isUpdate ? 'updated ' : ''}tasks ${what}${lastTrouble(tasks)}`;
    }
    case 'service_completed_successfully':
      return lackOfCompletion(view, service, tasks);
    default:
      return assertNever(condition);
  }
}

function findDependency(view: View, spec: ServiceSpec, dependency: Dependency): Service | undefined {
  for (const name of namesOfDependency(spec.Labels, dependency)) {
    const [found] = view.find('service', 'name', name);
    if (found) return found;
  }
  return undefined;
}

function isOfPresentRun(service: Service, task: Task): boolean {
  return !service.JobStatus || task.JobIteration?.Index === service.JobStatus.JobIteration.Index;
}

function hasStarted(task: Task): boolean {
  const { State, ContainerStatus } = task.Status;
  return isHealthy(task) || (State === 'starting' && (ContainerStatus?.PID ?? 0) > 0);
}

function isHealthy(task: Task): boolean {
  return task.Status.State === 'running' || task.Status.State === 'complete';
}

function isReachable(view: View, task: Task): boolean {
  if (task.Status.State === 'complete') return true;
  return view.get('node', task.NodeID)?.Status.State === 'ready';
}

function lackOfCompletion(view: View, service: Service, tasks: readonly Task[]): string | undefined {
  const isDirty = dirtyTest(view, service);
  const places = new Set(tasks.map(slotKey));
  const done = new Set(
    tasks.filter((task) => task.Status.State === 'complete' && !isDirty(task)).map(slotKey),
  );
  const { ReplicatedJob, Replicated } = service.Spec.Mode;
  const byMode = {
    Replicated: Replicated?.Replicas ?? 1,
    ReplicatedJob: ReplicatedJob?.TotalCompletions ?? ReplicatedJob?.MaxConcurrent ?? 1,
    Global: Math.max(1, places.size),
    GlobalJob: Math.max(1, places.size),
  };
  const wanted = byMode[modeName(service.Spec.Mode)];
  if (done.size >= wanted) return undefined;
  return `${done.size} of ${wanted} completed${lastTrouble(tasks)}`;
}

/** What went wrong last with a service that others wait for. */
function lastTrouble(tasks: readonly Task[]): string {
  const failed = tasks.findLast(({ Status }) => Status.State === 'failed' || Status.State === 'rejected');
  const waiting = tasks.findLast(({ Status }) => Status.State === 'pending' && Status.Err);
  const words = waiting?.Status.Err ?? failed?.Status.Err;
  return words ? `; ${words}` : '';
}

/**
 * A circle of services that wait for each other, by name, the first again at the end (`web`, `db`, `web`): none of
 * them would ever start. `specs` are laid over what is stored. Undefined when there is none.
 */
export function circleOf(view: View, specs: readonly ServiceSpec[]): string[] | undefined {
  const changed = new Map(specs.map((spec) => [spec.Name, spec]));
  const specOf = (name: string) => changed.get(name) ?? view.find('service', 'name', name)[0]?.Spec;
  const clear = new Set<string>();
  const visit = (spec: ServiceSpec, path: readonly string[]): string[] | undefined => {
    const at = path.indexOf(spec.Name);
    if (at >= 0) return [...path.slice(at), spec.Name];
    if (clear.has(spec.Name)) return undefined;
    for (const dependency of serviceOption(spec.Labels, 'dependsOn')) {
      const name = namesOfDependency(spec.Labels, dependency).find((one) => specOf(one) !== undefined);
      const circle = name && visit(specOf(name)!, [...path, spec.Name]);
      if (circle) return circle;
    }
    clear.add(spec.Name);
    return undefined;
  };
  for (const spec of specs) {
    const circle = visit(spec, []);
    if (circle) return circle;
  }
  return undefined;
}

/** What a circle is refused with. */
export function describeCircle(circle: readonly string[]): string {
  return `services depend on each other in a circle, none of them would ever start: ${circle.join(' → ')}`;
}
