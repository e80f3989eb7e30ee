import assert from 'node:assert/strict';
import { privilegedConfig } from '../../../agent/engine/privileges.ts';
import type { Privileges } from '../../../proto/privileges.ts';
import { wireTask } from '../node.ts';

const configOf = (privileges: Privileges, over: Parameters<typeof wireTask>[2] = {}) =>
  privilegedConfig(
    {
      ...wireTask('t1', 'web:1', over),
      annotations: { labels: { 'shoal.privileges': JSON.stringify(privileges) } },
    },
    ['label=disable'],
  );

describe('privileges of a container', () => {
  it('are none unless the managers say so, whatever the service is labelled with', () => {
    const labelled = { service_annotations: { name: 'web', labels: { 'shoal.privileged': 'true' } } };
    assert.deepEqual(privilegedConfig(wireTask('t1', 'web:1', labelled), []), { SecurityOpt: [] });
  });

  it('are told to the engine', () => {
    const asked: Privileges = {
      privileged: true,
      devices: [{ host: '/dev/a', container: '/dev/b', permissions: 'r' }],
      securityOpt: ['seccomp=unconfined'],
      ipc: 'host',
      pid: 'host',
      shmBytes: 1024,
    };
    assert.deepEqual(configOf(asked), {
      SecurityOpt: ['label=disable', 'seccomp=unconfined'],
      Privileged: true,
      Devices: [{ PathOnHost: '/dev/a', PathInContainer: '/dev/b', CgroupPermissions: 'r' }],
      IpcMode: 'host',
      PidMode: 'host',
      ShmSize: 1024,
    });
  });

  it('give the graphics processors that the scheduler gave the task', () => {
    const named = (kind: string, value: string) => ({ named_resource_spec: { kind, value } });
    const given = {
      assigned_generic_resources: [named('gpu', 'u1'), named('gpu', 'u3'), named('ssd', 's1')],
    };
    const requests = (over: Parameters<typeof wireTask>[2]) => configOf({ gpu: 'gpu' }, over).DeviceRequests;
    assert.deepEqual(requests(given), [{ Capabilities: [['gpu']], DeviceIDs: ['u1', 'u3'] }]);
    const counted = { assigned_generic_resources: [{ discrete_resource_spec: { kind: 'gpu', value: '2' } }] };
    assert.deepEqual(requests(counted), [{ Capabilities: [['gpu']], Count: 2 }]);
  });
});
