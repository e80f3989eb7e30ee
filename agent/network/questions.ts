/**
 * What managers ask of a node's data plane, answered: from what it was told and what stands in its kernel now. Nothing is
 * changed by it. In: a question. Out: its answer, or in words why there is none.
 */
import { messageOf, ShoalError } from '../../proto/errors.ts';
import type { EndpointsAnswer } from '../../proto/generated/shoal/v1/EndpointsAnswer.ts';
import type { EndpointsQuestion } from '../../proto/generated/shoal/v1/EndpointsQuestion.ts';
import type { Desired } from './desired.ts';
import { type Actual, describeOperation, type PlanOptions, planDataPlane } from './reconcile.ts';

/** What a node was told, as far as its host allows it, and what is there. */
export interface Sight {
  readonly desired: Desired;
  readonly actual: Actual;
  readonly options: PlanOptions;
}

/** The answer to `question`; never rejects. `look` looks at the kernel. */
export async function answerTo(
  question: EndpointsQuestion,
  look: () => Promise<Sight>,
): Promise<EndpointsAnswer> {
  const question_id = question.id ?? '';
  try {
    const sight = await look();
    return { question_id, revision: sight.desired.revision, ...answerFrom(question, sight) };
  } catch (error) {
    return { question_id, error: messageOf(error) };
  }
}

function answerFrom(question: EndpointsQuestion, sight: Sight): EndpointsAnswer {
  if (question.difference) return { operations: difference(sight) };
  throw new ShoalError(
    'not-supported',
    'this version of shoald does not know the question: update it on the node',
  );
}

/** What the next round would do, line by line. */
export function difference({ desired, actual, options }: Sight): string[] {
  return planDataPlane(desired, actual, options).flatMap(describeOperation);
}
