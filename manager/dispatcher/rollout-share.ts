/**
 * How many of a service's new connections its tasks of the new revision get while an update is under way. Pure. In: the
 * service and its endpoints. Out: the endpoints, each with a weight where the service asks for a share. Without one every
 * task gets as many as any other.
 */
import type { Service } from '../../proto/docker.ts';
import type { OverlayEndpoint } from '../../proto/generated/shoal/v1/OverlayEndpoint.ts';
import type { TaskId } from '../../proto/ids.ts';
import { serviceOption } from '../store/service-options.ts';
import type { View } from '../store/store.ts';

/** `endpoints`, weighted so that those of the new revision get the share that the service asks for. */
export function withShares(
  view: View,
  { Spec, Private, UpdateStatus }: Service,
  endpoints: readonly OverlayEndpoint[],
): OverlayEndpoint[] {
  const share = serviceOption(Spec.Labels, 'rollout.share');
  const isUnderWay = UpdateStatus?.State === 'updating' || UpdateStatus?.State === 'paused';
  if (share === undefined || !isUnderWay) return [...endpoints];
  const isNew = ({ task_id }: OverlayEndpoint) =>
    view.get('task', task_id as TaskId)?.RevisionID === Private.RevisionID;
  const serving = endpoints.filter(({ is_draining }) => !is_draining);
  const fresh = serving.filter(isNew).length;
  const old = serving.length - fresh;
  // Where there is but one kind there is nothing to share.
  if (fresh === 0 || old === 0) return [...endpoints];
  const ofNew = share * old;
  const ofOld = (100 - share) * fresh;
  const divisor = commonDivisor(ofNew, ofOld);
  return endpoints.map((endpoint) => ({
    ...endpoint,
    weight: (isNew(endpoint) ? ofNew : ofOld) / divisor,
  }));
}

function commonDivisor(left: number, right: number): number {
  return right === 0 ? left : commonDivisor(right, left % right);
}
