/** A node's addresses, chosen when it makes or joins a cluster and kept, for they must outlive a restart. */
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf, ShoalError } from '../proto/errors.ts';
import { guessAdvertiseAddress, portOf, withPort } from './addresses.ts';

/** Both host:port. */
export interface NodeSettings {
  readonly listenAddress: string;
  readonly advertiseAddress: string;
}

export const settingsFile = 'node.json';

/** Undefined when the node is part of no cluster. Throws 'corrupted' when the file is not what was written. */
export function readSettings(dataDir: string): NodeSettings | undefined {
  const path = join(dataDir, settingsFile);
  if (!existsSync(path)) return undefined;
  try {
    const read = JSON.parse(readFileSync(path, 'utf8')) as Partial<NodeSettings>;
    return {
      listenAddress: withPort(String(read.listenAddress ?? ''), 'listenAddress'),
      advertiseAddress: withPort(String(read.advertiseAddress ?? ''), 'advertiseAddress'),
    };
  } catch (cause) {
    throw new ShoalError(
      'corrupted',
      `${path} is damaged (${messageOf(cause)}): write {"listenAddress":"HOST:PORT","advertiseAddress":"HOST:PORT"} into it, with this node's addresses`,
      { cause },
    );
  }
}

/** The file is the old one or the new one, whenever the power goes. */
export function writeSettings(dataDir: string, settings: NodeSettings): void {
  const path = join(dataDir, settingsFile);
  const file = openSync(`${path}.tmp`, 'w', 0o600);
  try {
    writeSync(file, JSON.stringify(settings));
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(`${path}.tmp`, path);
}

/** From what a request asks for, where it asks, and the daemon's own flags. */
export function chooseSettings(
  asked: { readonly listen: string | undefined; readonly advertise: string | undefined },
  flags: { readonly listenAddress: string; readonly advertiseAddress: string | undefined },
): NodeSettings {
  // Docker's CLI always sends its own default, which is not this daemon's --listen-addr.
  const isDefault = !asked.listen || asked.listen === '0.0.0.0:2377';
  const listenAddress = isDefault ? flags.listenAddress : withPort(asked.listen, 'ListenAddr');
  const chosen = asked.advertise || flags.advertiseAddress;
  const advertiseAddress = chosen
    ? withPort(chosen, 'AdvertiseAddr', portOf(listenAddress))
    : guessAdvertiseAddress(listenAddress);
  return { listenAddress, advertiseAddress };
}
