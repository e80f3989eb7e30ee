/**
 * The credentials that `docker login` keeps for an image's registry, in its file or by a credential helper, as the API's header
 * carries them.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { messageOf, ShoalError } from '../proto/errors.ts';
import { registryOf } from '../proto/image-registry.ts';

/** A helper may ask a keychain, or a person. */
const helperTimeoutMs = 60_000;

interface DockerConfig {
  readonly auths?: Record<string, { auth?: string; identitytoken?: string }>;
  readonly credsStore?: string;
  readonly credHelpers?: Record<string, string>;
}

/** X-Registry-Auth for `image`; empty when nobody logged in to its registry. */
export function registryAuthHeader(
  image: string,
  environment: Record<string, string | undefined>,
): Record<string, string> {
  const path = join(environment.DOCKER_CONFIG ?? join(homedir(), '.docker'), 'config.json');
  if (!existsSync(path)) return {};
  const registry = registryOf(image);
  const config = readConfig(path);
  const helper = config.credHelpers?.[registry] ?? config.credsStore;
  const found = helper
    ? fromHelper(helper, registry, environment, path)
    : fromFile(config.auths?.[registry] ?? config.auths?.[`https://${registry}`]);
  if (found === undefined) return {};
  const header = { ...found, serveraddress: registry };
  return { 'X-Registry-Auth': Buffer.from(JSON.stringify(header)).toString('base64url') };
}

interface Credentials {
  readonly username: string;
  readonly password: string;
  readonly identitytoken?: string;
}

function fromFile(entry: { auth?: string; identitytoken?: string } | undefined): Credentials | undefined {
  if (!entry?.auth && !entry?.identitytoken) return undefined;
  const [username = '', ...password] = Buffer.from(entry.auth ?? '', 'base64')
    .toString('utf8')
    .split(':');
  const token = entry.identitytoken ? { identitytoken: entry.identitytoken } : {};
  return { username, password: password.join(':'), ...token };
}

/**
 * What the program `docker-credential-<helper>` says: asked on its standard input, answered in JSON on its output, as `docker`
 * does it. Undefined when it knows none for the registry.
 */
function fromHelper(
  helper: string,
  registry: string,
  env: Record<string, string | undefined>,
  path: string,
): Credentials | undefined {
  const program = `docker-credential-${helper}`;
  const failed = (why: string) =>
    new ShoalError('invalid-argument', `--with-registry-auth: ${program}, which ${path} names, ${why}`);
  if (!/^[\w.-]+$/.test(helper)) throw failed('is no name of a credential helper');
  const asked = spawnSync(program, ['get'], {
    input: registry,
    env,
    encoding: 'utf8',
    timeout: helperTimeoutMs,
  });
  // One that does not read what it is asked may have answered all the same.
  if (asked.status === null) throw failed(`can't be run: ${messageOf(asked.error ?? asked.signal)}`);
  const said = asked.stdout.trim();
  if (asked.status !== 0) {
    if (/credentials not found/i.test(said)) return undefined;
    throw failed(`ended with status ${asked.status}: ${said || asked.stderr.trim()}`);
  }
  const answer = answerOf(said);
  if (answer === undefined) throw failed('did not answer with a Username and a Secret');
  const { Username, Secret } = answer;
  if (Username === '<token>') return { username: '', password: '', identitytoken: Secret };
  return { username: Username, password: Secret };
}

function answerOf(text: string): { Username: string; Secret: string } | undefined {
  try {
    const { Username, Secret } = JSON.parse(text) as { Username?: unknown; Secret?: unknown };
    return typeof Username === 'string' && typeof Secret === 'string' ? { Username, Secret } : undefined;
  } catch {
    return undefined;
  }
}

function readConfig(path: string): DockerConfig {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as DockerConfig;
  } catch (error) {
    throw new ShoalError(
      'invalid-argument',
      `--with-registry-auth: ${path} can't be read: ${messageOf(error)}`,
    );
  }
}
