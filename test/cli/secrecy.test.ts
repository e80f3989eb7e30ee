/** What is secret stays so: not in the log, not in metrics, not in answers, not on disk in the clear. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { TestDaemon } from './daemon.ts';

const secretText = 'the-colour-of-the-whale-is-7f3a9c';

describe('secrecy', function () {
  this.timeout(120_000);
  let daemon: TestDaemon;
  /** Name → what nobody may read. */
  const secrets = new Map<string, string>();

  before(async () => {
    daemon = await TestDaemon.start('n1');
    const unlockKeyOf = (text: string): string => /SWMKEY-1-\S+/.exec(text)?.[0] ?? '';
    secrets.set('first unlock key', unlockKeyOf(await daemon.out('swarm', 'init', '--autolock')));
    secrets.set('unlock key', await daemon.out('swarm', 'unlock-key', '--rotate', '-q'));
    for (const role of ['worker', 'manager']) {
      secrets.set(`${role} token`, await daemon.out('swarm', 'join-token', '-q', role));
      secrets.set(`new ${role} token`, await daemon.out('swarm', 'join-token', '--rotate', '-q', role));
    }
    const made = await daemon.shoalWith(secretText, 'secret', 'create', 'whale', '-');
    assert.equal(made.status, 0, made.stderr);
    secrets.set('secret', secretText);
    secrets.set('secret in base64', Buffer.from(secretText).toString('base64'));
    secrets.set('secret in hexadecimal', Buffer.from(secretText).toString('hex'));
    await daemon.out('service', 'create', '-q', '--name', 'web', '--secret', 'whale', 'busybox');
  });
  after(() => daemon?.destroy());

  /** Fails with the names, not the contents, of what is found in `text`. */
  const assertAbsent = (text: string, where: string, except: readonly string[] = []): void => {
    // The last part of a token or key is its secret; what stands before is the same for everybody.
    const found = [...secrets].filter(([name, secret]) => {
      const needle = /^SWM/.test(secret) ? secret.split('-').at(-1)! : secret;
      assert.ok(needle.length > 20, name);
      return !except.includes(name) && text.includes(needle);
    });
    assert.deepEqual(
      found.map(([name]) => name),
      [],
      `found in ${where}`,
    );
  };

  it('there is something to keep secret, and it would be found', () => {
    assert.equal(secrets.size, 9);
    assert.throws(() => assertAbsent(`x${secretText}x`, 'here'), /found in here/);
  });

  it('not in the log', () => {
    assert.match(daemon.log, /session with the managers established/);
    assertAbsent(daemon.log, 'the log');
  });

  it('not in metrics', async () => {
    const answer = await fetch(`http://127.0.0.1:${daemon.metricsPort}/metrics`);
    const text = await answer.text();
    assert.match(text, /raft/);
    assertAbsent(text, '/metrics');
  });

  it('not in what is answered', async () => {
    const answers = await Promise.all([
      daemon.out('secret', 'inspect', 'whale'),
      daemon.out('secret', 'ls', '--format', 'json'),
      daemon.out('service', 'inspect', 'web'),
      daemon.out('service', 'ps', '--no-trunc', 'web'),
      daemon.out('node', 'inspect', 'self'),
      daemon.out('info', '--format', 'json'),
    ]);
    for (const text of answers) assertAbsent(text, text.slice(0, 40));
  });

  it('not in any file below --data-dir, not while it runs and not after', async () => {
    const check = (): void => {
      const files = readdirSync(daemon.dataDir, { recursive: true, withFileTypes: true }).filter((entry) =>
        entry.isFile(),
      );
      assert.ok(files.some((entry) => entry.parentPath.includes('raft')));
      for (const entry of files) {
        const path = join(entry.parentPath, entry.name);
        assertAbsent(readFileSync(path, 'latin1'), path);
      }
    };
    check();
    await daemon.end();
    check();
    assertAbsent(daemon.log, 'the log after the end');
  });
});
