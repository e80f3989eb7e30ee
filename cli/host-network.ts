/** What this host's kernel can do for networks between hosts, tried once when the daemon starts. */
import { fileURLToPath } from 'node:url';
import type { AgentOptions } from '../agent/agent.ts';
import { Kernel } from '../agent/network/kernel.ts';
import { type EncryptionKind, probeEncryption } from '../agent/network/keyring.ts';
import { probeDataPlane } from '../agent/network/probe.ts';
import type { Log } from '../proto/ports.ts';
import { parseDuration } from './parse.ts';
import type { Flags } from './shoald-flags.ts';
import { UsageError } from './usage.ts';

const nanosecondsPerMs = 1e6;
const minRotationMs = 1000;

export type HostNetwork =
  | {
      readonly kind: 'possible';
      readonly kernel: Kernel;
      readonly encryption: { readonly kind: EncryptionKind; readonly rotateEveryMs: number } | undefined;
      /** Why it can't encrypt; undefined where it can. */
      readonly encryptionMissing?: string;
      readonly limits: string | undefined;
    }
  /** Published ports alone are answered, by a proxy. */
  | { readonly kind: 'proxy'; readonly reason: string }
  /** reason: undefined where nobody asked for it. */
  | { readonly kind: 'none'; readonly reason: string | undefined };

const proxyLimits =
  "ports published in ingress mode are answered by a TCP proxy of shoald: not over UDP, tasks see the address of a node in place of the client's, connections end when shoald does; networks reach no other host";
/** Its garbage is little and of the moment: memory is the tasks'. */
const littleGarbage = '--max-semi-space-size=1';
const namesProgram = [
  process.execPath,
  littleGarbage,
  fileURLToPath(new URL('./shoal-names.js', import.meta.url)),
];

/** Tries it; why something is not possible is logged. */
export async function hostNetworkOf(flags: Flags, log: Log): Promise<HostNetwork> {
  if (flags.engine === 'simulated') return { kind: 'none', reason: undefined };
  if (flags.dataPlane === 'off') return { kind: 'none', reason: 'shoald runs with --data-plane off' };
  if (flags.dataPlane === 'proxy') return { kind: 'proxy', reason: 'shoald runs with --data-plane proxy' };
  const rotateEveryMs =
    parseDuration(flags.dataPathKeyRotation, '--data-path-key-rotation') / nanosecondsPerMs;
  if (rotateEveryMs < minRotationMs) {
    throw new UsageError(`--data-path-key-rotation: ${flags.dataPathKeyRotation} is too often; at least 1s`);
  }
  const kernel = new Kernel();
  const probe = await probeDataPlane(kernel);
  if (probe.kind === 'impossible') {
    log.warn({ reason: probe.reason }, 'this node has no networks between hosts');
    return { kind: probe.isOthers ? 'none' : 'proxy', reason: probe.reason };
  }
  const { limits } = probe;
  if (limits !== undefined) log.warn({ reason: limits }, 'this node’s networks between hosts have limits');
  const encryption = await probeEncryption(kernel);
  if ('kind' in encryption) {
    return { kind: 'possible', kernel, limits, encryption: { kind: encryption.kind, rotateEveryMs } };
  }
  log.info({ reason: encryption.reason }, 'this node takes no part in encrypted networks');
  return { kind: 'possible', kernel, limits, encryption: undefined, encryptionMissing: encryption.reason };
}

/** The agent's share of it. `dataPathAddress`: where vxlan packets come from; undefined: the host's own choice. */
export function agentNetwork(
  network: HostNetwork | undefined,
  dataPathAddress: string | undefined,
): Pick<AgentOptions, 'dataPlane' | 'dataPlaneMissing' | 'proxy'> {
  if (network === undefined) return {};
  if (network.kind === 'none') return { dataPlaneMissing: network.reason };
  if (network.kind === 'proxy') return { dataPlaneMissing: network.reason, proxy: { limits: proxyLimits } };
  const { kernel, encryption, encryptionMissing, limits } = network;
  const local = dataPathAddress ?? '';
  return { dataPlane: { kernel, local, encryption, encryptionMissing, limits, namesProgram } };
}
