import 'reflect-metadata';
import assert from 'node:assert/strict';
import { webcrypto, X509Certificate } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import {
  fitsKey,
  issuerOf,
  leadsToRoots,
  readCertificates,
  readNodeCertificate,
  refuseExpired,
  verifyIdentity,
} from '../../proto/certificate.ts';
import {
  type Authority,
  crossSign,
  makeAuthority,
  makeRequest,
  signRequest,
  tlsInfoOf,
} from '../../proto/x509.ts';
import { seededRandom } from '../simulation/random.ts';

const random = seededRandom(11);
const now = Date.UTC(2026, 5, 1);
const nodeId = 'n'.repeat(25);
const clusterId = 'c'.repeat(25);

function authority(): Promise<Authority> {
  return makeAuthority({
    commonName: 'swarm-ca',
    notBeforeMs: now,
    notAfterMs: now + 1e9,
    serial: random.bytes(16),
  });
}

function sign(requestPem: string, issuer: Authority, unit = 'swarm-worker'): Promise<string> {
  return signRequest(requestPem, issuer, {
    subject: { organization: clusterId, unit, commonName: nodeId },
    dnsNames: [unit, nodeId],
    notBeforeMs: now,
    notAfterMs: now + 60_000,
    serial: random.bytes(16),
  });
}

/** A request with the given key and subject, signed by it (or by `signer`). */
async function request(algorithm: object, subject = '', signer?: CryptoKeyPair): Promise<string> {
  type Keys = CryptoKeyPair;
  const keys = (await webcrypto.subtle.generateKey(algorithm as never, true, ['sign', 'verify'])) as Keys;
  const mixed = signer ? { publicKey: keys.publicKey, privateKey: signer.privateKey } : keys;
  const made = await x509.Pkcs10CertificateRequestGenerator.create({
    name: subject,
    keys: mixed,
    signingAlgorithm: algorithm as never,
    extensions: [new x509.BasicConstraintsExtension(true)],
  });
  return made.toString('pem');
}
type CryptoKeyPair = webcrypto.CryptoKeyPair;
const p256 = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };

describe('certificates', () => {
  let root: Authority;
  before(async () => {
    root = await authority();
  });

  it('say what the authority wrote, whatever the request asked for', async () => {
    const hostile = await request(p256, `O=${clusterId}, OU=swarm-manager, CN=another`);
    const pem = await sign(hostile, root);
    assert.deepEqual(readNodeCertificate(pem), {
      nodeId,
      clusterId,
      role: 'worker',
      notBeforeMs: now,
      notAfterMs: now + 60_000,
    });
    const certificate = new X509Certificate(pem);
    assert.equal(certificate.ca, false);
    assert.equal(certificate.subjectAltName, `DNS:swarm-worker, DNS:${nodeId}`);
    assert.ok(!pem.includes('\r') && pem.endsWith('-----END CERTIFICATE-----\n'));
  });

  it('are signed for RSA keys of 2048 bits, as other agents may bring', async () => {
    const rsa = {
      name: 'RSASSA-PKCS1-v1_5',
      modulusLength: 2048,
      publicExponent: Uint8Array.of(1, 0, 1),
      hash: 'SHA-256',
    };
    assert.equal(readNodeCertificate(await sign(await request(rsa), root)).nodeId, nodeId);
    await assert.rejects(
      sign(await request({ ...rsa, modulusLength: 1024 }), root),
      /RSA key has 1024 bits, at least 2048/,
    );
    await assert.rejects(sign(await request({ ...rsa, hash: 'SHA-1' }), root), /signed with SHA-1/);
  });

  it('are refused for requests that are not signed by their own key, broken or too large', async () => {
    const other = await webcrypto.subtle.generateKey(p256, true, ['sign', 'verify']);
    await assert.rejects(sign(await request(p256, '', other), root), /signature is not by its own key/);
    await assert.rejects(sign('', root), /not a certificate request in PEM/);
    await assert.rejects(sign(root.certificatePem, root), /not a certificate request in PEM/);
    const broken = '-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n';
    await assert.rejects(sign(broken, root), /can not be read/);
    await assert.rejects(sign('x'.repeat(70_000), root), { code: 'too-large' });
  });

  it('are verified against roots and key', async () => {
    const { requestPem, keyPem } = await makeRequest();
    const certificatePem = await sign(requestPem, root);
    const other = await authority();
    const identity = { certificatePem, keyPem, rootsPem: root.certificatePem };
    assert.equal(verifyIdentity(identity).nodeId, nodeId);
    assert.throws(
      () => verifyIdentity({ ...identity, rootsPem: other.certificatePem }),
      /not issued by the trusted root/,
    );
    assert.throws(() => verifyIdentity({ ...identity, keyPem: other.keyPem }), /private key beside it/);
    assert.equal(fitsKey(certificatePem, 'no key'), false);
    assert.equal(leadsToRoots(certificatePem, other.certificatePem + root.certificatePem), true);
    assert.throws(() => readCertificates('nothing'), /no certificate found/);
    assert.throws(() => readNodeCertificate(root.certificatePem), /not one of a cluster node/);
  });

  it('of a node can not sign others', async () => {
    const { requestPem, keyPem } = await makeRequest();
    const node = { certificatePem: await sign(requestPem, root), keyPem };
    const below = await sign((await makeRequest()).requestPem, node);
    assert.equal(leadsToRoots(below + node.certificatePem, root.certificatePem), false);
  });

  it('of a cross-signed authority lead to both roots', async () => {
    const next = await authority();
    const crossed = await crossSign(next.certificatePem, root, random.bytes(16));
    const { requestPem, keyPem } = await makeRequest();
    const certificatePem = (await sign(requestPem, next)) + crossed;
    assert.equal(leadsToRoots(certificatePem, root.certificatePem), true);
    assert.equal(leadsToRoots(certificatePem, next.certificatePem), true);
    assert.equal(fitsKey(certificatePem, keyPem), true);
    const info = tlsInfoOf({ certificatePem, rootsPem: root.certificatePem });
    assert.equal(
      info.CertIssuerPublicKey,
      tlsInfoOf({ certificatePem, rootsPem: next.certificatePem }).CertIssuerPublicKey,
    );
    assert.equal(issuerOf({ certificatePem, rootsPem: root.certificatePem }), crossed);
  });

  it('tell their expiry in words with what to do', async () => {
    const facts = readNodeCertificate(await sign((await makeRequest()).requestPem, root));
    refuseExpired(facts, now + 60_000);
    assert.throws(
      () => refuseExpired(facts, now + 60_001),
      /expired at 2026-06-01T00:01:00.000Z.*swarm leave/,
    );
  });

  it('show the issuer in DER, as other tools read it', async () => {
    const pem = await sign((await makeRequest()).requestPem, root);
    const info = tlsInfoOf({ certificatePem: pem, rootsPem: root.certificatePem });
    const expected = new X509Certificate(root.certificatePem).publicKey.export({
      type: 'spki',
      format: 'der',
    });
    assert.equal(info.CertIssuerPublicKey, expected.toString('base64'));
    // SEQUENCE { SET { SEQUENCE { OID 2.5.4.3, string "swarm-ca" } } }
    const subject = Buffer.from(info.CertIssuerSubject, 'base64');
    assert.equal(subject.subarray(-8).toString(), 'swarm-ca');
    assert.equal(subject[0], 0x30);
  });
});
