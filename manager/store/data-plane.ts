/**
 * Which nodes' containers can reach each other over a network of the cluster: those that share a data plane. Here
 * because the scheduler keeps a network's tasks on one, and what is shown of a node must agree with it.
 */
import {
  type ClusterNode,
  dataPlaneLabel,
  dataPlaneMissingLabel,
  encryptionLabel,
  engineIdLabel,
} from '../../proto/docker.ts';

/**
 * - `local`: containers of one engine reach each other, by its own bridges.
 * - `vxlan`: our agents with a data plane between hosts.
 * - `docker`: stock engines, by Docker's own overlay. It and ours do not understand each other.
 */
export interface DataPlane {
  readonly kind: 'local' | 'vxlan' | 'docker';
  /** Equal for nodes that share it. */
  readonly key: string;
}

const vxlan: DataPlane = { kind: 'vxlan', key: 'vxlan' };
const docker: DataPlane = { kind: 'docker', key: 'docker' };

export function dataPlaneOf(node: ClusterNode): DataPlane {
  const { Labels, Plugins } = node.Description.Engine;
  const engine = Labels[engineIdLabel];
  if (engine !== undefined && Labels[dataPlaneLabel] === 'vxlan') return vxlan;
  const hasOverlay = Plugins.some(({ Type, Name }) => Type === 'Network' && Name === 'overlay');
  if (engine === undefined && hasOverlay) return docker;
  return { kind: 'local', key: `engine ${engineOf(node)}` };
}

/** Whether the node is an agent of ours with a data plane between hosts. */
export function hasDataPlane(node: ClusterNode): boolean {
  return dataPlaneOf(node).kind === 'vxlan';
}

/** Why a node has no data plane that managers could ask, in words. */
export function whyUnheard(node: ClusterNode): string {
  const missing = node.Description.Engine.Labels[dataPlaneMissingLabel];
  if (node.Status.State === 'down') return 'it is down';
  if (missing !== undefined) return `it has no networks between hosts: ${missing}`;
  switch (dataPlaneOf(node).kind) {
    case 'docker':
      return 'it is a Docker Engine';
    case 'local':
      return 'it has no networks between hosts';
    default:
      return 'its agent does not listen to the leader at present';
  }
}

/** The engine of a node: the one it names, or its own. */
export function engineOf(node: ClusterNode): string {
  return node.Description.Engine.Labels[engineIdLabel] || `node:${node.ID}`;
}

/** Whether ports published in ingress mode are answered by every node of a plane. */
export function hasRoutingMesh(plane: DataPlane): boolean {
  return plane.kind !== 'local';
}

/** Whether the node carries a network's traffic encrypted, or nothing of it leaves the host. */
export function canEncrypt(node: ClusterNode, plane: DataPlane): boolean {
  return plane.kind !== 'vxlan' || node.Description.Engine.Labels[encryptionLabel] !== undefined;
}
