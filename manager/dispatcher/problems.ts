/**
 * What nodes' data planes can't do as the managers want it, kept with each node. In: their reports, whole each time.
 * Out: changes of the node, when it tells something other than what is stored: one at a time, and no more often than
 * once in a while, for every one is an entry of the log. What could not be stored is told anew with a later report.
 */
import type { ClusterNode, NodeProblem } from '../../proto/docker.ts';
import { messageOf } from '../../proto/errors.ts';
import type { EndpointsProblem } from '../../proto/generated/shoal/v1/EndpointsProblem.ts';
import { asId, type NodeId } from '../../proto/ids.ts';
import type { Clock, Log } from '../../proto/ports.ts';
import type { View } from '../store/store.ts';
import type { StatusChange } from './status.ts';

/** A node may tell anything: it is kept only so much of it. */
const maxProblems = 100;
const maxMessageCharacters = 500;
/** After a change of a node's problems the next one waits so long. */
export const problemsGapMs = 1_000;

/** The problems that a node has by its report, each with the time since when; undefined: those that are stored. */
export function problemsOf(
  told: readonly EndpointsProblem[],
  stored: readonly NodeProblem[],
  now: number,
): NodeProblem[] | undefined {
  const since = new Map(stored.map((problem) => [keyOf(problem), problem.Since]));
  const byKey = new Map<string, NodeProblem>();
  for (const { message, network_id, service_id } of told.slice(0, maxProblems)) {
    const fields = {
      Message: (message ?? '').slice(0, maxMessageCharacters),
      ...(network_id ? { NetworkID: asId<NonNullable<NodeProblem['NetworkID']>>(network_id) } : {}),
      ...(service_id ? { ServiceID: asId<NonNullable<NodeProblem['ServiceID']>>(service_id) } : {}),
    };
    const key = keyOf(fields);
    byKey.set(key, { ...fields, Since: since.get(key) ?? new Date(now).toISOString() });
  }
  const isSame = byKey.size === since.size && [...byKey.keys()].every((key) => since.has(key));
  return isSame ? undefined : [...byKey.values()];
}

function keyOf({ Message, NetworkID, ServiceID }: Omit<NodeProblem, 'Since'>): string {
  return JSON.stringify([NetworkID ?? '', ServiceID ?? '', Message]);
}

export interface NodeProblemsOptions {
  readonly store: View;
  readonly clock: Clock;
  readonly log: Log;
  /** Resolves when the change is committed. */
  readonly commit: (change: StatusChange) => Promise<void>;
}

export class NodeProblems {
  private readonly options: NodeProblemsOptions;
  /** What nodes told last that is being stored, or waits for its turn. */
  private readonly told = new Map<NodeId, readonly EndpointsProblem[]>();

  constructor(options: NodeProblemsOptions) {
    this.options = options;
  }

  /** The node tells all of its problems. */
  tell(nodeId: NodeId, problems: readonly EndpointsProblem[]): void {
    const isUnderWay = this.told.has(nodeId);
    if (!isUnderWay && this.changeOf(nodeId, problems) === undefined) return;
    this.told.set(nodeId, problems);
    if (!isUnderWay) void this.store(nodeId, problems);
  }

  /** Nothing more is stored. */
  stop(): void {
    this.told.clear();
  }

  private async store(nodeId: NodeId, problems: readonly EndpointsProblem[]): Promise<void> {
    const { clock, log, commit } = this.options;
    const change = this.changeOf(nodeId, problems);
    if (change === undefined) {
      this.told.delete(nodeId);
      return;
    }
    await commit(change).catch((error: unknown) =>
      log.warn({ node: nodeId, error: messageOf(error) }, 'what a node can’t do is not stored yet'),
    );
    clock.after(problemsGapMs, () => {
      const latest = this.told.get(nodeId);
      if (latest === problems) this.told.delete(nodeId);
      else if (latest !== undefined) void this.store(nodeId, latest);
    });
  }

  private changeOf(nodeId: NodeId, told: readonly EndpointsProblem[]): StatusChange | undefined {
    const node: ClusterNode | undefined = this.options.store.get('node', nodeId);
    const Problems = node && problemsOf(told, node.Problems ?? [], this.options.clock.now());
    return Problems && { op: 'merge', kind: 'node', id: nodeId, fields: { Problems } };
  }
}
