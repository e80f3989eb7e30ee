/**
 * Every field that Docker's API definitions know, of every version served, is known to our schemas: a
 * client that sends it holding nothing is never told that it is unknown.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import {
  readConfigSpec,
  readInit,
  readJoin,
  readNetworkCreate,
  readNodeSpec,
  readSecretSpec,
  readSwarmSpec,
  readUnlock,
} from '../../../manager/api/cluster-schema.ts';
import { readServiceSpec } from '../../../manager/api/service-schema.ts';
import { messageOf } from '../../../proto/errors.ts';

const corpus = path.join(process.env.SHOAL_CORPUS ?? path.resolve('..', 'shared', 'corpus'), 'docker-api');
const versions = ['1.41', '1.47', '1.51'];

interface Schema {
  $ref?: string;
  type?: string;
  properties?: Record<string, Schema>;
  items?: Schema;
  allOf?: Schema[];
}

interface Swagger {
  definitions: Record<string, Schema>;
  paths: Record<string, Record<string, { parameters?: { in: string; schema?: Schema }[] }>>;
}

/** Where each reader's definition stands: a named one, or the body of a request. */
const readers: [string, (body: unknown) => unknown, (swagger: Swagger) => Schema][] = [
  ['ServiceSpec', readServiceSpec, (swagger) => swagger.definitions.ServiceSpec!],
  ['SwarmSpec', readSwarmSpec, (swagger) => swagger.definitions.SwarmSpec!],
  ['NodeSpec', readNodeSpec, (swagger) => swagger.definitions.NodeSpec!],
  ['SecretSpec', readSecretSpec, (swagger) => swagger.definitions.SecretSpec!],
  ['ConfigSpec', readConfigSpec, (swagger) => swagger.definitions.ConfigSpec!],
  ['POST /networks/create', readNetworkCreate, (swagger) => bodyOf(swagger, '/networks/create')],
  ['POST /swarm/init', readInit, (swagger) => bodyOf(swagger, '/swarm/init')],
  ['POST /swarm/join', readJoin, (swagger) => bodyOf(swagger, '/swarm/join')],
  ['POST /swarm/unlock', readUnlock, (swagger) => bodyOf(swagger, '/swarm/unlock')],
];

function bodyOf(swagger: Swagger, url: string): Schema {
  return swagger.paths[url]!.post!.parameters!.find((parameter) => parameter.in === 'body')!.schema!;
}

function resolve(swagger: Swagger, schema: Schema): Schema {
  if (schema.$ref !== undefined) {
    return resolve(swagger, swagger.definitions[schema.$ref.replace('#/definitions/', '')]!);
  }
  if (!schema.allOf) return schema;
  const parts = schema.allOf.map((part) => resolve(swagger, part));
  const properties = Object.assign({}, ...parts.map((part) => part.properties), schema.properties);
  return { type: 'object', properties };
}

const zeros: Record<string, unknown> = {
  string: '',
  integer: 0,
  number: 0,
  boolean: false,
  array: [],
  object: {},
};

/** One body for every field at every depth, each holding nothing. */
function bodies(swagger: Swagger, schema: Schema, depth = 0): [path: string, body: unknown][] {
  const { type = 'object', properties, items } = resolve(swagger, schema);
  const own: [string, unknown][] = [['', zeros[type]]];
  if (depth > 8) return own;
  if (items) {
    const inner = bodies(swagger, items, depth + 1);
    return [...own, ...inner.slice(1).map(([at, body]): [string, unknown] => [`[]${at}`, [body]])];
  }
  const fields = Object.entries(properties ?? {}).flatMap(([name, field]) =>
    bodies(swagger, field, depth + 1).map(([at, body]): [string, unknown] => [
      `.${name}${at}`,
      { [name]: body },
    ]),
  );
  return [...own, ...fields];
}

for (const version of versions) {
  describe(`conformance: the fields of Docker API ${version}`, () => {
    const file = path.join(corpus, `swagger-v${version}.json`);
    if (!existsSync(file)) {
      it.skip(`needs ${path.basename(file)} of the recorded corpus (SHOAL_CORPUS)`);
      return;
    }
    const swagger = JSON.parse(readFileSync(file, 'utf8')) as Swagger;
    for (const [name, read, find] of readers) {
      it(`of ${name} are all known`, () => {
        const all = bodies(swagger, find(swagger));
        assert.ok(all.length > 1);
        const unknown = all.filter(([, body]) => {
          try {
            read(body);
            return false;
          } catch (error) {
            return messageOf(error).includes('unknown field');
          }
        });
        assert.deepEqual(
          unknown.map(([at]) => at),
          [],
        );
      });
    }
  });
}
