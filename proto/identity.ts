/**
 * How a node is named to the others: the roles as certificates write them, join tokens and unlock keys as a
 * person copies them. Forms and numbers are SwarmKit's, so that a stock Docker Engine reads them too. What a
 * malformed one is refused with never repeats it: a token is a secret.
 */
import type { NodeRole } from './docker.ts';
import { ShoalError } from './errors.ts';
import type { Random } from './ports.ts';

/** gRPC metadata key in which our own nodes say their version; a stock Docker Engine does not send it. */
export const versionMetadataKey = 'shoal-version';

/** What a node signs with its old key when it asks for a new certificate without TLS vouching for it: both PEM texts. */
export function returnStatement(certificatePem: string, requestPem: string): Uint8Array {
  return Buffer.from(`shoal: a node comes back\n${certificatePem}\n${requestPem}`);
}

/** What Docker says when a manager is locked; its clients look for these words. */
export const lockedMessage =
  'Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.';

/** Common name of the cluster's certificate authority, and the server name of calls to it. */
export const authorityName = 'swarm-ca';

/** The organizational unit by which a certificate states its holder's role. */
export function unitOfRole(role: NodeRole): string {
  return `swarm-${role}`;
}

/** The role that an organizational unit states; undefined for any other unit. */
export function roleOfUnit(unit: string | undefined): NodeRole | undefined {
  if (unit === 'swarm-manager') return 'manager';
  if (unit === 'swarm-worker') return 'worker';
  return undefined;
}

/** A join token in its parts. */
export interface JoinToken {
  /** SHA-256 of the root certificates' PEM, 50 digits of base 36. */
  readonly rootDigest: string;
  /** 25 digits of base 36; tells by itself which role may be joined as. */
  readonly secret: string;
}

const tokenPrefix = 'SWMTKN';
const tokenVersion = '1';
const digestDigits = 50;
const secretDigits = 25;
const secretBytes = 16;
const currentTokenHint = 'run `shoal swarm join-token worker` (or manager) on a manager for the current one';

/** Bytes as a big-endian number in base 36, padded with zeros on the left to `digits`. */
export function base36(bytes: Uint8Array, digits: number): string {
  let value = 0n;
  for (const byte of bytes) value = (value << 8n) | BigInt(byte);
  return value.toString(36).padStart(digits, '0');
}

/** The form in which a token carries the SHA-256 (32 bytes) of the root certificates. */
export function formatRootDigest(sha256: Uint8Array): string {
  return base36(sha256, digestDigits);
}

/** A new secret for a join token. */
export function newTokenSecret(random: Random): string {
  return base36(random.bytes(secretBytes), secretDigits);
}

/** The token as a person copies it. */
export function formatJoinToken(token: JoinToken): string {
  return [tokenPrefix, tokenVersion, token.rootDigest, token.secret].join('-');
}

/** The parts of a token that a person typed. Throws `invalid-argument` with a sentence saying what is wrong. */
export function parseJoinToken(text: string): JoinToken {
  const refuse = (fault: string): never => {
    throw new ShoalError('invalid-argument', `invalid join token: ${fault}; ${currentTokenHint}`);
  };
  const trimmed = text.trim();
  if (trimmed === '') return refuse('it is empty');
  if (trimmed.startsWith('SWMKEY-')) return refuse('this is an unlock key (SWMKEY-…), not a join token');
  const [prefix, version, digest, secret, ...rest] = trimmed.split('-');
  if (prefix !== tokenPrefix) return refuse('a join token begins with SWMTKN-1-');
  if (version === '2') return refuse('it is of a FIPS cluster (SWMTKN-2-), which Shoal does not support');
  if (version !== tokenVersion) return refuse('a join token begins with SWMTKN-1-');
  if (digest === undefined || secret === undefined) return refuse('its end is missing');
  if (rest.length > 0) return refuse('it has more parts than the four that one has');
  if (!/^[0-9a-z]*$/.test(digest + secret)) {
    return refuse('it holds characters other than small letters and digits');
  }
  if (digest.length !== digestDigits) {
    return refuse(`its third part has ${digest.length} characters instead of ${digestDigits}`);
  }
  if (secret.length !== secretDigits) {
    return refuse(`its last part has ${secret.length} characters instead of ${secretDigits}`);
  }
  return { rootDigest: digest, secret };
}

const unlockKeyPrefix = 'SWMKEY-1-';
const unlockKeyBytes = 32;

/** A new key that unlocks managers' disks, as a person copies it. */
export function newUnlockKey(random: Random): string {
  return formatUnlockKey(random.bytes(unlockKeyBytes));
}

/** SWMKEY-1- and the key (32 bytes) in unpadded base 64. */
export function formatUnlockKey(key: Uint8Array): string {
  return unlockKeyPrefix + Buffer.from(key).toString('base64').replace(/=+$/, '');
}

/** The 32 bytes of an unlock key that a person typed. Throws `invalid-argument`, which never repeats it. */
export function parseUnlockKey(text: string): Uint8Array {
  const trimmed = text.trim();
  const key = Buffer.from(trimmed.slice(unlockKeyPrefix.length), 'base64');
  if (key.length !== unlockKeyBytes || formatUnlockKey(key) !== trimmed) {
    throw new ShoalError(
      'invalid-argument',
      'invalid unlock key: one is SWMKEY-1- and 43 characters; `shoal swarm unlock-key` on an unlocked manager shows the current one',
    );
  }
  return Uint8Array.from(key);
}
