/** Makers of desired states for the data plane's tests. */
import type { Desired, DesiredNetwork, DesiredService, Endpoint } from '../../../agent/network/desired.ts';

export const here = 'node-1';

export function network(vxlanId: number, fields: Partial<DesiredNetwork> = {}): DesiredNetwork {
  const octet = vxlanId - 4096;
  return {
    id: `net${vxlanId}`,
    name: `network-${vxlanId}`,
    vxlanId,
    subnets: [`10.60.${octet}.0/24`],
    gateways: [`10.60.${octet}.254/24`],
    mtu: 1450,
    isInternal: false,
    isEncrypted: false,
    isIngress: false,
    labels: {},
    peers: [
      { nodeId: 'node-2', hostname: 'h2', underlay: '192.0.2.2', gateways: [], wireguardPublicKey: '' },
      { nodeId: 'node-3', hostname: 'h3', underlay: '192.0.2.3', gateways: [], wireguardPublicKey: '' },
    ],
    ...fields,
  };
}

export function endpoint(networkId: string, address: string, fields: Partial<Endpoint> = {}): Endpoint {
  return {
    taskId: `task-${address}`,
    name: 'web.1',
    nodeId: here,
    hostname: 'h1',
    slot: 1,
    addresses: { [networkId]: address.split(',') },
    isDraining: false,
    ...fields,
  };
}

export function service(name: string, fields: Partial<DesiredService> = {}): DesiredService {
  return {
    id: `id${name}`,
    name,
    stack: '',
    networks: [],
    ports: [],
    endpoints: [],
    options: {},
    ...fields,
  };
}

export function desired(networks: readonly DesiredNetwork[], services: readonly DesiredService[]): Desired {
  return { revision: '1', dataPathPort: 4789, networks, services };
}
