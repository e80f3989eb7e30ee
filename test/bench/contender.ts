/**
 * A cluster under measurement: ours or a stock Docker Swarm, on hosts of a lab. Both are asked through the same
 * Docker API in the same way, so that what is measured is the cluster and not its client.
 */
import { request } from 'node:http';
import { text as readText } from 'node:stream/consumers';
import type { ClusterNode, Task } from '../../proto/docker.ts';
import { formCluster } from '../lab/cluster.ts';
import { Lab, type LabHost, waitFor } from '../lab/lab.ts';

export type Side = 'ours' | 'peer';

const requestTimeoutMs = 5_000;

/** What a task list shows of a task. */
export type SeenTask = Pick<Task, 'ID' | 'NodeID' | 'Slot' | 'DesiredState' | 'Status'>;

export class Contender {
  readonly side: Side;
  readonly lab: Lab;

  constructor(side: Side, lab: Lab) {
    this.side = side;
    this.lab = lab;
  }

  /** Makes the lab's hosts a cluster whose first `managers` are managers. */
  async form(managers: number): Promise<void> {
    if (this.side === 'ours') return formCluster(this.lab, managers);
    const [first, ...others] = this.lab.hosts;
    await first!.engine(...swarmInit(first!));
    for (const [index, host] of others.entries()) {
      const role = index + 1 < managers ? 'manager' : 'worker';
      const token = (await first!.engine('swarm', 'join-token', '-q', role)).stdout.trim();
      const addresses = ['--advertise-addr', host.address, '--listen-addr', swarmAddress(host)];
      await host.engine('swarm', 'join', ...addresses, '--token', token, swarmAddress(first!));
    }
    await this.allReady(first!, 60_000);
  }

  /** Waits until every node is ready and every manager reachable, as `witness` sees them. */
  async allReady(witness: LabHost, boundMs: number): Promise<void> {
    await waitFor('all nodes to be ready', boundMs, async () => {
      const nodes = await this.nodes(witness);
      return (
        nodes.length === this.lab.hosts.length &&
        nodes.every(({ Status }) => Status.State === 'ready') &&
        nodes.every((node) => (node.ManagerStatus?.Reachability ?? 'reachable') === 'reachable')
      );
    });
  }

  async boot(host: LabHost): Promise<void> {
    await host.powerOn();
    if (this.side === 'ours') await host.startShoald();
  }

  nodes(witness: LabHost): Promise<ClusterNode[]> {
    return this.call<ClusterNode[]>(witness, 'GET', '/nodes');
  }

  async leader(witness: LabHost): Promise<LabHost> {
    const leader = (await this.nodes(witness)).find((node) => node.ManagerStatus?.Leader);
    const host = this.lab.hosts.find(({ name }) => name === leader?.Description.Hostname);
    if (host === undefined) throw new Error('no leader is shown');
    return host;
  }

  /** Creates a service that sleeps; its id. */
  async createService(witness: LabHost, name: string, replicas: number): Promise<string> {
    const { ID } = await this.call<{ ID: string }>(witness, 'POST', '/services/create', {
      Name: name,
      TaskTemplate: {
        ContainerSpec: { Image: 'busybox:lab', Args: ['sleep', '1000000'], StopGracePeriod: 1e9 },
      },
      Mode: { Replicated: { Replicas: replicas } },
    });
    return ID;
  }

  /** Removes the service and waits until no container of a task is left on any host. */
  async removeService(witness: LabHost, id: string): Promise<void> {
    await this.call(witness, 'DELETE', `/services/${id}`);
    await waitFor('the containers to be gone', 120_000, async () => {
      const left = await Promise.all(this.lab.hosts.map((host) => host.engine('ps', '-aq')));
      return left.every(({ stdout }) => stdout.trim() === '');
    });
  }

  tasks(witness: LabHost, serviceId: string): Promise<SeenTask[]> {
    const filters = JSON.stringify({ service: { [serviceId]: true } });
    return this.call<SeenTask[]>(witness, 'GET', `/tasks?filters=${encodeURIComponent(filters)}`);
  }

  /** The tasks that run, on nodes other than `lostNodeId`. */
  async runningTasks(witness: LabHost, serviceId: string, lostNodeId?: string): Promise<SeenTask[]> {
    return (await this.tasks(witness, serviceId)).filter(
      (task) =>
        task.DesiredState === 'running' && task.Status.State === 'running' && task.NodeID !== lostNodeId,
    );
  }

  /** How many slots run, on nodes other than `lostNodeId`. */
  async runningSlots(witness: LabHost, serviceId: string, lostNodeId?: string): Promise<number> {
    const running = await this.runningTasks(witness, serviceId, lostNodeId);
    return new Set(running.map(({ Slot }) => Slot)).size;
  }

  /** A small write that needs a leader. */
  async write(witness: LabHost, name: string): Promise<void> {
    await this.call(witness, 'POST', '/configs/create', { Name: name, Data: 'eA==' });
  }

  private call<T>(host: LabHost, method: string, path: string, body?: unknown): Promise<T> {
    const socketPath = this.side === 'ours' ? host.shoalSocket : host.dockerSocket;
    return callApi<T>(socketPath, method, path, body);
  }
}

/** Beside our own daemon's 2377, so that both can stand on one host. */
function swarmAddress(host: LabHost): string {
  return `${host.address}:2387`;
}

function swarmInit(host: LabHost): string[] {
  return ['swarm', 'init', '--advertise-addr', swarmAddress(host), '--listen-addr', swarmAddress(host)];
}

/** One request without a version in its path: each daemon answers in its newest. */
async function callApi<T>(socketPath: string, method: string, path: string, body: unknown): Promise<T> {
  const payload = body === undefined ? undefined : JSON.stringify(body);
  const headers = payload === undefined ? {} : { 'Content-Type': 'application/json' };
  return new Promise<T>((resolve, reject) => {
    const signal = AbortSignal.timeout(requestTimeoutMs);
    const sent = request({ socketPath, method, path, headers, signal, agent: false }, (response) => {
      readText(response).then((text) => {
        const status = response.statusCode ?? 0;
        if (status < 200 || status > 299) reject(new Error(`${method} ${path}: ${status} ${text}`));
        else resolve((text === '' ? undefined : JSON.parse(text)) as T);
      }, reject);
    });
    sent.on('error', reject);
    sent.end(payload);
  });
}

/**
 * A lab with `hosts` engines, taken down when the bench is interrupted. Without a registry the peer would look
 * for one before every task: it is told to use what is there.
 */
export async function labUp(hosts: number): Promise<Lab> {
  process.env.DOCKER_SERVICE_PREFER_OFFLINE_IMAGE = '1';
  const lab = await Lab.up(hosts, 'shoal-bench');
  const end = (): void => {
    lab.down().finally(() => process.exit(2));
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.removeAllListeners(signal).once(signal, end);
  return lab;
}
