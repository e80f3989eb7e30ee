/** Nodes, networks and tasks with a data plane, for the tests of endpoints. */

import { newMeta } from '../../../manager/store/change.ts';
import type { ClusterNode, Network, Service, Task } from '../../../proto/docker.ts';
import { dataPlaneLabel, engineIdLabel, vxlanIdListOption } from '../../../proto/docker.ts';
import { asId } from '../../../proto/ids.ts';
import { emptyDescription, makeNode, makeRevision, makeService, makeTask, type TestBed } from './cluster.ts';

export const networkId = 'net1';
/** Of an engine whose node has the data plane between hosts. */
export const overlayLabels = { [engineIdLabel]: 'engine', [dataPlaneLabel]: 'vxlan' };
/** Node `n1` has 10.1.0.251 on the network, `n2` 10.1.0.252. */
export function overlayNode(number: number, fields: Partial<ClusterNode> = {}): ClusterNode {
  const id = `n${number}`;
  return makeNode(id, {
    Description: {
      ...emptyDescription,
      Hostname: `h${number}`,
      Engine: {
        EngineVersion: '20.10',
        Labels: overlayLabels,
        Plugins: [],
      },
    },
    Status: { State: 'ready', Addr: `192.0.2.${number}` },
    Attachments: [{ NetworkID: asId(networkId), Addresses: [`10.1.0.${250 + number}/24`] }],
    ...fields,
  });
}

export function overlayNetwork(): Network {
  return {
    ...newMeta(asId(networkId)),
    Spec: { Name: 'front', Labels: {}, DriverConfiguration: { Name: 'overlay', Options: {} } },
    DriverState: { Name: 'overlay', Options: { [vxlanIdListOption]: '4097' } },
    IPAMOptions: { Driver: { Name: 'default' }, Configs: [{ Subnet: '10.1.0.0/24' }] },
  } as unknown as Network;
}

export function overlayService(): Service {
  const base = makeService('service1', 'revision1');
  return {
    ...base,
    Spec: {
      ...base.Spec,
      TaskTemplate: { ...base.Spec.TaskTemplate, Networks: [{ Target: networkId }] },
    },
    Endpoint: {
      Spec: { Mode: 'vip' },
      VirtualIPs: [{ NetworkID: asId(networkId), Addr: '10.1.0.2/24' }],
    },
  } as Service;
}

/** A running task of it: task1 on n1 has 10.1.0.11. */
export function overlayTask(id: string, nodeId: string, address: string): Task {
  return {
    ...makeTask(id, nodeId, 'running'),
    NetworksAttachments: [{ NetworkID: asId(networkId), Addresses: [`${address}/24`] }],
  } as unknown as Task;
}

/** A store with `nodes` nodes, the network, the service, and one task of it on each node: t1 on n1, … */
export function fill(bed: TestBed, nodes: number): void {
  bed.commit({ op: 'create', kind: 'network', object: overlayNetwork() });
  bed.commit(
    { op: 'create', kind: 'revision', object: makeRevision('revision1') },
    { op: 'create', kind: 'service', object: overlayService() },
  );
  for (let number = 1; number <= nodes; number += 1) {
    bed.commit({ op: 'create', kind: 'node', object: overlayNode(number) });
    bed.commit({
      op: 'create',
      kind: 'task',
      object: overlayTask(`t${number}`, `n${number}`, `10.1.0.${10 + number}`),
    });
  }
}
