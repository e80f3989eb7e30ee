/**
 * From what a Docker Swarm's API answers to what is asked of ours. In: the swarm's objects. Out: specs whose
 * references are names, and what is not taken, with its reason and what can be done. Pure; it decides nothing about
 * what is here already, which the manager knows.
 */
import { overlaps, parseSubnet, subnetsOf } from '../../manager/store/ip.ts';
import type { Labels } from '../../proto/docker.ts';

/** An object as Docker's API answers it; only what is looked at here is named. */
interface Answer<S> {
  readonly ID: string;
  readonly Spec: S;
}

type Json = Readonly<Record<string, unknown>>;

interface Named extends Json {
  readonly Name: string;
  readonly Labels?: Labels | null;
}

export interface SourceService extends Named {
  readonly TaskTemplate: {
    readonly Runtime?: string;
    readonly ContainerSpec?: {
      readonly Image?: string;
      readonly Secrets?: readonly (Json & { readonly SecretName: string })[] | null;
      readonly Configs?: readonly (Json & { readonly ConfigName: string })[] | null;
      readonly Mounts?: readonly { readonly Type?: string; readonly Source?: string }[] | null;
    };
    readonly Networks?: readonly (Json & { readonly Target: string })[] | null;
  };
  readonly Networks?: readonly (Json & { readonly Target: string })[] | null;
}

export interface SourceNetwork {
  readonly Id: string;
  readonly Name: string;
  readonly Driver: string;
  readonly Scope: string;
  readonly Labels?: Labels | null;
  readonly Options?: Readonly<Record<string, string>> | null;
  readonly Attachable?: boolean;
  readonly Internal?: boolean;
  readonly Ingress?: boolean;
  readonly EnableIPv6?: boolean;
  readonly IPAM?: { readonly Config?: readonly Readonly<Record<string, string>>[] | null };
}

export interface SourceNode {
  readonly Spec: { readonly Labels?: Labels | null };
  readonly Description: { readonly Hostname: string };
}

/** Everything that was read. */
export interface SourceSwarm {
  readonly clusterId: string;
  readonly networks: readonly SourceNetwork[];
  readonly configs: readonly Answer<Named>[];
  readonly secrets: readonly Answer<Named & { readonly Driver?: { readonly Name: string } | null }>[];
  readonly services: readonly Answer<SourceService>[];
  readonly nodes: readonly SourceNode[];
  /** Names of volumes that the swarm itself provides (CSI). */
  readonly clusterVolumes: readonly string[];
}

export interface ImportChoices {
  /** Name → content in base64. */
  readonly secrets: ReadonlyMap<string, string>;
  /** Names of secrets that are here already. */
  readonly secretsHere: ReadonlySet<string>;
  /** Networks get the subnets that they have there; else new ones, for both may run on the same hosts a while. */
  readonly keepSubnets: boolean;
}

/** Something of the swarm that is not taken. */
export interface Untaken {
  readonly what: string;
  readonly why: string;
}

export interface ImportBody {
  readonly Origin: string;
  readonly Networks: readonly Json[];
  readonly Configs: readonly Json[];
  readonly Secrets: readonly Json[];
  readonly Services: readonly Json[];
  readonly NodeLabels: Readonly<Record<string, Labels>>;
}

const vxlanIds = 'com.docker.network.driver.overlay.vxlanid_list';
const engineNetworks = new Set(['host', 'none', 'bridge']);

/** The request to the manager, and what has no part in it. */
export function importOf(
  source: SourceSwarm,
  choices: ImportChoices,
): { readonly body: ImportBody; readonly untaken: readonly Untaken[] } {
  const untaken: Untaken[] = [];
  const networkNames = new Map(source.networks.map(({ Id, Name }) => [Id, Name]));
  const body: ImportBody = {
    Origin: `the Docker Swarm ${source.clusterId}`,
    Networks: source.networks.flatMap((network) => networkOf(network, choices, untaken)),
    Configs: source.configs.map(({ Spec }) => labelled(Spec)),
    Secrets: source.secrets.flatMap((secret) => secretOf(secret.Spec, source, choices, untaken)),
    Services: source.services.flatMap(({ Spec }) => serviceOf(Spec, networkNames, untaken)),
    NodeLabels: nodeLabelsOf(source.nodes),
  };
  for (const volume of source.clusterVolumes) {
    untaken.push({
      what: `volume ${volume}`,
      why: 'it is provided by a CSI plugin, which Shoal does not run',
    });
  }
  const known = new Set(source.secrets.map(({ Spec }) => Spec.Name));
  for (const name of choices.secrets.keys()) {
    if (!known.has(name))
      untaken.push({ what: `--secret ${name}`, why: 'the swarm has no secret of this name' });
  }
  return { body, untaken };
}

function labelled<T extends Named>(spec: T): T & { readonly Labels: Labels } {
  return { ...spec, Labels: spec.Labels ?? {} };
}

function networkOf(network: SourceNetwork, { keepSubnets }: ImportChoices, untaken: Untaken[]): Json[] {
  // The mesh is every cluster's own, and the engine's networks are on every node.
  if (network.Ingress || network.Scope !== 'swarm' || engineNetworks.has(network.Name)) return [];
  if (network.Driver !== 'overlay') {
    untaken.push({
      what: `network ${network.Name}`,
      why: `its driver is ${network.Driver}, and Shoal makes overlay networks only; its services are refused until there is an overlay network of this name`,
    });
    return [];
  }
  const { [vxlanIds]: _given, ...Options } = network.Options ?? {};
  const Configs = keepSubnets ? (network.IPAM?.Config ?? []).map(subnetOf) : [];
  return [
    {
      Name: network.Name,
      Labels: network.Labels ?? {},
      DriverConfiguration: {
        Name: 'overlay',
        ...(Object.keys(Options).length > 0 ? { Options } : {}),
      },
      Scope: 'swarm',
      ...(network.Attachable ? { Attachable: true } : {}),
      ...(network.Internal ? { Internal: true } : {}),
      ...(network.EnableIPv6 ? { IPv6Enabled: true } : {}),
      ...(Configs.length > 0 ? { IPAMOptions: { Driver: { Name: 'default' }, Configs } } : {}),
    },
  ];
}

function subnetOf({ Subnet, Gateway, IPRange }: Readonly<Record<string, string>>): Json {
  return { ...(Subnet ? { Subnet } : {}), ...(Gateway ? { Gateway } : {}), ...(IPRange ? { IPRange } : {}) };
}

function secretOf(
  spec: Named & { readonly Driver?: { readonly Name: string } | null },
  source: SourceSwarm,
  { secrets, secretsHere }: ImportChoices,
  untaken: Untaken[],
): Json[] {
  const Data = secrets.get(spec.Name);
  if (Data !== undefined) {
    const { Driver: _driver, ...rest } = labelled(spec);
    return [{ ...rest, Data }];
  }
  if (secretsHere.has(spec.Name)) return [];
  const users = source.services
    .filter(({ Spec }) =>
      (Spec.TaskTemplate.ContainerSpec?.Secrets ?? []).some(({ SecretName }) => SecretName === spec.Name),
    )
    .map(({ Spec }) => Spec.Name);
  const needed = users.length > 0 ? `needed by ${users.join(', ')}` : 'no service uses it';
  const from = spec.Driver
    ? `its content comes from the plugin ${spec.Driver.Name}`
    : 'no Swarm gives a secret’s content away';
  untaken.push({
    what: `secret ${spec.Name}`,
    why: `${from} (${needed}): give it with --secret ${spec.Name}=FILE, or make it here first`,
  });
  return [];
}

/** Ids of that swarm's networks become names; those of secrets and configs have their names beside them. */
function serviceOf(
  spec: SourceService,
  networkNames: ReadonlyMap<string, string>,
  untaken: Untaken[],
): Json[] {
  const { TaskTemplate } = spec;
  if ((TaskTemplate.Runtime ?? 'container') !== 'container') {
    untaken.push({
      what: `service ${spec.Name}`,
      why: `it runs no containers (runtime ${TaskTemplate.Runtime}), and Shoal runs nothing else`,
    });
    return [];
  }
  const byName = (networks: SourceService['Networks']): Json[] =>
    (networks ?? []).map((attachment) => ({
      ...attachment,
      Target: networkNames.get(attachment.Target) ?? attachment.Target,
    }));
  const { Networks: oldNetworks, ...rest } = labelled(spec);
  const Networks = byName(TaskTemplate.Networks ?? oldNetworks);
  const { Networks: _ids, ...task } = TaskTemplate;
  return [{ ...rest, TaskTemplate: { ...task, ...(Networks.length > 0 ? { Networks } : {}) } }];
}

function nodeLabelsOf(nodes: readonly SourceNode[]): Record<string, Labels> {
  return Object.fromEntries(
    nodes.flatMap(({ Description, Spec }) =>
      Object.keys(Spec.Labels ?? {}).length > 0 ? [[Description.Hostname, Spec.Labels ?? {}] as const] : [],
    ),
  );
}

/**
 * The swarm's subnets that lie in the pools of the cluster here: a host that is in both while it moves can't have the
 * same subnet twice, and its engine refuses the tasks of the second. Undefined when there are none.
 */
export function sharedSubnets(source: SourceSwarm, pools: readonly string[]): Untaken | undefined {
  const ours = pools.flatMap((pool) => parseSubnet(pool) ?? []);
  const shared = source.networks
    .filter(({ Scope }) => Scope === 'swarm')
    .flatMap(({ Name, IPAM }) => {
      const isShared = subnetsOf(IPAM?.Config ?? []).some((subnet) =>
        ours.some((pool) => overlaps(pool, subnet)),
      );
      return isShared ? [Name] : [];
    });
  if (shared.length === 0) return undefined;
  return {
    what: 'subnets',
    why: `networks ${shared.join(', ')} of the swarm have theirs in the pool of this cluster (${pools.join(', ')}), so that a host can't be in both at a time; make this cluster with another one if hosts are to move one by one, e.g. shoal swarm init --default-addr-pool 10.128.0.0/16`,
  };
}
