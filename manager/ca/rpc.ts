/**
 * The certificate service on the cluster's port: SwarmKit's CA and NodeCA. In: calls, most of them from nodes
 * that have no certificate yet. Out: the service's answers in the protocol's shapes. Decides nothing.
 */
import type { NodeAvailability } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import { versionMetadataKey } from '../../proto/identity.ts';
import {
  type HandlersOf,
  peerCertificateDigest,
  peerIdentity,
  type RequireCaller,
  requireRole,
} from '../../proto/rpc.ts';
import { unaryHandler } from '../../proto/rpc-status.ts';
import type { Applicant, CertificateService } from './service.ts';

const availabilityOf: Readonly<Record<string, NodeAvailability>> = {
  ACTIVE: 'active',
  PAUSE: 'pause',
  DRAIN: 'drain',
};

/** Handlers for RpcServer.addService: of `CA`, `NodeCA` and `Returning`, for callers that `requireCaller` lets pass. */
export function certificateHandlers(
  service: CertificateService,
  requireCaller: RequireCaller = requireRole,
): {
  readonly CA: HandlersOf<'CA'>;
  readonly NodeCA: HandlersOf<'NodeCA'>;
  readonly Returning: HandlersOf<'Returning'>;
} {
  return {
    CA: rootHandlers(service, requireCaller),
    NodeCA: nodeHandlers(service),
    Returning: returnHandlers(service),
  };
}

function returnHandlers(service: CertificateService): HandlersOf<'Returning'> {
  return {
    Renew: unaryHandler(async (request) => {
      const certificate = await service.comeBack({
        certificatePem: textOf(request.certificate),
        requestPem: textOf(request.csr),
        signature: request.signature ?? Buffer.alloc(0),
      });
      return { certificate: Buffer.from(certificate) };
    }),
  };
}

function rootHandlers(service: CertificateService, requireCaller: RequireCaller): HandlersOf<'CA'> {
  return {
    GetRootCACertificate: unaryHandler(() => ({ certificate: Buffer.from(service.rootCertificates()) })),
    GetUnlockKey: unaryHandler(async (_request, call) => {
      const caller = requireCaller(call, 'manager');
      const { key, versionIndex } = await service.unlockKey(caller.nodeId);
      return { unlock_key: Buffer.from(key ?? ''), version: { index: String(versionIndex) } };
    }),
  };
}

function nodeHandlers(service: CertificateService): HandlersOf<'NodeCA'> {
  return {
    IssueNodeCertificate: unaryHandler(async (request, call) => {
      const token = request.token ?? '';
      const caller = peerIdentity(call);
      const applicant: Applicant =
        token === '' && caller !== undefined
          ? { kind: 'member', ...caller, certificateDigest: peerCertificateDigest(call) ?? '' }
          : { kind: 'joiner', token };
      const nodeId = await service.issue({
        applicant,
        requestPem: textOf(request.csr),
        availability: availabilityOf[request.availability ?? 'ACTIVE'] ?? 'active',
        isShoal: call.metadata.get(versionMetadataKey).length > 0,
      });
      return { node_id: nodeId, node_membership: 'ACCEPTED' as const };
    }),
    NodeCertificateStatus: unaryHandler(async (request, call) => {
      const gone = new AbortController();
      call.on('cancelled', () => gone.abort());
      const issued = await service.status(request.node_id ?? '', gone.signal);
      const status = { state: issued.state === 'issued' ? ('ISSUED' as const) : ('ROTATE' as const) };
      return {
        status,
        certificate: {
          role: issued.role === 'manager' ? ('MANAGER' as const) : ('WORKER' as const),
          csr: Buffer.from(issued.requestPem),
          status,
          certificate: Buffer.from(issued.certificatePem),
          cn: issued.nodeId,
        },
      };
    }),
  };
}

/** A request as text whose bytes are exactly those that came: the answer must echo them. */
function textOf(bytes: Buffer | undefined): string {
  const text = (bytes ?? Buffer.alloc(0)).toString('utf8');
  if (bytes && !Buffer.from(text).equals(bytes)) {
    throw new ShoalError('invalid-argument', 'the certificate request is refused: it is not PEM');
  }
  return text;
}
