/**
 * Where a task's networks reach: all tasks on a network of the cluster live on nodes that share a data plane, that
 * of the first; and a port published in ingress mode needs one that has a routing mesh.
 */
import { hasAbility } from '../../proto/agent-abilities.ts';
import { dataPlaneMissingLabel, encryptedOption, type PortConfig } from '../../proto/docker.ts';
import { type Attachment, clusterAttachments, ingressNetwork } from '../store/attachment.ts';
import { canEncrypt, hasRoutingMesh, networkKey } from '../store/data-plane.ts';
import { isIngressPort, needsIngress } from '../store/endpoint.ts';
import { serviceOption } from '../store/service-options.ts';
import type { Check, Request } from './filters.ts';
import type { NodeEntry } from './node-table.ts';
import { groupBy, hasOrHave, nodes, whyUnable } from './words.ts';

/**
 * Ports published in ingress mode answer on every node, or the service is not placed. Nodes with a routing mesh do not
 * reach tasks on those with a proxy, which therefore take them where there is no other node, or each answers for itself,
 * or every node has a proxy for the service, since its tasks are told the client's address.
 */
export function routingMesh({ view, table, spec }: Request): Check | undefined {
  if (!needsIngress(spec)) return undefined;
  const ports = (spec.EndpointSpec?.Ports ?? []).filter(isIngressPort);
  const nameOf = (port: PortConfig) => port.PublishedPort || port.TargetPort;
  const what = `port ${nameOf(ports[0]!)} is published in ingress mode`;
  if (ingressNetwork(view) === undefined) {
    return {
      isStanding: false,
      passes: () => false,
      explain: () => [
        `${what}, and the cluster has no ingress network: make one with "docker network create --ingress --driver overlay NAME"`,
      ],
    };
  }
  const udp = ports.find(({ Protocol }) => Protocol === 'udp');
  const ingress = serviceOption(spec.Labels, 'ingress');
  let hasMesh: boolean | undefined;
  const isUnreached = (): boolean => {
    hasMesh ??= [...table.nodes.values()].some(({ plane }) => hasRoutingMesh(plane));
    return hasMesh && ingress === 'all';
  };
  const passesProxy = () => udp === undefined && !isUnreached();
  // Nobody else sends a header: tasks would wait for one.
  const isUnable = ({ node, plane }: NodeEntry) =>
    ingress === 'proxy-protocol' &&
    plane.kind !== 'local' &&
    !hasAbility(node.Description.Engine.Labels, 'proxy-protocol');
  return {
    isStanding: false,
    passes: (entry) =>
      !isUnable(entry) && (hasRoutingMesh(entry.plane) || (entry.plane.kind === 'proxy' && passesProxy())),
    explain: (failed) =>
      [...groupBy(failed, (entry) => (isUnable(entry) ? whyUnable(entry.node) : entry.plane.kind))].map(
        ([kind, entries]) => {
          const those = nodes(entries.length);
          const have = hasOrHave(entries.length);
          const why = whyNone(entries);
          if (entries.some(isUnable)) {
            return `${what} with a PROXY protocol header (label shoal.ingress=proxy-protocol), and ${those} ${have} ${kind}`;
          }
          if (kind !== 'proxy')
            return `${what}, and ${those} ${have} no routing mesh${why}: publish it in mode=host`;
          const proxy = `a TCP proxy in place of a routing mesh${why}`;
          return udp === undefined
            ? `${what}, and ${those} ${have} ${proxy}, whose tasks the nodes with a mesh do not reach: publish it in mode=host, or label the service shoal.ingress=local`
            : `port ${nameOf(udp)}/udp is published in ingress mode, and ${those} ${have} ${proxy}: publish it in mode=host`;
        },
      ),
  };
}

/** Our agents send TCP and UDP on; SCTP in ingress mode is for stock engines. */
export function meshProtocols({ spec }: Request): Check | undefined {
  const ports = (spec.EndpointSpec?.Ports ?? []).filter(isIngressPort);
  const sctp = ports.find(({ Protocol }) => Protocol === 'sctp');
  if (sctp === undefined) return undefined;
  const what = `port ${sctp.PublishedPort || sctp.TargetPort}/sctp is published in ingress mode`;
  return {
    isStanding: false,
    passes: ({ plane }) => plane.kind === 'docker',
    explain: (failed) => [
      `${what}, and ${nodes(failed.length)} ${hasOrHave(failed.length)} a mesh for TCP and UDP alone: publish it in mode=host`,
    ],
  };
}

/** A network's tasks stay on the data plane of those that it has; an encrypted one where nothing leaves in the clear. */
export function locality({ view, table, spec }: Request): Check | undefined {
  const attachments = clusterAttachments(view, spec);
  if (attachments.length === 0) return undefined;
  // Asked for anew each time: tasks of a global service are placed one after the other by one check.
  const homeOf = ({ network }: Attachment) => table.nodeOfNetwork(network.ID);
  const problem = (entry: NodeEntry): string | undefined => {
    const open = attachments.find((attachment) => isEncrypted(attachment) && !keepsSecret(entry, attachment));
    if (open) return `network ${open.network.Spec.Name} is to be encrypted, which is not possible`;
    const elsewhere = attachments.find((attachment) => {
      const home = homeOf(attachment);
      const keyOf = ({ plane }: NodeEntry) => networkKey(plane, attachment.network.Spec.Ingress === true);
      return home !== undefined && keyOf(home) !== keyOf(entry);
    });
    if (!elsewhere) return undefined;
    const home = homeOf(elsewhere)!;
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

/** What is published is reached past the ingress network where a proxy is: in the clear. */
function keepsSecret({ node, plane }: NodeEntry, { network }: Attachment): boolean {
  return canEncrypt(node, plane) && !(plane.kind === 'proxy' && network.Spec.Ingress === true);
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
