/**
 * Questions to nodes' data planes, on the streams on which they are told of endpoints. In: questions, what nodes
 * answer, nodes that are gone. Out: each question on its way, and its answer; within a bounded time, and no more than a
 * few of one node at a time.
 */
import { ShoalError } from '../../proto/errors.ts';
import type { EndpointsAnswer } from '../../proto/generated/shoal/v1/EndpointsAnswer.ts';
import type { EndpointsQuestion } from '../../proto/generated/shoal/v1/EndpointsQuestion.ts';
import type { NodeId } from '../../proto/ids.ts';
import type { Clock, Timer } from '../../proto/ports.ts';

/** A node looks at its kernel for less than a second; other managers wait for the leader longer than that. */
export const questionTimeoutMs = 8_000;
export const maxQuestionsOfNode = 16;

interface Pending {
  readonly nodeId: NodeId;
  readonly resolve: (answer: EndpointsAnswer) => void;
  readonly reject: (error: ShoalError) => void;
  readonly timer: Timer;
}

export class Questions {
  private readonly clock: Clock;
  private readonly pending = new Map<string, Pending>();
  private lastNumber = 0;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /**
   * Asks a node by `send`. Rejects with 'timeout', with 'unavailable' when the node goes or is asked too much, and with
   * the node's own words when it can't answer.
   */
  ask(
    nodeId: NodeId,
    about: EndpointsQuestion,
    send: (question: EndpointsQuestion) => void,
  ): Promise<EndpointsAnswer> {
    const open = [...this.pending.values()].filter((one) => one.nodeId === nodeId).length;
    if (open >= maxQuestionsOfNode) {
      return Promise.reject(
        new ShoalError('unavailable', `${open} questions wait for the node's answer already: try again`),
      );
    }
    this.lastNumber += 1;
    const id = String(this.lastNumber);
    return new Promise((resolve, reject) => {
      const timer = this.clock.after(questionTimeoutMs, () =>
        this.end(id)?.reject(
          new ShoalError(
            'timeout',
            `the node did not answer within ${questionTimeoutMs / 1000} s: try again`,
          ),
        ),
      );
      this.pending.set(id, { nodeId, resolve, reject, timer });
      send({ ...about, id });
    });
  }

  /** A node answers; what was not asked of it is passed over. */
  answered(nodeId: NodeId, answer: EndpointsAnswer): void {
    const id = answer.question_id ?? '';
    if (this.pending.get(id)?.nodeId !== nodeId) return;
    const asked = this.end(id);
    if (answer.error) asked?.reject(new ShoalError('unavailable', answer.error));
    else asked?.resolve(answer);
  }

  /** The node's stream ended. */
  gone(nodeId: NodeId): void {
    for (const [id, one] of [...this.pending]) {
      if (one.nodeId !== nodeId) continue;
      this.end(id)?.reject(new ShoalError('unavailable', 'the node’s connection ended: try again'));
    }
  }

  private end(id: string): Pending | undefined {
    const pending = this.pending.get(id);
    this.pending.delete(id);
    pending?.timer.cancel();
    return pending;
  }
}
