/** The top-level networks, secrets and configs of a compose file as specs of the cluster's objects. */
import type { ConfigSpec, IPAMConfig, NetworkSpec, SecretSpec } from '../../proto/docker.ts';
import type { ComposeNetwork, ComposeSecret } from './schema.ts';
import { present, type Scope, some } from './scope.ts';
import type { Path } from './tree.ts';

/** The networks that the stack's services join and that are its own; unused ones are not made, as by Docker. */
export function networkSpecsOf(scope: Scope): NetworkSpec[] {
  const services = Object.values(scope.file.services ?? {});
  const used = new Set(
    services.flatMap((service) => {
      const names = Object.keys(service.networks ?? {});
      return names.length > 0 ? names : ['default'];
    }),
  );
  const defined = scope.file.networks ?? {};
  const names = [...Object.keys(defined), ...(Object.hasOwn(defined, 'default') ? [] : ['default'])];
  return names.flatMap((key) => {
    const network = defined[key];
    const path: Path = ['networks', key];
    scope.remember('network', scope.nameOf(key, network), network ? path : ['services']);
    if (!used.has(key)) {
      if (network && !network.external?.is) scope.warn(path, 'not created: no service uses it');
      return [];
    }
    return network?.external?.is ? [] : [networkSpecOf(scope, path, key, network ?? {})];
  });
}

function networkSpecOf(scope: Scope, path: Path, key: string, network: ComposeNetwork): NetworkSpec {
  if (network.ipam?.options) scope.warn([...path, 'ipam', 'options'], 'ignored: not supported');
  const configs = network.ipam?.config?.map((config) =>
    present<IPAMConfig>({ Subnet: config.subnet, Gateway: config.gateway, IPRange: config.ip_range }),
  );
  return present<NetworkSpec>({
    Name: scope.nameOf(key, network),
    Labels: scope.labels(network.labels),
    DriverConfiguration: present({ Name: network.driver ?? 'overlay', Options: network.driver_opts }),
    Internal: network.internal,
    Attachable: network.attachable,
    IPv6Enabled: network.enable_ipv6,
    IPAMOptions:
      network.ipam &&
      present({
        Driver: network.ipam.driver ? { Name: network.ipam.driver } : undefined,
        Configs: some(configs),
      }),
  });
}

type DataSpec = SecretSpec & ConfigSpec;

/** The stack's own secrets or configs, with their data. */
export function dataSpecsOf(scope: Scope, kind: 'secrets' | 'configs'): DataSpec[] {
  return Object.entries(scope.file[kind] ?? {}).flatMap(([key, object]) => {
    const path = [kind, key];
    const name = scope.nameOf(key, object);
    scope.remember(kind.slice(0, -1), name, path);
    if (object.external?.is) return [];
    const data = contentOf(scope, path, object);
    const driver = (object as ComposeSecret).driver;
    if (data === undefined && driver === undefined) return [];
    return [
      present<DataSpec>({
        Name: name,
        Labels: scope.labels(object.labels),
        Data: Buffer.from(data ?? '').toString('base64'),
        Driver:
          driver === undefined
            ? undefined
            : present({ Name: driver, Options: (object as ComposeSecret).driver_opts }),
        Templating: object.template_driver === undefined ? undefined : { Name: object.template_driver },
      }),
    ];
  });
}

type DataObject = Pick<ComposeSecret, 'file' | 'content' | 'environment' | 'driver'>;

function contentOf(scope: Scope, path: Path, object: DataObject): Uint8Array | string | undefined {
  const sources = (['file', 'content', 'environment', 'driver'] as const).filter(
    (name) => object[name] !== undefined,
  );
  if (sources.length !== 1) {
    const problem = sources.length === 0 ? 'has no content' : `has ${sources.join(' and ')}`;
    scope.error(path, `${problem}: give one of file, content, environment, or external: true`);
    return undefined;
  }
  if (object.file !== undefined) return scope.read([...path, 'file'], object.file);
  if (object.content !== undefined) return object.content;
  if (object.environment === undefined) return undefined;
  const value = Object.hasOwn(scope.environment, object.environment)
    ? scope.environment[object.environment]
    : undefined;
  if (value === undefined)
    scope.error([...path, 'environment'], `the ${object.environment} variable is not set`);
  return value;
}
