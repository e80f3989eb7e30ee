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
 * - `proxy`: as `local`, but ports published in ingress mode are answered, by a TCP proxy.
 * - `vxlan`: our agents with a data plane between hosts.
 * - `docker`: stock engines, by Docker's own overlay. It and ours do not understand each other.
 */
export interface DataPlane {
  readonly kind: 'local' | 'proxy' | 'vxlan' | 'docker';
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
  const isProxy = engine !== undefined && Labels[dataPlaneLabel] === 'proxy';
  return { kind: isProxy ? 'proxy' : 'local', key: `engine ${engineOf(node)}` };
}

/** Of all our agents that answer published ports: it differs from the key of any plane. */
const publishingKey = 'publishing';

/** Equal for planes whose tasks may be on one network: on the ingress network our proxies are with our other nodes. */
export function networkKey(plane: DataPlane, isIngress: boolean): string {
  return isIngress && (plane.kind === 'proxy' || plane.kind === 'vxlan') ? publishingKey : plane.key;
}

/** Whether the node is an agent of ours that is told of endpoints: one with networks between hosts, or a proxy. */
export function hasDataPlane(node: ClusterNode): boolean {
  const { kind } = dataPlaneOf(node);
  return kind === 'vxlan' || kind === 'proxy';
}

/** Whether the node answers published ports by a proxy. */
export function isProxy(node: ClusterNode): boolean {
  return dataPlaneOf(node).kind === 'proxy';
}

/** Why a node has no data plane that managers could ask, in words. */
export function whyUnheard(node: ClusterNode): string {
  const missing = node.Description.Engine.Labels[dataPlaneMissingLabel];
  if (node.Status.State === 'down') return 'it is down';
  if (missing !== undefined && !isProxy(node)) return `it has no networks between hosts: ${missing}`;
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

/** Whether tasks of a plane are reached by its network for ports published in ingress mode. */
export function hasRoutingMesh(plane: DataPlane): boolean {
  return plane.kind === 'vxlan' || plane.kind === 'docker';
}

/** Whether the node carries a network's traffic encrypted, or nothing of it leaves the host. */
export function canEncrypt(node: ClusterNode, plane: DataPlane): boolean {
  return plane.kind !== 'vxlan' || node.Description.Engine.Labels[encryptionLabel] !== undefined;
}
