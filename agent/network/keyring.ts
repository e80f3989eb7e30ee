/**
 * The node's WireGuard keys, and the interfaces that hold them. In: the kernel, the plan's operations, time. Out:
 * public keys to be told to the other nodes, the one in use first; interfaces made, changed and removed. A private key
 * is in this process' memory and in the interface, nowhere else: a process that is started anew takes it from there.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { existsSync } from 'node:fs';
import { messageOf, ShoalError } from '../../proto/errors.ts';
import type { Clock, Log, Timer } from '../../proto/ports.ts';
import type { Kernel } from './kernel.ts';
import {
  announcementOf,
  configurationOf,
  type Place,
  type PublicKeys,
  type TunnelOperation,
  tunnelMtu,
  tunnelName,
  tunnelPrefixLength,
} from './tunnel.ts';

/** What encrypts: the kernel, or a program beside it. */
export type EncryptionKind = 'wireguard' | 'wireguard-go';

const trialName = 'shwgtrial';
/** A key is known for so long before it is used, and so long after; both at most a quarter of the period. */
const maxLeadMs = 2 * 60_000;
const maxLingerMs = 10 * 60_000;

export interface KeyringOptions {
  readonly kernel: Kernel;
  readonly clock: Clock;
  readonly log: Log;
  readonly kind: EncryptionKind;
  readonly rotateEveryMs: number;
  /** The keys are others. */
  readonly onChange: () => void;
}

interface Pair {
  readonly privateKey: string;
  readonly publicKey: string;
}

/** What this host can encrypt by, tried; else why it can't. Leaves nothing of the trial. */
export async function probeEncryption(
  kernel: Kernel,
): Promise<{ readonly kind: EncryptionKind } | { readonly reason: string }> {
  try {
    await kernel.run('wg', ['--version']);
  } catch {
    return { reason: 'the program wg is not installed (package wireguard-tools)' };
  }
  // One that was ended in the middle of its trial left this.
  await kernel.ip([`link delete ${trialName}`]).catch(() => {});
  try {
    await kernel.ip([`link add ${trialName} type wireguard`, `link delete ${trialName}`]);
    return { kind: 'wireguard' };
  } catch {
    // Kernels without it need the program.
  }
  if (!existsSync('/dev/net/tun')) {
    return { reason: 'the kernel has no WireGuard, and wireguard-go needs /dev/net/tun' };
  }
  try {
    await beginProgram(kernel, trialName);
    await kernel.ip([`address add fd00::1/128 dev ${trialName}`, `link delete ${trialName}`]);
    return { kind: 'wireguard-go' };
  } catch (error) {
    return { reason: `the kernel has no WireGuard, and wireguard-go can't be used: ${messageOf(error)}` };
  }
}

/**
 * Starts wireguard-go for an interface. The one that had the interface before takes a moment to end when that was
 * deleted, and then removes its socket by name, which would be the new one's: it is waited for, but not for ever, for one
 * that was killed leaves the socket.
 */
async function beginProgram(kernel: Kernel, name: string): Promise<void> {
  const script = `
    left=40
    while [ -S "/var/run/wireguard/$0.sock" ] && [ $left -gt 0 ]; do sleep 0.05; left=$((left - 1)); done
    exec wireguard-go "$0"`;
  await kernel.run('sh', ['-c', script, name]);
}

export class Keyring {
  readonly #options: KeyringOptions;
  readonly #pairs = new Map<Place, Pair>();
  #active: Place = 0;
  #timer: Timer | undefined;

  constructor(options: KeyringOptions) {
    this.#options = options;
  }

  /** Takes up the keys of the last life where interfaces hold them, else makes one. */
  async start(): Promise<void> {
    const dump = await this.#options.kernel.run('wg', ['show', 'all', 'dump']).catch(() => '');
    for (const place of [0, 1] as const) {
      const line = dump.split('\n').find((one) => one.startsWith(`${tunnelName(place)}\t`));
      const privateKey = line?.split('\t')[1];
      if (privateKey !== undefined && privateKey !== '(none)') this.#pairs.set(place, pairOf(privateKey));
    }
    if (this.#pairs.size === 0) this.#pairs.set(0, newPair());
    this.#active = this.#pairs.has(0) ? 0 : 1;
    if (this.#pairs.size > 1) this.#after(this.#lingerMs, () => this.#dropOld());
    else this.#after(this.#options.rotateEveryMs, () => this.#announceNext());
  }

  stop(): void {
    this.#timer?.cancel();
  }

  /** Public keys, the one in use first. */
  keys(): PublicKeys {
    const ordered = [...this.#pairs].sort(([a]) => (a === this.#active ? -1 : 1));
    return ordered.map(([place, { publicKey }]) => ({ place, key: publicKey }));
  }

  /** What the other nodes are told. */
  announcement(): string {
    return announcementOf(this.keys());
  }

  /** Makes or changes an interface. Errors: 'unavailable' with the tool's words. */
  async apply(operation: Extract<TunnelOperation, { kind: 'tunnel' }>): Promise<void> {
    const { kernel, kind } = this.#options;
    const { tunnel, isNew, replaces } = operation;
    const pair = [...this.#pairs.values()].find(({ publicKey }) => publicKey === tunnel.publicKey);
    if (pair === undefined)
      throw new ShoalError('unavailable', `the key of ${tunnel.name} is another one now`);
    if (replaces) await kernel.ip([`link delete ${tunnel.name}`]);
    if (isNew || replaces) {
      if (kind === 'wireguard') await kernel.ip([`link add ${tunnel.name} type wireguard`]);
      else await beginProgram(kernel, tunnel.name);
    }
    // A pipe of its own, for wg opens a path.
    const script = 'cat | wg syncconf "$0" /dev/stdin';
    await kernel.run('sh', ['-c', script, tunnel.name], configurationOf(tunnel, pair.privateKey));
    await kernel.ip([
      `link set ${tunnel.name} mtu ${tunnelMtu} up`,
      `address replace ${tunnel.address}/${tunnelPrefixLength} dev ${tunnel.name}`,
    ]);
  }

  get #lingerMs(): number {
    return Math.min(maxLingerMs, this.#options.rotateEveryMs / 4);
  }

  #after(waitMs: number, what: () => void): void {
    this.#timer = this.#options.clock.after(waitMs, what);
  }

  #announceNext(): void {
    const { rotateEveryMs, onChange } = this.#options;
    const next: Place = this.#active === 0 ? 1 : 0;
    this.#pairs.set(next, newPair());
    onChange();
    this.#after(Math.min(maxLeadMs, rotateEveryMs / 4), () => {
      this.#active = next;
      onChange();
      this.#after(this.#lingerMs, () => this.#dropOld());
    });
  }

  #dropOld(): void {
    const { rotateEveryMs, onChange, log } = this.#options;
    this.#pairs.delete(this.#active === 0 ? 1 : 0);
    log.info({}, 'the key of encrypted networks is a new one');
    onChange();
    const leadMs = Math.min(maxLeadMs, rotateEveryMs / 4);
    this.#after(rotateEveryMs - leadMs - this.#lingerMs, () => this.#announceNext());
  }
}

function newPair(): Pair {
  const { privateKey } = generateKeyPairSync('x25519');
  const { d = '', x = '' } = privateKey.export({ format: 'jwk' });
  return { privateKey: base64Of(d), publicKey: base64Of(x) };
}

/** PKCS#8 wraps the 32 bytes of an X25519 key in these (RFC 8410). */
const pkcs8Head = Buffer.from('302e020100300506032b656e04220420', 'hex');

function pairOf(privateKey: string): Pair {
  const der = Buffer.concat([pkcs8Head, Buffer.from(privateKey, 'base64')]);
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  const { x = '' } = createPublicKey(key).export({ format: 'jwk' });
  return { privateKey, publicKey: base64Of(x) };
}

function base64Of(base64url: string): string {
  return Buffer.from(base64url, 'base64url').toString('base64');
}
