/** What the managers let a task have of its host, as the engine's HostConfig says it. Pure. */
import { type Privileges, privilegesLabel } from '../../proto/privileges.ts';
import type { WireTask } from '../wire.ts';

/** The part of HostConfig; `securityOpt` are those that the task has anyway. */
export function privilegedConfig(task: WireTask, securityOpt: readonly string[]): Record<string, unknown> {
  const text = task.annotations?.labels?.[privilegesLabel];
  const asked = text === undefined ? {} : (JSON.parse(text) as Privileges);
  const { privileged, devices, ipc, pid, shmBytes, gpu } = asked;
  return {
    SecurityOpt: [...securityOpt, ...(asked.securityOpt ?? [])],
    ...(privileged && { Privileged: true }),
    ...(devices && {
      Devices: devices.map(({ host, container, permissions }) => ({
        PathOnHost: host,
        PathInContainer: container,
        CgroupPermissions: permissions,
      })),
    }),
    ...(ipc && { IpcMode: ipc }),
    ...(pid && { PidMode: pid }),
    ...(shmBytes !== undefined && { ShmSize: shmBytes }),
    ...(gpu !== undefined && { DeviceRequests: [graphicsRequest(task, gpu)] }),
  };
}

/** Those of the node's graphics processors that the scheduler gave this task: named ones by name, else as many. */
function graphicsRequest(task: WireTask, kind: string): Record<string, unknown> {
  const given = task.assigned_generic_resources ?? [];
  const ids = given.flatMap(({ named_resource_spec: named }) =>
    named?.kind === kind && named.value ? [named.value] : [],
  );
  const count = given.reduce(
    (sum, { discrete_resource_spec: one }) => sum + (one?.kind === kind ? Number(one.value ?? 0) : 0),
    0,
  );
  return { Capabilities: [['gpu']], ...(ids.length > 0 ? { DeviceIDs: ids } : { Count: count }) };
}
