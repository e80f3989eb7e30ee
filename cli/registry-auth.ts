/** The credentials that `docker login` keeps for an image's registry, as the API's header carries them. */
import { existsSync, readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { messageOf, ShoalError } from '../proto/errors.ts';
import { registryOf } from '../proto/image-registry.ts';

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
  if (config.credHelpers?.[registry] ?? config.credsStore) {
    throw new ShoalError(
      'not-supported',
      `--with-registry-auth: ${path} keeps credentials in a credential helper, which is not supported yet; log in with a DOCKER_CONFIG folder of its own that has none`,
    );
  }
  const entry = config.auths?.[registry] ?? config.auths?.[`https://${registry}`];
  if (!entry?.auth && !entry?.identitytoken) return {};
  const [username, ...password] = Buffer.from(entry.auth ?? '', 'base64')
    .toString('utf8')
    .split(':');
  const auth = {
    username,
    password: password.join(':'),
    serveraddress: registry,
    ...(entry.identitytoken ? { identitytoken: entry.identitytoken } : {}),
  };
  return { 'X-Registry-Auth': Buffer.from(JSON.stringify(auth)).toString('base64url') };
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
