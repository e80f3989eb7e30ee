/** Services asked by their virtual addresses and names, from every task that shares a network with them. */
import type { Service } from '../../proto/docker.ts';
import { clientOf, nodesSeenBy, runningTasks } from './cluster.ts';
import type { Lab, LabHost } from './lab.ts';

interface AttachedTask {
  readonly NodeID?: string;
  readonly Status: { readonly ContainerStatus?: { readonly ContainerID: string } };
  readonly NetworksAttachments?: readonly { readonly Network: { readonly ID: string } }[];
}

/** Where a service is to be asked from, and by what. */
export interface VirtualAddressQuestion {
  readonly host: LabHost;
  readonly containerId: string;
  readonly service: string;
  /** Without prefix, IPv4 or IPv6. */
  readonly address: string;
}

/** Every pair of a running task and a service with running tasks on a network of both; a task asks its own service, too. */
export async function virtualAddressQuestions(
  lab: Lab,
  witness: LabHost,
  names: readonly string[],
): Promise<VirtualAddressQuestion[]> {
  const client = clientOf(witness);
  const hostnames = new Map(
    (await nodesSeenBy(witness)).map(({ ID, Description }) => [String(ID), Description.Hostname]),
  );
  const known = await Promise.all(
    names.map(async (name) => ({
      name,
      service: await client.get<Service>(`/services/${name}`),
      tasks: (await runningTasks(witness, name)) as readonly AttachedTask[],
    })),
  );
  const questions: VirtualAddressQuestion[] = [];
  for (const { name, service, tasks } of known.filter((one) => one.tasks.length > 0)) {
    const own = new Set(service.Spec.TaskTemplate.Networks?.map(({ Target }) => String(Target)));
    const addresses = (service.Endpoint.VirtualIPs ?? []).filter(({ NetworkID }) => own.has(NetworkID));
    if (addresses.length === 0 && tasks.length > 0) throw new Error(`${name} has no virtual address`);
    for (const { NetworkID, Addr } of addresses) {
      for (const task of known.flatMap((one) => one.tasks)) {
        if (!task.NetworksAttachments?.some(({ Network }) => Network.ID === NetworkID)) continue;
        const host = lab.hosts.find((one) => one.name === hostnames.get(task.NodeID ?? ''));
        const containerId = task.Status.ContainerStatus?.ContainerID;
        if (host === undefined || containerId === undefined)
          throw new Error(`a task of ${name} has no place`);
        questions.push({ host, containerId, service: name, address: Addr.replace(/\/\d+$/, '') });
      }
    }
  }
  return questions;
}

/** What a web server of the service on port 80 answers there, by `to`: its virtual address or its name. */
export async function askFrom(
  { host, containerId }: VirtualAddressQuestion,
  to: string,
): Promise<string | undefined> {
  // The image's wget does not work with its C library.
  const script = `a=${to}; case $a in *[.:]*) ;; *) a=$(nslookup $a | sed -n 's/^Address: //p' | head -1);; esac; printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 $a 80`;
  const { stdout } = await host.engine('exec', containerId, 'sh', '-c', script);
  return stdout.trim().split('\n').at(-1)?.trim();
}

/** What there is to see of the way from there, for who reads why nobody answered. Never rejects. */
export async function lookFrom({ host, containerId, service }: VirtualAddressQuestion): Promise<string> {
  const inside = (script: string) => host.engine('exec', containerId, 'sh', '-c', script);
  const outside = (...command: string[]) => host.exec(...command);
  const looks = [
    () => inside(`cat /etc/resolv.conf; nslookup ${service} 2>&1`),
    () => inside('ip -4 address; ip -6 address; ip -6 route; ip -6 neigh'),
    () => outside('ss', '-lnu', 'sport', '=', ':53'),
    () => outside('ip', '-6', 'address'),
    () => outside('ip', '-6', 'route', 'show', 'table', 'all'),
    () => outside('ip', '-6', 'neigh'),
    () => outside('conntrack', '-L', '-p', 'udp', '--dport', '53'),
  ];
  const outcomes = await Promise.allSettled(looks.map((look) => look()));
  return outcomes
    .map((one) => (one.status === 'fulfilled' ? one.value.stdout : String(one.reason)).trim())
    .join('\n--\n');
}
