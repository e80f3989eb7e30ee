/**
 * How soon a change that the store holds stands in every host's kernel: five hosts with engines, three of them managers.
 * A service's published port becomes another one, and each host's own kernel tells when its rules change (`nft monitor`). Counted is from the answer to the request, which comes with the commit, and from the request's
 * beginning, which takes in Raft and the disks as well. And how long a rule outlives its port on a host that was cut off
 * meanwhile and comes back.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { clientOf, formCluster, leaderHost, runningTasks } from '../lab/cluster.ts';
import { Lab, type LabHost, labMissing, waitFor } from '../lab/lab.ts';
import type { Bench, BenchOptions } from './bench.ts';
import type { Metric } from './report.ts';

const hostCount = 5;
const managers = 3;
const replicas = 10;
const defaultRuns = 100;
const partitions = 3;
const boundMs = 60_000;
const medianMs = 100;
const worstMs = 500;
/** Agents look at their kernel as often, whatever they are told. */
const reconcileMs = 30_000;
const firstPort = 20_000;
const monitorMs = 3_000;
const service = 'web';
const network = 'front';

export const convergence: Bench = {
  name: 'convergence',
  description: 'from a commit to the rule on each of five hosts; stale rules after a partition',
  missing: labMissing,
  run: measure,
};

/** What a host's kernel says of changes of our rules, line by line, with the time at which it was heard. */
class RuleMonitor {
  readonly host: LabHost;
  private readonly child: ChildProcess;
  private readonly lines: { readonly text: string; readonly atMs: number }[] = [];

  constructor(lab: Lab, host: LabHost) {
    this.host = host;
    this.child = spawn(lab.scriptPath, ['exec', host.name, 'nft', '-nn', 'monitor'], {
      env: lab.environment,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    createInterface({ input: this.child.stdout! }).on('line', (text) => {
      this.lines.push({ text, atMs: performance.now() });
    });
  }

  forget(): void {
    this.lines.length = 0;
  }

  /** When a line that matches was heard; waits for it. */
  heard(pattern: RegExp, withinMs = boundMs): Promise<number> {
    return waitFor(`${pattern} on ${this.host.name}`, withinMs, () => {
      return this.lines.find(({ text }) => pattern.test(text))?.atMs;
    });
  }

  async end(): Promise<void> {
    this.child.kill('SIGTERM');
    if (this.child.exitCode === null && this.child.signalCode === null) await once(this.child, 'exit');
  }
}

interface Samples {
  readonly fromCommit: number[];
  readonly fromRequest: number[];
  readonly stale: number[];
}

async function measure({ runs = defaultRuns, progress }: BenchOptions): Promise<Metric[]> {
  const lab = await Lab.up(hostCount, 'shoal-bench-conv');
  const monitors: RuleMonitor[] = [];
  const samples: Samples = { fromCommit: [], fromRequest: [], stale: [] };
  try {
    await formCluster(lab, managers);
    await makeService(lab.host(1));
    for (const host of lab.hosts) monitors.push(new RuleMonitor(lab, host));
    await warmUp(lab, monitors);
    for (let run = 0; run < runs; run += 1) {
      const { fromCommit, fromRequest } = await portChange(lab, monitors, firstPort + run);
      samples.fromCommit.push(fromCommit);
      samples.fromRequest.push(fromRequest);
      progress(`change ${run + 1}: ${fromCommit.toFixed(0)} ms, of the request ${fromRequest.toFixed(0)} ms`);
    }
    for (let run = 0; run < partitions; run += 1) {
      samples.stale.push(await staleRule(lab, monitors, firstPort + runs + 2 * run));
      progress(`a rule outlived the partition's end by ${samples.stale.at(-1)?.toFixed(0)} ms`);
    }
  } finally {
    for (const monitor of monitors) await monitor.end();
    await lab.down();
  }
  return metricsOf(samples);
}

function metricsOf({ fromCommit, fromRequest, stale }: Samples): Metric[] {
  const none = { peer: [], unit: 'ms' };
  const percentile = (percent: number, atMost: number) => ({ kind: 'percentile', percent, atMost }) as const;
  return [
    { ...none, name: 'commit-to-every-node-p50', ours: fromCommit, limit: percentile(50, medianMs) },
    { ...none, name: 'commit-to-every-node-p99', ours: fromCommit, limit: percentile(99, worstMs) },
    { ...none, name: 'request-to-every-node', ours: fromRequest },
    { ...none, name: 'stale-after-partition', ours: stale, limit: { kind: 'worst', atMost: reconcileMs } },
  ];
}

async function makeService(host: LabHost): Promise<void> {
  await host.shoal('network', 'create', '-d', 'overlay', network);
  await host.shoal(
    ...['service', 'create', '-d', '--name', service, '--replicas', String(replicas), '--network', network],
    ...['--stop-grace-period', '1s', '--publish', '8080:80', 'busybox:lab', 'sleep', '1000000'],
  );
  await waitFor('the service to run', boundMs * 2, async () => {
    return (await runningTasks(host, service)).length === replicas;
  });
}

/** Publishes `port` in place of the one before; when the request began and was answered. */
async function publish(host: LabHost, port: number): Promise<{ beganAt: number; answeredAt: number }> {
  const client = clientOf(host);
  const { Spec, Version } = await client.get<{ Spec: object; Version: { Index: number } }>(
    `/services/${service}`,
  );
  const EndpointSpec = {
    Ports: [{ Protocol: 'tcp', TargetPort: 80, PublishedPort: port, PublishMode: 'ingress' }],
  };
  const beganAt = performance.now();
  await client.post(
    `/services/${service}/update`,
    { ...Spec, EndpointSpec },
    { version: String(Version.Index) },
  );
  return { beganAt, answeredAt: performance.now() };
}

const added = (port: number) => new RegExp(`^add element inet shoal ports \\{.* ${port}\\b`);
const deleted = (port: number) => new RegExp(`^delete element inet shoal ports \\{.* ${port}\\b`);

/** Changes until every host's kernel was heard: a monitor does not say when it begins. */
async function warmUp(lab: Lab, monitors: readonly RuleMonitor[]): Promise<void> {
  const leader = await leaderHost(lab, lab.host(1));
  let port = firstPort;
  await waitFor('every monitor to hear', boundMs, async () => {
    port -= 1;
    await publish(leader, port);
    const heard = monitors.map((monitor) => monitor.heard(added(port), monitorMs));
    return (await Promise.allSettled(heard)).every(({ status }) => status === 'fulfilled');
  });
}

async function portChange(lab: Lab, monitors: readonly RuleMonitor[], port: number) {
  const leader = await leaderHost(lab, lab.host(1));
  for (const monitor of monitors) monitor.forget();
  const { beganAt, answeredAt } = await publish(leader, port);
  const last = Math.max(...(await Promise.all(monitors.map((monitor) => monitor.heard(added(port))))));
  return { fromCommit: last - answeredAt, fromRequest: last - beganAt };
}

/** Changes the port while a host is cut off; how long the rule of the port before outlives the cut there. */
async function staleRule(lab: Lab, monitors: readonly RuleMonitor[], port: number): Promise<number> {
  const away = lab.host(hostCount);
  await portChange(lab, monitors, port);
  await lab.script('partition', away.name);
  for (const monitor of monitors) monitor.forget();
  await publish(await leaderHost(lab, lab.host(1)), port + 1);
  const others = monitors.filter(({ host }) => host !== away);
  await Promise.all(others.map((monitor) => monitor.heard(added(port + 1))));
  await waitFor('the host to be lost', boundMs, async () => {
    const nodes = await clientOf(lab.host(1)).get<{ Status: { State: string } }[]>('/nodes');
    return nodes.some(({ Status }) => Status.State === 'down');
  });
  const healing = lab.script('heal', away.name).then(() => performance.now());
  const gone = monitors.find(({ host }) => host === away)!.heard(deleted(port));
  return Math.max(0, (await gone) - (await healing));
}
