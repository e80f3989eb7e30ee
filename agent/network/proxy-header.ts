/**
 * The header by which a proxy tells a server whose connection it passes on: PROXY protocol, version 2, as HAProxy's
 * proxy-protocol.txt (2.2, "Binary header format") has it. Pure.
 */

/** One end of a connection: an IPv4 or IPv6 address, IPv4 also as IPv6 writes it (`::ffff:192.0.2.1`). */
export interface Side {
  readonly address: string;
  readonly port: number;
}

const signature = Uint8Array.of(0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a);
/** Version 2, command PROXY: the connection is somebody else's. */
const versionAndCommand = 0x21;
const familyAndStream = { ipv4: 0x11, ipv6: 0x21 } as const;

/**
 * The header's bytes for a TCP connection from `source` to `destination`, the address that was asked. Both as IPv4 where
 * both can be, else both as IPv6. Throws RangeError for what is no address or port.
 */
export function proxyHeader(source: Side, destination: Side): Uint8Array {
  const sides = [source, destination].map(({ address }) => bytesOf(address));
  const short = sides.map(asIpv4);
  const isIpv4 = short.every((one) => one !== undefined);
  const addresses = (isIpv4 ? short : sides).flatMap((one) => one ?? []);
  const body = [...addresses, ...portBytes(source), ...portBytes(destination)];
  const family = isIpv4 ? familyAndStream.ipv4 : familyAndStream.ipv6;
  return Uint8Array.from([
    ...signature,
    versionAndCommand,
    family,
    body.length >> 8,
    body.length & 0xff,
    ...body,
  ]);
}

/** The 16 bytes of an address; IPv4 within IPv6's ::ffff:0:0/96. */
function bytesOf(address: string): number[] {
  // A zone says by which interface an address is meant here: to another host it means nothing.
  const bare = address.replace(/%.*$/, '');
  const [, front = '', ipv4] = /^(.*?)(\d{1,3}(?:\.\d{1,3}){3})$/.exec(bare) ?? [];
  const tail = ipv4?.split('.').map(Number);
  const groups =
    tail === undefined ? bare : `${front}${hexadecimal(tail.slice(0, 2))}:${hexadecimal(tail.slice(2))}`;
  const whole = tail !== undefined && front === '' ? `::ffff:${groups}` : groups;
  const halves = whole.split('::').map((half) => (half === '' ? [] : half.split(':')));
  const [before = [], after] = halves;
  const lacking = 8 - before.length - (after?.length ?? 0);
  const isWhole = after === undefined ? lacking === 0 : lacking > 0;
  const all = [...before, ...Array<string>(Math.max(0, lacking)).fill('0'), ...(after ?? [])];
  const isAddress = isWhole && halves.length <= 2 && all.every((group) => /^[0-9a-f]{1,4}$/i.test(group));
  if (!isAddress || tail?.some((byte) => byte > 255)) throw new RangeError(`"${address}" is no IP address`);
  return all.flatMap((group) => {
    const value = Number.parseInt(group, 16);
    return [value >> 8, value & 0xff];
  });
}

function hexadecimal(bytes: readonly number[]): string {
  return bytes.map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/** Its last four bytes, where it is an IPv4 address. */
function asIpv4(bytes: readonly number[]): number[] | undefined {
  const isMapped = bytes.slice(0, 10).every((byte) => byte === 0) && bytes[10] === 0xff && bytes[11] === 0xff;
  return isMapped ? bytes.slice(12) : undefined;
}

function portBytes({ port }: Side): [number, number] {
  if (!Number.isInteger(port) || port < 0 || port > 65_535) throw new RangeError(`${port} is no port`);
  return [port >> 8, port & 0xff];
}
