/**
 * Certificates of a simulated cluster: what they say as text in place of X.509, for real ones are made with real chance
 * and in real time. Who gets one, who renews and when, who may come back: all of that is the product's own. They expire
 * by the clock of whoever looks.
 */
import type { AgentIdentityOptions, IdentityCalls } from '../../agent/identity.ts';
import type { Authority } from '../../manager/ca/service.ts';
import type { Manager } from '../../manager/manager.ts';
import { isExpired, type NodeCertificate } from '../../proto/certificate.ts';
import type { Cluster, NodeRole } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import type { NodeId } from '../../proto/ids.ts';
import { type NodeIdentity, noCertificate } from '../../proto/rpc.ts';
import type { RunningManager } from './machine.ts';
import type { Endpoint } from './network.ts';
import type { Places } from './wires.ts';

const backdateMs = 3_600_000;
const defaultLifeNs = 90 * 86_400_000 * 1e6;
const callTimeoutMs = 5_000;

interface Text extends NodeCertificate {
  /** Whose key it is for. */
  readonly key: string;
}

function textOf(pem: string): Text {
  return JSON.parse(pem) as Text;
}

function keyOfRequest(requestPem: string): string {
  return requestPem.replace('request for ', '');
}

function verifyIdentity({ certificatePem, keyPem }: NodeIdentity): NodeCertificate {
  const { key, ...facts } = textOf(certificatePem);
  if (key !== keyPem) throw new ShoalError('invalid-argument', 'the certificate is for another key');
  return facts;
}

/** A certificate for the key of a request. */
export function certificateText(
  cluster: Cluster,
  { requestPem, nodeId, role }: { requestPem: string; nodeId: NodeId; role: NodeRole },
  now: number,
): string {
  const certificate: Text = {
    nodeId,
    clusterId: cluster.ID,
    role,
    notBeforeMs: now - backdateMs,
    notAfterMs: now + (cluster.Spec.CAConfig.NodeCertExpiry ?? defaultLifeNs) / 1e6,
    key: keyOfRequest(requestPem),
  };
  return JSON.stringify(certificate);
}

/** How the managers of a run make and read certificates. */
export const simulatedAuthority: Authority = {
  sign: (cluster, node, { now }) => Promise.resolve(certificateText(cluster, node, now)),
  async issueLocally(cluster, node, context) {
    const keyPem = `own key of ${node.nodeId} at ${context.now}`;
    const requestPem = `request for ${keyPem}`;
    const certificatePem = await simulatedAuthority.sign(cluster, { requestPem, ...node }, context);
    return { requestPem, identity: { certificatePem, keyPem, rootsPem: '' } };
  },
  read: textOf,
  digest: (pem) => pem,
  leadsToRoots: () => true,
  isSigned: ({ certificatePem, signature }) =>
    textOf(certificatePem).key === Buffer.from(signature).toString(),
};

/** A node's files: they outlive its processes. */
export class MemoryFiles implements NonNullable<AgentIdentityOptions['files']> {
  #stored: NodeIdentity | undefined;

  read(): Promise<{ identity: NodeIdentity; sealedUnder: undefined } | undefined> {
    return Promise.resolve(this.#stored && { identity: this.#stored, sealedUnder: undefined });
  }

  write(identity: NodeIdentity): Promise<void> {
    this.#stored = identity;
    return Promise.resolve();
  }

  clear(): Promise<void> {
    this.#stored = undefined;
    return Promise.resolve();
  }

  writeNextKey(): Promise<void> {
    return Promise.resolve();
  }

  finishKey(): Promise<void> {
    return Promise.resolve();
  }

  writeRoots(): Promise<void> {
    return Promise.resolve();
  }
}

/** Refuses as TLS does: a server whose certificate the client takes for expired is no server to it. */
export function refuseServer(client: { now(): number }, server: NodeIdentity | undefined): void {
  if (server && !isExpired(textOf(server.certificatePem), client.now())) return;
  throw new ShoalError('unavailable', 'no connection: certificate has expired');
}

/** As callers.ts: a client whose certificate the server takes for expired has none. */
export function refuseClient(client: NodeIdentity, server: { now(): number }): void {
  if (!isExpired(textOf(client.certificatePem), server.now())) return;
  throw new ShoalError('permission-denied', 'this method needs a client certificate of the cluster', {
    details: { reason: noCertificate },
  });
}

/** The calls of the node at `self`, whose requests get numbers from `nextKey`. */
export function identityCalls(
  places: Places,
  self: Endpoint & { readonly clock: { now(): number } },
  nextKey: () => string,
): IdentityCalls {
  const ask = <T>(
    address: string,
    work: (manager: Manager, server: RunningManager) => Promise<T>,
  ): Promise<T> => {
    const to = places.machineAt(address);
    return places.network.call(
      self,
      to,
      () => places.managerOn(to),
      callTimeoutMs,
      (server) => {
        refuseServer(self.clock, places.shownBy(to));
        return work(server.manager, server);
      },
    );
  };
  return {
    verifyIdentity,
    makeRequest: () => {
      const keyPem = nextKey();
      return Promise.resolve({ keyPem, requestPem: `request for ${keyPem}` });
    },
    requestCertificate: (address, { requestPem, keyPem, token, availability, identity }) =>
      ask(address, async ({ certificates }, { process }) => {
        const isVerified =
          identity !== undefined && !isExpired(textOf(identity.certificatePem), process.now());
        const applicant =
          token === '' && isVerified
            ? ({ kind: 'member', ...memberOf(identity) } as const)
            : ({ kind: 'joiner', token } as const);
        const nodeId = await certificates.issue({ applicant, requestPem, availability, isShoal: true });
        const { certificatePem, requestPem: echoed } = await certificates.status(nodeId);
        if (echoed !== requestPem) throw new ShoalError('unavailable', 'another request was faster');
        return { certificatePem, keyPem, rootsPem: '' };
      }),
    requestReturn: (address, { requestPem, keyPem }, held) =>
      ask(address, async ({ certificates }) => {
        const signature = Buffer.from(held.keyPem);
        const certificatePem = await certificates.comeBack({
          certificatePem: held.certificatePem,
          requestPem,
          signature,
        });
        return { certificatePem, keyPem, rootsPem: '' };
      }),
  };
}

function memberOf({ certificatePem }: NodeIdentity): {
  nodeId: NodeId;
  clusterId: string;
  certificateDigest: string;
} {
  const { nodeId, clusterId } = textOf(certificatePem);
  return { nodeId, clusterId, certificateDigest: certificatePem };
}
