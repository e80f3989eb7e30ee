import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { registryAuthHeader } from '../../cli/registry-auth.ts';

describe('cli: credentials of registries', () => {
  let folder: string;
  let environment: Record<string, string | undefined>;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'shoal-registry-auth-'));
    environment = { DOCKER_CONFIG: folder, PATH: `${folder}:${process.env.PATH}` };
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  const configure = (config: object) => writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
  const helper = (name: string, script: string) =>
    writeFileSync(join(folder, `docker-credential-${name}`), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  const headerOf = (image: string): unknown => {
    const header = registryAuthHeader(image, environment)['X-Registry-Auth'];
    return header === undefined ? undefined : JSON.parse(Buffer.from(header, 'base64url').toString('utf8'));
  };
  const auth = Buffer.from('ann:a:b').toString('base64');

  it('are those of the image’s registry, and none where nobody logged in', () => {
    assert.equal(headerOf('web:1'), undefined, 'there is no file');
    configure({ auths: { 'https://index.docker.io/v1/': { auth }, 'r.test:5000': { identitytoken: 't' } } });
    const hub = { username: 'ann', password: 'a:b', serveraddress: 'https://index.docker.io/v1/' };
    for (const image of ['web:1', 'ann/web']) assert.deepEqual(headerOf(image), hub);
    const token = { username: '', password: '', identitytoken: 't', serveraddress: 'r.test:5000' };
    assert.deepEqual(headerOf('r.test:5000/web'), token);
    assert.equal(headerOf('other.test/web'), undefined);
  });

  it('are asked of the helper that the file names, for one registry or for all', () => {
    configure({ credsStore: 'all', credHelpers: { 'ecr.test': 'one' } });
    const say = (name: string) =>
      `[ "$1" = get ] && read url; printf '{"ServerURL":"%s","Username":"${name}","Secret":"of %s"}' "$url" "$url"`;
    helper('one', say('AWS'));
    helper('all', say('<token>'));
    const ecr = { username: 'AWS', password: 'of ecr.test', serveraddress: 'ecr.test' };
    assert.deepEqual(headerOf('ecr.test/web:1'), ecr);
    const other = { username: '', password: '', identitytoken: 'of r.test', serveraddress: 'r.test' };
    assert.deepEqual(headerOf('r.test/web:1'), other);
  });

  it('of a helper that knows none are none; what it can’t do is told with its name', () => {
    configure({ credsStore: 'keys' });
    assert.throws(
      () => headerOf('web'),
      /docker-credential-keys, which .*config\.json names, can't be run: .*ENOENT/,
    );
    helper('keys', 'echo credentials not found in native keychain; exit 1');
    assert.equal(headerOf('web'), undefined);
    helper('keys', 'echo the keychain is locked; exit 1');
    assert.throws(() => headerOf('web'), /ended with status 1: the keychain is locked/);
    helper('keys', 'echo hello');
    assert.throws(() => headerOf('web'), /did not answer with a Username and a Secret/);
    configure({ credsStore: '../keys' });
    assert.throws(() => headerOf('web'), /is no name of a credential helper/);
  });
});
