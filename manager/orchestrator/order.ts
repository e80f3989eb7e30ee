/** When services that wait for others are to be looked at again: what those did may let them go. */
import type { Service, ServiceMode } from '../../proto/docker.ts';
import { dependentsOf } from '../store/dependencies.ts';
import type { View } from '../store/store.ts';
import { modeName } from '../store/tables.ts';
import type { StoreEvent } from '../store/watch.ts';

/** Ids of the services of a mode for which an event may fulfil what they wait for. */
export function waitersFor(event: StoreEvent, view: View, mode: keyof ServiceMode): string[] {
  return freed(event, view)
    .filter((service) => modeName(service.Spec.Mode) === mode)
    .map((service) => service.ID);
}

function freed(event: StoreEvent, view: View): readonly Service[] {
  switch (event.kind) {
    case 'service':
      return dependentsOf(view, event.object);
    case 'task': {
      const { object, previous } = event;
      const isNews =
        object.Status.State !== previous?.Status.State ||
        object.Status.ContainerStatus?.PID !== previous.Status.ContainerStatus?.PID;
      const counts = ['starting', 'running', 'complete'].includes(object.Status.State);
      const service = isNews && counts ? view.get('service', object.ServiceID) : undefined;
      return service ? dependentsOf(view, service) : [];
    }
    case 'node': {
      const { object, previous } = event;
      const isBack = object.Status.State === 'ready' && previous?.Status.State !== 'ready';
      if (!isBack) return [];
      const ids = new Set(view.find('task', 'node', object.ID).map((task) => task.ServiceID));
      return [...ids].flatMap((id) => {
        const service = view.get('service', id);
        return service ? dependentsOf(view, service) : [];
      });
    }
    default:
      return [];
  }
}
