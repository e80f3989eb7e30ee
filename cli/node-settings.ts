/** A node's addresses, chosen when it makes or joins a cluster and kept, for they must outlive a restart. */
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { messageOf, ShoalError } from '../proto/errors.ts';
import { guessAdvertiseAddress, hostOf, ofInterface, portOf, withPort } from './addresses.ts';

/** Listen and advertise address are host:port. */
export interface NodeSettings {
  readonly listenAddress: string;
  readonly advertiseAddress: string;
  /** Host only; absent where it is the advertised one. */
  readonly dataPathAddress?: string;
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
      ...(read.dataPathAddress ? { dataPathAddress: String(read.dataPathAddress) } : {}),
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

/** What Docker's CLI always sends, which is not this daemon's --listen-addr. */
const stockListenAddress = '0.0.0.0:2377';

/** Whether a request names an address of the node, and not only what is always sent. */
export function namesAddress(asked: {
  readonly ListenAddr?: string | undefined;
  readonly AdvertiseAddr?: string | undefined;
  readonly DataPathAddr?: string | undefined;
}): boolean {
  const listens = asked.ListenAddr && asked.ListenAddr !== stockListenAddress;
  return Boolean(listens || asked.AdvertiseAddr || asked.DataPathAddr);
}

/** From what a request asks for, where it asks, and the daemon's own flags. */
export function chooseSettings(
  asked: {
    readonly listen: string | undefined;
    readonly advertise: string | undefined;
    readonly dataPath?: string | undefined;
  },
  flags: { readonly listenAddress: string; readonly advertiseAddress: string | undefined },
): NodeSettings {
  const isDefault = !asked.listen || asked.listen === stockListenAddress;
  const listenAddress = isDefault ? flags.listenAddress : listenOn(asked.listen);
  const advertiseAddress = advertised(asked.advertise, listenAddress, flags);
  const dataPath = asked.dataPath ? ofInterface(asked.dataPath, 'DataPathAddr') : '';
  const isOwn = dataPath === '' || dataPath === hostOf(advertiseAddress);
  if (!isOwn && isIP(dataPath) === 0) {
    throw new ShoalError(
      'invalid-argument',
      `DataPathAddr "${dataPath}" is neither an IP address nor a network interface of this machine`,
    );
  }
  return { listenAddress, advertiseAddress, ...(isOwn ? {} : { dataPathAddress: dataPath }) };
}

function listenOn(asked: string): string {
  return withPort(ofInterface(asked, 'ListenAddr'), 'ListenAddr');
}

/** The port is the one that is listened on, unless it was said with the address; the flag's goes with the flag's. */
function advertised(
  asked: string | undefined,
  listenAddress: string,
  flags: { readonly listenAddress: string; readonly advertiseAddress: string | undefined },
): string {
  const port = portOf(listenAddress);
  if (asked) return withPort(ofInterface(asked, 'AdvertiseAddr'), 'AdvertiseAddr', port);
  if (!flags.advertiseAddress) return guessAdvertiseAddress(listenAddress);
  const flag = withPort(ofInterface(flags.advertiseAddress, '--advertise-addr'), '--advertise-addr', port);
  return listenAddress === flags.listenAddress ? flag : `${hostOf(flag)}:${port}`;
}
