/** What of its host a compose file asks for a service, as the options of services that say so. */
import { optionLabel, type ServiceOptions } from '../store/service-options.ts';
import { usualKind } from './graphics.ts';
import type { ComposeService } from './schema.ts';
import type { Scope } from './scope.ts';
import type { Path } from './tree.ts';

type Key = 'devices' | 'ipc' | 'pid' | 'privileged' | 'security_opt' | 'shm_size';

const optionOf: Readonly<Record<Key, keyof ServiceOptions>> = {
  devices: 'devices',
  ipc: 'ipc',
  pid: 'pid',
  privileged: 'privileged',
  security_opt: 'securityOpt',
  shm_size: 'shmSize',
};

/** The labels for `devices`, `privileged` and the like; what they say is checked where labels are. */
export function privilegeLabels(scope: Scope, path: Path, service: ComposeService): Record<string, string> {
  const labels: Record<string, string> = {};
  if (service.deploy?.resources?.reservations?.devices?.length) {
    labels[optionLabel('gpu')] = service.deploy.labels?.[optionLabel('gpu')] ?? usualKind;
  }
  for (const key of Object.keys(optionOf) as Key[]) {
    const value = service[key];
    if (value === undefined || value === false || (Array.isArray(value) && value.length === 0)) continue;
    const label = optionLabel(optionOf[key]);
    if (service.deploy?.labels?.[label] !== undefined) {
      scope.error(
        [...path, key],
        `says the same as the label ${label} under deploy.labels: keep one of the two`,
      );
    }
    labels[label] = Array.isArray(value) ? value.join(',') : String(value);
  }
  return labels;
}
