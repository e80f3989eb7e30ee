/**
 * Containers that are no tasks, on networks that allow it (`docker run --network`): kept with their node, for their
 * addresses are claimed as those of tasks are. In: what a node's agent asks for, whole each time. Out: changes of the node,
 * one at a time, and the word of each request: its addresses, or why it has none.
 */
import type { ClusterNode, ContainerAttachment, Network } from '../../proto/docker.ts';
import { encryptedOption } from '../../proto/docker.ts';
import { isShoalError, messageOf, ShoalError } from '../../proto/errors.ts';
import type { Attachment } from '../../proto/generated/shoal/v1/Attachment.ts';
import type { AttachmentRequest } from '../../proto/generated/shoal/v1/AttachmentRequest.ts';
import { asId, type NetworkId, type NodeId } from '../../proto/ids.ts';
import { canEncrypt, dataPlaneOf } from '../store/data-plane.ts';
import type { View } from '../store/store.ts';
import type { StatusChange } from './status.ts';

/** A node may ask for anything: it is kept only so much of it. */
const maxAttachments = 1_000;
const maxNames = 20;
const maxNameCharacters = 255;

export interface ContainerAttachmentsOptions {
  readonly store: View;
  /** Resolves when the change is committed. */
  readonly commit: (change: StatusChange) => Promise<void>;
  /** There is something to be told to the node that is not in the store. */
  readonly onRefused: (nodeId: NodeId) => void;
}

export class ContainerAttachments {
  private readonly options: ContainerAttachmentsOptions;
  private readonly asked = new Map<NodeId, readonly AttachmentRequest[]>();
  private readonly working = new Set<NodeId>();
  /** Node → attachment → why it is not had. */
  private readonly refused = new Map<NodeId, Map<string, ShoalError>>();

  constructor(options: ContainerAttachmentsOptions) {
    this.options = options;
  }

  /** The node asks for these, and for no others any more. */
  ask(nodeId: NodeId, requests: readonly AttachmentRequest[]): void {
    this.asked.set(nodeId, requests.slice(0, maxAttachments));
    if (!this.working.has(nodeId)) void this.work(nodeId);
  }

  /** Nothing more is stored. */
  stop(): void {
    this.asked.clear();
    this.refused.clear();
  }

  /** The word of each of the node's requests that is decided. */
  answers(node: ClusterNode): Attachment[] {
    const asked = new Set(node.ContainerAttachments?.map(({ ID }) => ID));
    const stored = (node.ContainerAddresses ?? [])
      .filter(({ ID }) => asked.has(ID))
      .map(
        ({ ID, NetworkID, Addresses, Err }): Attachment => ({
          id: ID,
          network_id: NetworkID,
          addresses: Addresses,
          ...(Err === undefined ? {} : { problem: Err, problem_code: 'unavailable' }),
        }),
      );
    const refused = [...(this.refused.get(node.ID) ?? [])].map(
      ([id, { message, code }]): Attachment => ({ id, problem: message, problem_code: code }),
    );
    return [...stored, ...refused];
  }

  private async work(nodeId: NodeId): Promise<void> {
    this.working.add(nodeId);
    for (;;) {
      const requests = this.asked.get(nodeId);
      if (requests === undefined) break;
      await this.decide(nodeId, requests);
      if (this.asked.get(nodeId) === requests) this.asked.delete(nodeId);
    }
    this.working.delete(nodeId);
  }

  private async decide(nodeId: NodeId, requests: readonly AttachmentRequest[]): Promise<void> {
    const { store, commit, onRefused } = this.options;
    const node = store.get('node', nodeId);
    if (node === undefined) return;
    const before = node.ContainerAttachments ?? [];
    const refused = new Map<string, ShoalError>();
    const next = requests.flatMap((request): ContainerAttachment[] => {
      const id = request.id ?? '';
      const known = before.find(({ ID }) => ID === id);
      if (known) return [known];
      try {
        return [newAttachment(store, node, request)];
      } catch (error) {
        if (!isShoalError(error)) throw error;
        refused.set(id, error);
        return [];
      }
    });
    const isSame = next.length === before.length && next.every((one) => before.includes(one));
    if (!isSame) {
      const fields = { ContainerAttachments: next };
      await commit({ op: 'merge', kind: 'node', id: nodeId, fields }).catch((error: unknown) => {
        const reason = new ShoalError('unavailable', messageOf(error));
        for (const one of next) if (!before.includes(one)) refused.set(one.ID, reason);
      });
    }
    this.refused.set(nodeId, refused);
    if (refused.size > 0) onRefused(nodeId);
  }
}

/** The allocator gives it its addresses. Throws in the words that are for the user. */
function newAttachment(view: View, node: ClusterNode, request: AttachmentRequest): ContainerAttachment {
  const asked = request.network ?? '';
  const network = view.get('network', asId<NetworkId>(asked)) ?? view.find('network', 'name', asked)[0];
  if (network === undefined) throw new ShoalError('not-found', `network ${asked} not found`);
  const { Name } = network.Spec;
  if (!network.Spec.Attachable) {
    const reason = `rpc error: code = PermissionDenied desc = network ${Name} not manually attachable`;
    throw new ShoalError('permission-denied', `Could not attach to network ${Name}: ${reason}`);
  }
  refuseNode(node, network);
  return {
    ID: request.id ?? '',
    NetworkID: network.ID,
    Names: (request.names ?? []).slice(0, maxNames).map((name) => name.slice(0, maxNameCharacters)),
  };
}

function refuseNode(node: ClusterNode, { Spec }: Network): void {
  const plane = dataPlaneOf(node);
  const host = node.Description.Hostname;
  if (plane.kind !== 'vxlan') {
    throw new ShoalError(
      'permission-denied',
      `node ${host} has no networks between hosts: a container there can't join network ${Spec.Name}; "node inspect" says what is missing`,
    );
  }
  if (Spec.DriverConfiguration.Options?.[encryptedOption] !== undefined && !canEncrypt(node, plane)) {
    throw new ShoalError('permission-denied', `node ${host} can't encrypt, as network ${Spec.Name} wants it`);
  }
}
