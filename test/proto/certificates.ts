/** Self-made certificates for tests: a root, and nodes' certificates in the form that the cluster CA issues. */
import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import type { NodeIdentity, Role } from '../../proto/rpc.ts';

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const usages: KeyUsage[] = ['sign', 'verify'];
type KeyUsage = 'sign' | 'verify';

export interface TestRoot {
  readonly pem: string;
  /** A certificate signed by this root, with the key, trusting this root. */
  issue(subject: { nodeId: string; role: Role; clusterId: string }): Promise<NodeIdentity>;
}

/** A root certificate and its key, valid from 2020 to 2100, as is what it issues. */
export async function makeRoot(name = 'swarm-ca'): Promise<TestRoot> {
  x509.cryptoProvider.set(webcrypto as unknown as Parameters<typeof x509.cryptoProvider.set>[0]);
  const notBefore = new Date('2020-01-01T00:00:00Z');
  const notAfter = new Date('2100-01-01T00:00:00Z');
  const keys = await webcrypto.subtle.generateKey(algorithm, true, usages);
  const root = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: '01',
    name: `CN=${name}`,
    notBefore,
    notAfter,
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 1, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
    ],
  });
  let serial = 1;
  return {
    pem: root.toString('pem'),
    async issue({ nodeId, role, clusterId }) {
      serial++;
      const nodeKeys = await webcrypto.subtle.generateKey(algorithm, true, usages);
      const certificate = await x509.X509CertificateGenerator.create({
        serialNumber: serial.toString(16).padStart(2, '0'),
        subject: `O=${clusterId}, OU=swarm-${role}, CN=${nodeId}`,
        issuer: root.subject,
        notBefore,
        notAfter,
        signingAlgorithm: algorithm,
        publicKey: nodeKeys.publicKey,
        signingKey: keys.privateKey,
        extensions: [
          new x509.ExtendedKeyUsageExtension([
            x509.ExtendedKeyUsage.serverAuth,
            x509.ExtendedKeyUsage.clientAuth,
          ]),
          new x509.SubjectAlternativeNameExtension([
            { type: 'dns', value: `swarm-${role}` },
            { type: 'dns', value: nodeId },
            { type: 'dns', value: 'swarm-ca' },
          ]),
        ],
      });
      const key = await webcrypto.subtle.exportKey('pkcs8', nodeKeys.privateKey);
      return {
        certificatePem: certificate.toString('pem'),
        keyPem: x509.PemConverter.encode(key, 'PRIVATE KEY'),
        rootsPem: root.toString('pem'),
      };
    },
  };
}
