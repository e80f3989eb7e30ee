/** Who asks: for the histories of services and stacks. */
import { TLSSocket } from 'node:tls';
import type { Request } from 'express';
import type { ManagedCluster } from './contract.ts';

/** The name in the client's certificate, or the node whose local socket it came by. */
export function authorOf(request: Request, cluster: ManagedCluster): string {
  const { socket } = request;
  if (socket instanceof TLSSocket) {
    const name = socket.getPeerCertificate().subject?.CN;
    if (name) return `certificate ${String(name)}`;
  }
  const node = cluster.store.get('node', cluster.nodeId);
  return `local socket of node ${node?.Description.Hostname || cluster.nodeId}`;
}
