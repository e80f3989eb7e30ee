import assert from 'node:assert/strict';
import fc from 'fast-check';
import { proxyHeader } from '../../../agent/network/proxy-header.ts';

const signature = '0d0a0d0a000d0a515549540a';
const hexadecimal = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

/** Reads a header as a server does, by the text of the protocol; addresses in digits. */
function read(header: Uint8Array) {
  const bytes = Buffer.from(header);
  assert.equal(bytes.subarray(0, 12).toString('hex'), signature);
  assert.equal(bytes[12], 0x21);
  const size = { 17: 4, 33: 16 }[bytes[13] ?? 0];
  assert.ok(size !== undefined, `family ${bytes[13]}`);
  assert.equal(bytes.readUInt16BE(14), 2 * size + 4);
  assert.equal(bytes.length, 16 + 2 * size + 4);
  const digits = (from: number) => bytes.subarray(from, from + size).toString('hex');
  return {
    source: digits(16),
    destination: digits(16 + size),
    sourcePort: bytes.readUInt16BE(16 + 2 * size),
    destinationPort: bytes.readUInt16BE(18 + 2 * size),
  };
}

describe('a header of the PROXY protocol', () => {
  for (const [title, source, destination, expected] of [
    ['IPv4', '192.0.2.7', '198.51.100.1', '2111000cc0000207c6336401'],
    ['IPv4 as IPv6 writes it', '::ffff:192.0.2.7', '::ffff:198.51.100.1', '2111000cc0000207c6336401'],
    [
      'IPv6',
      '2001:db8::7',
      'fd77::1',
      '2121002420010db8000000000000000000000007fd770000000000000000000000000001',
    ],
    [
      'IPv6 with a zone, and written in full',
      'fe80::a:1%eth0',
      '1:2:3:4:5:6:7:8',
      '21210024fe8000000000000000000000000a000100010002000300040005000600070008',
    ],
    [
      'one of each',
      '192.0.2.7',
      '::1',
      '2121002400000000000000000000ffffc000020700000000000000000000000000000001',
    ],
  ] as const) {
    it(`tells both sides of a connection: ${title}`, () => {
      const header = proxyHeader({ address: source, port: 51_234 }, { address: destination, port: 443 });
      assert.equal(hexadecimal(header), `${signature}${expected}c82201bb`);
    });
  }

  it('is read as what was written, whatever the addresses and ports', () => {
    const port = fc.integer({ min: 0, max: 65_535 });
    const group = (address: string) =>
      address.split('.').map((one) => Number(one).toString(16).padStart(2, '0'));
    const ipv4 = fc.ipV4().map((address) => ({ address, digits: group(address).join('') }));
    const ipv6 = fc
      .array(fc.integer({ min: 0, max: 0xffff }), { minLength: 8, maxLength: 8 })
      // Of documentation: never one that is an IPv4 address at heart.
      .map((groups) => [0x2001, 0xdb8, ...groups.slice(2)])
      .map((groups) => ({
        address: groups
          .map((one) => one.toString(16))
          .join(':')
          .replace(/:0(?::0)+:/, '::'),
        digits: groups.map((one) => one.toString(16).padStart(4, '0')).join(''),
      }));
    const pair = fc.oneof(fc.tuple(ipv4, ipv4), fc.tuple(ipv6, ipv6));
    fc.assert(
      fc.property(pair, port, port, ([source, destination], sourcePort, destinationPort) => {
        const header = proxyHeader(
          { address: source.address, port: sourcePort },
          { address: destination.address, port: destinationPort },
        );
        assert.deepEqual(read(header), {
          source: source.digits,
          destination: destination.digits,
          sourcePort,
          destinationPort,
        });
      }),
    );
  });

  for (const address of [
    '',
    'localhost',
    '192.0.2',
    '192.0.2.256',
    '1:2:3',
    '1::2::3',
    '1:2:3:4:5:6:7:8:9',
    'g::1',
  ]) {
    it(`refuses ${JSON.stringify(address)}, which is no address`, () => {
      const other = { address: '::1', port: 1 };
      assert.throws(() => proxyHeader({ address, port: 1 }, other), RangeError);
      assert.throws(() => proxyHeader(other, { address, port: 1 }), RangeError);
    });
  }

  for (const port of [-1, 65_536, 1.5, Number.NaN]) {
    it(`refuses ${port}, which is no port`, () => {
      const other = { address: '::1', port: 1 };
      assert.throws(() => proxyHeader({ address: '::1', port }, other), RangeError);
    });
  }
});
