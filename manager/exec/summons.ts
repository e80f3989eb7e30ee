/**
 * The leader's part in commands: it knows which agents listen, and tells one of them which manager to dial. In: agents'
 * listening streams, requests of managers. Out: a summons to the agent, or why there is none. It sees no command.
 */
import { engineIdLabel } from '../../proto/docker.ts';
import { ShoalError } from '../../proto/errors.ts';
import type { ExecSummons } from '../../proto/generated/shoal/v1/ExecSummons.ts';
import type { NodeId } from '../../proto/ids.ts';
import type { Sink, StreamHandle } from '../../proto/rpc-stream.ts';
import type { View } from '../store/store.ts';

/** A node's agent is to dial the manager at `address` (host:port) for the command `execId`. */
export interface Summoning {
  readonly execId: string;
  readonly nodeId: NodeId;
  readonly address: string;
}

export class Summons {
  private readonly store: View;
  private readonly listeners = new Map<NodeId, Sink<ExecSummons>>();

  constructor(store: View) {
    this.store = store;
  }

  /** Ends every stream. */
  stop(leaderAddress?: string): void {
    for (const sink of this.listeners.values()) sink.end(notLeading(leaderAddress));
    this.listeners.clear();
  }

  /** An agent listens, in place of an older stream of its node. */
  listen(nodeId: NodeId, sink: Sink<ExecSummons>): StreamHandle {
    this.listeners.get(nodeId)?.end(new ShoalError('conflict', 'the node opened a newer stream'));
    this.listeners.set(nodeId, sink);
    return {
      close: () => {
        if (this.listeners.get(nodeId) === sink) this.listeners.delete(nodeId);
      },
    };
  }

  /** Throws 'not-found', 'not-supported' or 'unavailable' with the reason when there is nobody to tell. */
  summon({ execId, nodeId, address }: Summoning): void {
    const listener = this.listeners.get(nodeId);
    if (listener === undefined) throw this.unheard(nodeId);
    void listener.send({ exec_id: execId, address }).catch(() => undefined);
  }

  private unheard(nodeId: NodeId): ShoalError {
    const node = this.store.get('node', nodeId);
    if (node === undefined) return new ShoalError('not-found', `node ${nodeId} not found`);
    const name = node.Description.Hostname || nodeId;
    if (node.Description.Engine.Labels[engineIdLabel] === undefined)
      return new ShoalError(
        'not-supported',
        `node ${name} is a stock Docker Engine, whose agent runs no commands for managers: use docker exec on that node`,
      );
    if (node.Status.State !== 'ready')
      return new ShoalError(
        'failed-precondition',
        `node ${name} is ${node.Status.State}: no command reaches its tasks`,
      );
    return new ShoalError(
      'unavailable',
      `the agent of node ${name} does not listen for commands just now: try again`,
    );
  }
}

/** Thrown where only the leader can answer. */
export function notLeading(leaderAddress: string | undefined): ShoalError {
  return new ShoalError(
    'not-leader',
    leaderAddress === undefined
      ? 'agents are reached through the leader, and this manager knows of none: try again'
      : `agents are reached through the leader: ask ${leaderAddress}`,
    { details: leaderAddress === undefined ? {} : { leader: leaderAddress } },
  );
}
