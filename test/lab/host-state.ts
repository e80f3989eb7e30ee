/** What stands in a host's kernel of networks: as the plan sees it, and as a stranger does. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readActual } from '../../agent/network/apply.ts';
import { type Desired, nothingDesired } from '../../agent/network/desired.ts';
import { Kernel } from '../../agent/network/kernel.ts';
import { describeOperation, planDataPlane } from '../../agent/network/reconcile.ts';
import type { Service } from '../../proto/docker.ts';
import { clientOf, nodesSeenBy } from './cluster.ts';
import type { Lab, LabHost } from './lab.ts';

interface ListedTask {
  readonly ID: string;
  readonly ServiceID: string;
  readonly DesiredState: string;
  readonly Status: { readonly State: string };
  readonly NetworksAttachments?: readonly { readonly Network: { readonly ID: string } }[];
}

/** Changes by itself, whoever is on the host. */
const volatile = /nf_conntrack_count|\/neigh\/|stable_secret|\/random\/|fe80::[0-9a-f:]+ dev docker0/;

/**
 * Rules, interfaces, routes, settings and the engine's networks of a host, a line each, sorted: what a cluster's networks
 * could have changed. Counters and what else changes by itself is left out.
 */
export async function hostState(host: LabHost): Promise<string[]> {
  const script = `
    nft -nn -s list ruleset | sed 's/^[[:space:]]*/rule: /'
    nft list tables
    ip -o link | sed -E 's/^[0-9]+: ([^:@]+)[:@].* mtu ([0-9]+) .*/link: \\1 mtu \\2/'
    ip -o link | sed -nE 's/^[0-9]+: ([^:@]+)[:@].* master ([^ ]+) .*/port: \\1 of \\2/p'
    for family in -4 -6; do ip $family route show table all; ip $family rule; done | sed -E 's/^/route: /; s/ (linkdown|expires [0-9]+sec)//g'
    find /proc/sys/net -type f -exec grep -sH . {} + | sed 's/^/setting: /'
    docker network ls --format 'network: {{.Name}} {{.Driver}}'`;
  const { stdout } = await host.exec('sh', '-c', script);
  const lines = stdout.split('\n').map((line) => line.trim());
  return lines.filter((line) => line !== '' && !volatile.test(line)).sort();
}

/** What the agent on `host` was told last, as it keeps it. */
export function desiredOn(host: LabHost): Desired {
  return readJson(join(host.dataDir, 'agent', 'network.json'), nothingDesired);
}

/** The plan's operations for `host`, a line each: none when its kernel is as the agent was told. */
export async function planOn(lab: Lab, host: LabHost): Promise<string[]> {
  const kernel = new Kernel({
    prefix: ['env', `LAB_NAME=${lab.name}`, lab.scriptPath, 'exec', host.name],
  });
  const desired = desiredOn(host);
  const nodes = await nodesSeenBy(host).catch(() => nodesSeenBy(lab.host(1)));
  const nodeId = nodes.find(({ Description }) => Description.Hostname === host.name)?.ID ?? '';
  const prior = readJson<Record<string, string>>(join(host.dataDir, 'agent', 'settings-before.json'), {});
  const actual = await readActual(kernel, desired, new Map(Object.entries(prior)));
  const keys = [...actual.tunnels.values()].map(({ name, publicKey: key }) => ({
    place: name.endsWith('1') ? (1 as const) : (0 as const),
    key,
  }));
  return planDataPlane(desired, actual, { nodeId, local: '', keys }).flatMap(describeOperation);
}

/** Where what the agent on `host` was told differs from what `witness` says there is; undefined: nowhere. */
export async function staleness(host: LabHost, witness: LabHost): Promise<string | undefined> {
  const client = clientOf(witness);
  const [services, tasks, networks] = await Promise.all([
    client.get<Service[]>('/services'),
    client.get<ListedTask[]>('/tasks'),
    client.get<{ Id: string; Name: string }[]>('/networks'),
  ]);
  const told = desiredOn(host);
  const known = new Set(networks.map(({ Id }) => Id));
  const gone = told.networks.filter(({ id }) => !known.has(id));
  if (gone.length > 0) return `${host.name} has the removed networks ${gone.map(({ name }) => name)}`;
  const own = new Set(told.networks.map(({ id }) => id));
  for (const service of services) {
    const endpoints = tasks.filter(
      (task) =>
        task.ServiceID === service.ID && task.DesiredState === 'running' && task.Status.State === 'running',
    );
    const isConcerned = endpoints.some(({ NetworksAttachments }) =>
      NetworksAttachments?.some(({ Network }) => own.has(Network.ID)),
    );
    const expected = endpoints
      .map(({ ID }) => ID)
      .sort()
      .join();
    const found = told.services.find(({ id }) => id === service.ID)?.endpoints ?? [];
    const ids = found
      .map(({ taskId }) => taskId)
      .sort()
      .join();
    if (ids !== expected && (isConcerned || ids !== '')) {
      return `${host.name} was told of ${service.Spec.Name}: ${ids || 'nothing'}, there is ${expected || 'nothing'}`;
    }
  }
  const serviceIds = new Set<string>(services.map(({ ID }) => ID));
  const strange = told.services.filter(({ id }) => !serviceIds.has(id));
  return strange.length === 0
    ? undefined
    : `${host.name} has the removed services ${strange.map(({ name }) => name)}`;
}

function readJson<T>(path: string, otherwise: T): T {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as T;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return otherwise;
    throw error;
  }
}
