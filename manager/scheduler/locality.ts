/**
 * Where a task's networks reach: all tasks on a network of the cluster live on nodes that share a data plane, that
 * of the first; and a port published in ingress mode needs one that has a routing mesh.
 */
import { dataPlaneMissingLabel, encryptedOption } from '../../proto/docker.ts';
import { type Attachment, clusterAttachments, ingressNetwork } from '../store/attachment.ts';
import { canEncrypt, hasRoutingMesh } from '../store/data-plane.ts';
import { isIngressPort, needsIngress } from '../store/endpoint.ts';
import type { Check, Request } from './filters.ts';
import type { NodeEntry } from './node-table.ts';
import { groupBy, nodes } from './words.ts';

/** Ports published in ingress mode answer on every node, or the service is not placed. */
export function routingMesh({ view, spec }: Request): Check | undefined {
  if (!needsIngress(spec)) return undefined;
  const port = (spec.EndpointSpec?.Ports ?? []).find(isIngressPort)!;
  const what = `port ${port.PublishedPort || port.TargetPort} is published in ingress mode`;
  const hasNetwork = ingressNetwork(view) !== undefined;
  return {
    isStanding: false,
    passes: (entry) => hasNetwork && hasRoutingMesh(entry.plane),
    explain: (failed) => [
      hasNetwork
        ? `${what}, and ${nodes(failed.length)} ${failed.length === 1 ? 'has' : 'have'} no routing mesh${whyNone(failed)}: publish it in mode=host`
        : `${what}, and the cluster has no ingress network: make one with "docker network create --ingress --driver overlay NAME"`,
    ],
  };
}

/** A network's tasks stay on the data plane of those that it has; an encrypted one where nothing leaves in the clear. */
export function locality({ view, table, spec }: Request): Check | undefined {
  const attachments = clusterAttachments(view, spec);
  if (attachments.length === 0) return undefined;
  const homes = new Map(attachments.map(({ network }) => [network.ID, table.nodeOfNetwork(network.ID)]));
  const problem = (entry: NodeEntry): string | undefined => {
    const open = attachments.find(
      (attachment) => isEncrypted(attachment) && !canEncrypt(entry.node, entry.plane),
    );
    if (open) return `network ${open.network.Spec.Name} is to be encrypted, which is not possible`;
    const elsewhere = attachments.find(({ network }) => {
      const home = homes.get(network.ID);
      return home !== undefined && home.plane.key !== entry.plane.key;
    });
    if (!elsewhere) return undefined;
    const home = homes.get(elsewhere.network.ID)!;
    return `network ${elsewhere.network.Spec.Name} lives on ${describeHome(home)}, which is out of reach`;
  };
  return {
    isStanding: false,
    passes: (entry) => problem(entry) === undefined,
    explain: (failed) =>
      [...groupBy(failed, (entry) => `${problem(entry)} ${entry.plane.kind} ${missingOf(entry)}`)].map(
        ([, entries]) => `${problem(entries[0]!)} from ${describeThose(entries)}${ofPlane(entries[0]!)}`,
      ),
  };
}

function isEncrypted({ network }: Attachment): boolean {
  return network.Spec.DriverConfiguration.Options?.[encryptedOption] !== undefined;
}

function describeHome({ plane, node }: NodeEntry): string {
  switch (plane.kind) {
    case 'docker':
      return 'the overlay of Docker engines';
    case 'vxlan':
      return 'the overlay of Shoal agents';
    default:
      return `the engine of node ${node.Description.Hostname || node.ID}`;
  }
}

function describeThose(entries: readonly NodeEntry[]): string {
  const [first] = entries;
  return entries.length === 1
    ? `node ${first!.node.Description.Hostname || first!.id}`
    : nodes(entries.length);
}

/** Why an agent of ours has no networks between hosts, by its own words; empty when it did not say. */
function missingOf({ node }: NodeEntry): string {
  return node.Description.Engine.Labels[dataPlaneMissingLabel] ?? '';
}

/** The first of the reasons that nodes gave, for few have more than one. */
function whyNone(entries: readonly NodeEntry[]): string {
  const reason = entries.map(missingOf).find((one) => one !== '');
  return reason === undefined ? '' : ` (${reason})`;
}

function ofPlane(entry: NodeEntry): string {
  const missing = missingOf(entry);
  switch (entry.plane.kind) {
    case 'docker':
      return ' (a Docker engine)';
    case 'vxlan':
      return ' (on the overlay of Shoal agents)';
    default:
      return missing === '' ? ' (an engine of its own)' : ` (an engine of its own: ${missing})`;
  }
}
