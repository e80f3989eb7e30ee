/**
 * What managers ask of a node's data plane, answered: from what it was told and what stands in its kernel now. Nothing is
 * changed by it. In: a question. Out: its answer, or in words why there is none.
 */
import { messageOf, ShoalError } from '../../proto/errors.ts';
import type { ArrivalQuestion } from '../../proto/generated/shoal/v1/ArrivalQuestion.ts';
import type { EndpointsAnswer } from '../../proto/generated/shoal/v1/EndpointsAnswer.ts';
import type { EndpointsQuestion } from '../../proto/generated/shoal/v1/EndpointsQuestion.ts';
import type { TraceQuestion } from '../../proto/generated/shoal/v1/TraceQuestion.ts';
import { arrivalAt, networkFiles } from './arrival.ts';
import type { Kernel } from './kernel.ts';
import { proxiedPortsOfMesh, proxyDifference } from './proxied.ts';
import { describeOperation, planDataPlane } from './reconcile.ts';
import { type Sight, type Trace, traceFrom } from './trace.ts';
import { type PublishedConnection, traceFromOutside } from './trace-published.ts';

/** Looks at what is to be here and what is. */
export type Look = () => Promise<Sight>;

/** The answer to `question`; never rejects. */
export async function answerTo(
  question: EndpointsQuestion,
  look: Look,
  kernel: Kernel,
): Promise<EndpointsAnswer> {
  const question_id = question.id ?? '';
  try {
    const sight = await look();
    const { revision } = sight.desired;
    return { question_id, revision, ...(await answerFrom(question, sight, kernel)) };
  } catch (error) {
    return { question_id, error: messageOf(error) };
  }
}

async function answerFrom(
  { difference: asksDifference, trace, arrival }: EndpointsQuestion,
  sight: Sight,
  kernel: Kernel,
): Promise<EndpointsAnswer> {
  if (asksDifference) return { operations: difference(sight) };
  if (trace?.published_port) return wireTrace(traceFromOutside(publishedOf(trace), sight));
  if (trace) return wireTrace(traceFrom(connectionOf(trace), sight));
  if (arrival) return { arrivals: await arrivals(arrival, sight, kernel) };
  throw new ShoalError(
    'not-supported',
    'this version of shoald does not know the question: update it on the node',
  );
}

/** What the next round would do, line by line. */
export function difference({ desired, actual, options, proxied }: Sight): string[] {
  return [
    ...planDataPlane(desired, actual, options).flatMap(describeOperation),
    ...proxyDifference(proxiedPortsOfMesh(desired), proxied),
  ];
}

function connectionOf({ addresses, name, ipv6 }: TraceQuestion) {
  return {
    addresses: new Map(Object.entries(addresses ?? {}).map(([id, list]) => [id, list.split(',')] as const)),
    name: name ?? '',
    isIpv6: ipv6 === true,
  };
}

function publishedOf({ published_port, protocol, ipv6 }: TraceQuestion): PublishedConnection {
  return { port: published_port ?? 0, protocol: protocol === 'udp' ? 'udp' : 'tcp', isIpv6: ipv6 === true };
}

function wireTrace({ steps, ways }: Trace): EndpointsAnswer {
  return {
    steps: [...steps],
    ways: ways.map((way) => ({
      address: way.address,
      steps: [...way.steps],
      targets: way.targets.map(({ address, networkId, taskId, name, nodeId, steps: own }) => ({
        address,
        network_id: networkId,
        task_id: taskId,
        name,
        node_id: nodeId,
        steps: [...own],
      })),
    })),
  };
}

async function arrivals(question: ArrivalQuestion, sight: Sight, kernel: Kernel) {
  const { from_node_id = '', port = 0, protocol, targets = [] } = question;
  return Promise.all(
    targets.map(async ({ network_id = '', address = '', pid = 0 }) => {
      const files = pid > 0 ? await kernel.processFiles(pid, networkFiles) : undefined;
      const arrival = { fromNodeId: from_node_id, networkId: network_id, address, port, files };
      return { steps: arrivalAt({ ...arrival, protocol: protocol === 'udp' ? 'udp' : 'tcp' }, sight) };
    }),
  );
}
