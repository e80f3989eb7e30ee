import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  base36,
  formatJoinToken,
  formatUnlockKey,
  newTokenSecret,
  newUnlockKey,
  parseJoinToken,
  parseUnlockKey,
  roleOfUnit,
  unitOfRole,
} from '../../proto/identity.ts';
import { seededRandom } from '../simulation/random.ts';

const digest = 'd'.repeat(50);
const secret = 's'.repeat(25);

describe('join tokens', () => {
  it('come back from their form as they went in', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 32, maxLength: 32 }),
        fc.uint8Array({ minLength: 16, maxLength: 16 }),
        (digestBytes, secretBytes) => {
          const token = { rootDigest: base36(digestBytes, 50), secret: base36(secretBytes, 25) };
          const text = formatJoinToken(token);
          assert.match(text, /^SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}$/);
          assert.deepEqual(parseJoinToken(` ${text}\n`), token);
        },
      ),
    );
  });

  it('know the number that their digits stand for', () => {
    assert.equal(base36(Uint8Array.of(1, 0), 4), '0074');
    assert.equal(newTokenSecret(seededRandom(1)).length, 25);
  });

  const malformed: [string, string, RegExp][] = [
    ['empty', '', /it is empty/],
    ['some other word', 'hello', /begins with SWMTKN-1-/],
    ['an unlock key', formatUnlockKey(new Uint8Array(32)), /unlock key \(SWMKEY-…\), not a join token/],
    ['of a FIPS cluster', `SWMTKN-2-${digest}-${secret}`, /FIPS cluster/],
    ['of a later version', `SWMTKN-9-${digest}-${secret}`, /begins with SWMTKN-1-/],
    ['cut before the secret', `SWMTKN-1-${digest}`, /its end is missing/],
    [
      'cut in the secret',
      `SWMTKN-1-${digest}-${secret.slice(3)}`,
      /last part has 22 characters instead of 25/,
    ],
    ['with a short digest', `SWMTKN-1-${digest.slice(1)}-${secret}`, /third part has 49 characters/],
    ['with something behind', `SWMTKN-1-${digest}-${secret}-x`, /more parts than the four/],
    ['in capitals', `SWMTKN-1-${digest}-${secret.toUpperCase()}`, /other than small letters/],
  ];
  for (const [what, text, expected] of malformed) {
    it(`are refused in words when ${what}`, () => {
      assert.throws(
        () => parseJoinToken(text),
        (error: Error & { code?: string }) => {
          assert.equal(error.code, 'invalid-argument');
          assert.match(error.message, expected);
          assert.match(error.message, /shoal swarm join-token/);
          assert.ok(!error.message.includes(secret.slice(3)), 'the refusal repeats the secret');
          return true;
        },
      );
    });
  }
});

describe('unlock keys', () => {
  it('come back from their form', () => {
    const text = newUnlockKey(seededRandom(3));
    assert.match(text, /^SWMKEY-1-[A-Za-z0-9+/]{43}$/);
    assert.equal(formatUnlockKey(parseUnlockKey(`${text}\n`)), text);
  });

  it('are refused when malformed, and never repeated', () => {
    for (const text of ['', 'SWMKEY-1-', 'SWMKEY-1-short', `SWMKEY-2-${'A'.repeat(43)}`, 'SWMTKN-1-x']) {
      assert.throws(() => parseUnlockKey(text), /invalid unlock key/);
    }
  });
});

describe('roles', () => {
  it('are written as organizational units and read back', () => {
    for (const role of ['worker', 'manager'] as const) assert.equal(roleOfUnit(unitOfRole(role)), role);
    assert.equal(roleOfUnit('swarm-ca'), undefined);
    assert.equal(roleOfUnit(undefined), undefined);
  });
});
