import assert from 'node:assert/strict';
import fc from 'fast-check';
import { formatAddress, formatSubnet, parseAddress, parseSubnet } from '../../../manager/store/ip.ts';

describe('store: IP addresses', () => {
  for (const [text, expected] of [
    ['10.0.0.1', '10.0.0.1'],
    ['::', '::'],
    ['::1', '::1'],
    ['FD00:0:0:1::', 'fd00:0:0:1::'],
    ['fd00:1:0:0:2:0:0:0', 'fd00:1:0:0:2::'],
    ['1:0:0:2:0:0:0:3', '1:0:0:2::3'],
    ['1:2:3:4:5:6:7:8', '1:2:3:4:5:6:7:8'],
    ['1:0:3:4:5:6:7:8', '1:0:3:4:5:6:7:8'],
    ['fd00::0010', 'fd00::10'],
  ] as const) {
    it(`${text} is ${expected}`, () => {
      assert.equal(formatAddress(parseAddress(text)!), expected);
    });
  }

  it('what is none is none', () => {
    const bad = [
      '',
      '10.0.0',
      '10.0.0.256',
      '10.0.0.01',
      ':::',
      '1::2::3',
      '1:2:3:4:5:6:7',
      'g::',
      '1:2:3:4:5:6:7::8',
      ':1::',
      '1:',
      '12345::',
    ];
    for (const text of bad) assert.equal(parseAddress(text), undefined, text);
    for (const text of ['10.0.0.0/33', 'fd00::/129', 'fd00::', '10.0.0.0/1/2', '10.0.0.0/'])
      assert.equal(parseSubnet(text), undefined, text);
  });

  it('what is written is read again', () => {
    const value = fc.bigInt({ min: 0n, max: 2n ** 128n - 1n });
    fc.assert(
      fc.property(value, fc.integer({ min: 0, max: 128 }), (bits, mask) => {
        const address = { family: 6, value: (bits >> BigInt(mask)) << BigInt(mask) } as const;
        assert.deepEqual(parseAddress(formatAddress(address)), address);
        const subnet = parseSubnet(`${formatAddress(address)}/${mask}`)!;
        assert.deepEqual(parseSubnet(formatSubnet(subnet)), subnet);
      }),
    );
  });
});
