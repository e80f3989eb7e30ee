/** List flags whose values name other objects, which the daemon is asked for: secrets, configs, networks. */
import type { ConfigReference, FileTarget, SecretReference } from '../proto/docker.ts';
import type { ApiClient } from './client.ts';
import { parseFileReference, parseNetwork } from './parse.ts';
import { withContainer, withTask } from './service-flags.ts';
import { type ListFlag, merged } from './service-list-flags.ts';

interface FoundFile {
  readonly ID: string;
  readonly Name: string;
  readonly File: FileTarget;
}

async function findFile(client: ApiClient, kind: 'secret' | 'config', text: string): Promise<FoundFile> {
  const { source, File } = parseFileReference(text, `--${kind}`);
  const path = `/${kind}s/${encodeURIComponent(source)}`;
  const found = await client.get<{ ID: string; Spec: { Name: string } }>(path);
  return { ID: found.ID, Name: found.Spec.Name, File };
}

const targetOf = (reference: SecretReference | ConfigReference): string => reference.File?.Name ?? '';

async function networkId(client: ApiClient, name: string): Promise<string> {
  // The cluster's, or of the engine's own those that services may name.
  return (await client.get<{ Id: string }>(`/networks/${encodeURIComponent(name)}`, { scope: 'swarm' })).Id;
}

/** --secret, --config and --network. */
export const referenceFlags: readonly ListFlag[] = [
  {
    name: 'secret',
    argument: '<secret>',
    description: 'give it a secret: name, or source=NAME,target=FILE,mode=0440',
    removes: 'secret',
    add: async (spec, values, client) => {
      const found = await Promise.all(values.map((value) => findFile(client(), 'secret', value)));
      const references = found.map(({ ID, Name, File }): SecretReference => {
        return { File, SecretID: ID as SecretReference['SecretID'], SecretName: Name };
      });
      return withContainer(spec, {
        Secrets: merged(spec.TaskTemplate.ContainerSpec.Secrets, references, targetOf),
      });
    },
    remove: (spec, names) =>
      withContainer(spec, {
        Secrets: (spec.TaskTemplate.ContainerSpec.Secrets ?? []).filter(
          (one) => !names.includes(one.SecretName),
        ),
      }),
  },
  {
    name: 'config',
    argument: '<config>',
    description: 'give it a config: name, or source=NAME,target=PATH,mode=0440',
    removes: 'config',
    add: async (spec, values, client) => {
      const found = await Promise.all(values.map((value) => findFile(client(), 'config', value)));
      const references = found.map(({ ID, Name, File }): ConfigReference => {
        return { File, ConfigID: ID as ConfigReference['ConfigID'], ConfigName: Name };
      });
      return withContainer(spec, {
        Configs: merged(spec.TaskTemplate.ContainerSpec.Configs, references, targetOf),
      });
    },
    remove: (spec, names) =>
      withContainer(spec, {
        Configs: (spec.TaskTemplate.ContainerSpec.Configs ?? []).filter(
          (one) => !names.includes(one.ConfigName),
        ),
      }),
  },
  {
    name: 'network',
    argument: '<network>',
    description: 'attach to a network: name, or name=NAME,alias=ALIAS',
    removes: 'network',
    add: async (spec, values, client) => {
      const added = await Promise.all(
        values.map(parseNetwork).map(async (network) => ({
          ...network,
          Target: await networkId(client(), network.Target),
        })),
      );
      return withTask(spec, {
        Networks: merged(spec.TaskTemplate.Networks, added, (network) => network.Target),
      });
    },
    remove: async (spec, names, client) => {
      const gone = new Set<string>(names);
      for (const name of names) gone.add(await networkId(client(), name));
      return withTask(spec, {
        Networks: (spec.TaskTemplate.Networks ?? []).filter((network) => !gone.has(network.Target)),
      });
    },
  },
];
