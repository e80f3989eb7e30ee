/**
 * Graphics processors as compose files reserve them (`deploy.resources.reservations.devices`): so many of a generic resource,
 * which the scheduler gives out, and the option of services that says what that resource is. Pure.
 */
import { optionLabel } from '../store/service-options.ts';
import type { ComposeDeploy } from './schema.ts';
import type { Scope } from './scope.ts';
import type { Path } from './tree.ts';

/** The generic resource that they are where `deploy.labels` do not name another. */
export const usualKind = 'gpu';

export interface Graphics {
  readonly kind: string;
  readonly count: number;
}

/** How many a service reserves, and of what; undefined when none. What can't be scheduled is told where it stands. */
export function graphicsOf(
  scope: Scope,
  deployPath: Path,
  deploy: ComposeDeploy | undefined,
): Graphics | undefined {
  const devices = deploy?.resources?.reservations?.devices ?? [];
  if (devices.length === 0) return undefined;
  const at: Path = [...deployPath, 'resources', 'reservations', 'devices'];
  let sum = 0;
  for (const [index, { capabilities, count, device_ids: ids, driver }] of devices.entries()) {
    const tell = (key: string, words: string): void => scope.error([...at, index, key], words);
    if (!capabilities.includes('gpu')) {
      tell(
        'capabilities',
        'only graphics processors can be reserved so ([gpu]): give other devices under devices',
      );
    }
    if (driver !== undefined && driver !== 'nvidia')
      tell('driver', `must be nvidia, not ${JSON.stringify(driver)}`);
    if (ids !== undefined) {
      tell(
        'device_ids',
        "say how many (count): which ones is the scheduler's to decide, of those that nodes name",
      );
    } else if (typeof count === 'number' && count > 0) sum += count;
    else tell('count', 'must be how many: "all" of a node can\'t be scheduled');
  }
  return { kind: deploy?.labels?.[optionLabel('gpu')] ?? usualKind, count: sum };
}
