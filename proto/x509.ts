/**
 * Makes keys, requests and certificates: the sole user of the X.509 library, on node:crypto's WebCrypto.
 * Managers sign with it, agents make their requests with it. Which subject, names and lifetime a certificate
 * gets is the caller's to decide; nothing here reads a clock or keeps a key.
 */
import 'reflect-metadata';
import { createPublicKey, type KeyObject, webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import { issuerOf } from './certificate.ts';
import type { TLSInfo } from './docker.ts';
import { ShoalError } from './errors.ts';

const crypto = webcrypto as unknown as NonNullable<Parameters<typeof x509.cryptoProvider.set>[0]>;
x509.cryptoProvider.set(crypto);

const keyAlgorithm = { name: 'ECDSA', namedCurve: 'P-256' } as const;
const signingAlgorithm = { name: 'ECDSA', hash: 'SHA-256' } as const;
const requestMaxBytes = 64 * 1024;
const rsaMinBits = 2048;
const acceptedCurves: readonly string[] = ['prime256v1', 'secp384r1', 'secp521r1'];
const acceptedHashes: readonly string[] = ['SHA-256', 'SHA-384', 'SHA-512'];

/** A certificate authority's certificate and its key (PKCS#8), in PEM. */
export interface Authority {
  readonly certificatePem: string;
  readonly keyPem: string;
}

/** What a certificate is to say. Times in ms since the epoch; `serial` are 16 random bytes. */
export interface CertificateContent {
  readonly subject: { readonly organization: string; readonly unit: string; readonly commonName: string };
  readonly dnsNames: readonly string[];
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly serial: Uint8Array;
}

/** A new self-signed authority (ECDSA P-256) whose subject is the common name alone. */
export async function makeAuthority(content: {
  readonly commonName: string;
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  readonly serial: Uint8Array;
}): Promise<Authority> {
  const keys = await newKeyPair();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialHex(content.serial),
    name: [{ CN: [content.commonName] }],
    notBefore: new Date(content.notBeforeMs),
    notAfter: new Date(content.notAfterMs),
    signingAlgorithm,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificatePem: pemOf(certificate), keyPem: await exportKey(keys.privateKey) };
}

/** A new key (PKCS#8) and a request for a certificate on it, both in PEM. The subject is left empty. */
export async function makeRequest(): Promise<{ requestPem: string; keyPem: string }> {
  const keys = await newKeyPair();
  const request = await x509.Pkcs10CertificateRequestGenerator.create({ keys, signingAlgorithm });
  return { requestPem: pemOf(request), keyPem: await exportKey(keys.privateKey) };
}

/**
 * A certificate for the key of a request, signed by `issuer`. Nothing but the key is taken from the request.
 * Throws `invalid-argument` when the request can't be read, is not signed by its own key, or its key is weak.
 */
export async function signRequest(
  requestPem: string,
  issuer: Authority,
  content: CertificateContent,
): Promise<string> {
  const publicKey = await checkedPublicKey(requestPem);
  const { organization, unit, commonName } = content.subject;
  const issuerCertificate = new x509.X509Certificate(issuer.certificatePem);
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serialHex(content.serial),
    subject: [{ O: [organization] }, { OU: [unit] }, { CN: [commonName] }],
    issuer: issuerCertificate.subjectName,
    notBefore: new Date(content.notBeforeMs),
    notAfter: new Date(content.notAfterMs),
    signingAlgorithm,
    publicKey,
    signingKey: await importKey(issuer.keyPem),
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(
        x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyEncipherment,
        true,
      ),
      new x509.ExtendedKeyUsageExtension([
        x509.ExtendedKeyUsage.serverAuth,
        x509.ExtendedKeyUsage.clientAuth,
      ]),
      new x509.SubjectAlternativeNameExtension(
        content.dnsNames.map((value) => ({ type: 'dns' as const, value })),
      ),
      await x509.SubjectKeyIdentifierExtension.create(publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(issuerCertificate.publicKey),
    ],
  });
  return pemOf(certificate);
}

/**
 * The certificate of authority `subject` once more, with the same key, name and times, but signed by `issuer`:
 * who trusts only `issuer` then accepts what `subject` signs. PEM.
 */
export async function crossSign(subjectPem: string, issuer: Authority, serial: Uint8Array): Promise<string> {
  const subject = new x509.X509Certificate(subjectPem);
  const issuerCertificate = new x509.X509Certificate(issuer.certificatePem);
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serialHex(serial),
    subject: subject.subjectName,
    issuer: issuerCertificate.subjectName,
    notBefore: subject.notBefore,
    notAfter: subject.notAfter,
    signingAlgorithm,
    publicKey: subject.publicKey,
    signingKey: await importKey(issuer.keyPem),
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(subject.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(issuerCertificate.publicKey),
    ],
  });
  return pemOf(certificate);
}

/** Which root a node trusts and which authority issued its certificate, as Docker's API shows it. */
export function tlsInfoOf(identity: { readonly certificatePem: string; readonly rootsPem: string }): TLSInfo {
  return tlsInfoOfIssuer(issuerOf(identity), identity.rootsPem);
}

/** TLSInfo of certificates that authority `issuerPem` issues to nodes that trust `rootsPem`. */
export function tlsInfoOfIssuer(issuerPem: string, rootsPem: string): TLSInfo {
  const issuer = new x509.X509Certificate(issuerPem);
  return {
    TrustRoot: rootsPem,
    CertIssuerSubject: Buffer.from(issuer.subjectName.toArrayBuffer()).toString('base64'),
    CertIssuerPublicKey: Buffer.from(issuer.publicKey.rawData).toString('base64'),
  };
}

async function checkedPublicKey(requestPem: string): Promise<x509.PublicKey> {
  if (requestPem.length > requestMaxBytes) {
    throw new ShoalError('too-large', `the certificate request is larger than ${requestMaxBytes} bytes`);
  }
  const request = readRequest(requestPem);
  const key = createPublicKey({ key: Buffer.from(request.publicKey.rawData), format: 'der', type: 'spki' });
  const weakness = weaknessOf(key);
  if (weakness) throw refused(weakness);
  const hash = (request.signatureAlgorithm as { hash?: { name?: string } }).hash?.name ?? 'an unknown hash';
  if (!acceptedHashes.includes(hash)) throw refused(`it is signed with ${hash}, SHA-256 or longer is needed`);
  const isSigned = await request.verify().catch(() => false);
  if (!isSigned) throw refused('its signature is not by its own key');
  return request.publicKey;
}

function readRequest(requestPem: string): x509.Pkcs10CertificateRequest {
  if (!/-----BEGIN (NEW )?CERTIFICATE REQUEST-----/.test(requestPem)) {
    throw refused('it is not a certificate request in PEM');
  }
  try {
    return new x509.Pkcs10CertificateRequest(requestPem);
  } catch {
    throw refused('it can not be read');
  }
}

function refused(fault: string): ShoalError {
  return new ShoalError('invalid-argument', `the certificate request is refused: ${fault}`);
}

/** Why a key is not accepted; undefined when it is. */
function weaknessOf(key: KeyObject): string | undefined {
  const details = key.asymmetricKeyDetails ?? {};
  if (key.asymmetricKeyType === 'ec') {
    const curve = details.namedCurve ?? 'unknown';
    return acceptedCurves.includes(curve) ? undefined : `its key is on the curve ${curve}, P-256 is needed`;
  }
  if (key.asymmetricKeyType === 'rsa') {
    const bits = details.modulusLength ?? 0;
    return bits >= rsaMinBits ? undefined : `its RSA key has ${bits} bits, at least ${rsaMinBits} are needed`;
  }
  return `its key is of type ${key.asymmetricKeyType ?? 'unknown'}, ECDSA or RSA is needed`;
}

async function newKeyPair(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(keyAlgorithm, true, ['sign', 'verify']);
}

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  const der = await webcrypto.subtle.exportKey('pkcs8', key);
  return `${x509.PemConverter.encode(der, 'PRIVATE KEY')}\n`;
}

function importKey(keyPem: string): Promise<webcrypto.CryptoKey> {
  const der = x509.PemConverter.decodeFirst(keyPem);
  return webcrypto.subtle.importKey('pkcs8', der, keyAlgorithm, false, ['sign']);
}

function pemOf(object: { toString(format: 'pem'): string }): string {
  return `${object.toString('pem').trimEnd()}\n`;
}

/** A positive number without leading zeros, as DER wants it. */
function serialHex(serial: Uint8Array): string {
  const bytes = Uint8Array.from(serial);
  bytes[0] = (bytes[0]! & 0x3f) | 0x40;
  return Buffer.from(bytes).toString('hex');
}
