/** The deployments that a stack remembers: who made each, when, and which revisions of its services it meant. */
import type { Service, Stack, StackDeployment } from '../../proto/docker.ts';
import type { RevisionId } from '../../proto/ids.ts';

/** How many earlier deployments a stack keeps beside the present one. */
const keptDeployments = 10;

export interface NewDeployment {
  readonly by: string;
  readonly what: string;
  /** ms since the epoch. */
  readonly now: number;
  readonly revisions: readonly RevisionId[];
}

/** The stack, new or as it was, after one more deployment of `source`. */
export function withDeployment(stack: Stack, source: string, deployment: NewDeployment): Stack {
  const before = stack.Version.Index === 0 ? undefined : presentOf(stack);
  const Deployment = {
    Number: (before?.Number ?? 0) + 1,
    DeployedAt: new Date(deployment.now).toISOString(),
    By: deployment.by,
    What: deployment.what,
    Revisions: [...deployment.revisions],
  };
  const History = before ? [before, ...stack.History].slice(0, keptDeployments) : [];
  return { ...stack, Source: source, History, Deployment };
}

/** All deployments that are kept, the newest first. Those of earlier versions have no revisions to go back to. */
export function deploymentsOf(stack: Stack): StackDeployment[] {
  return [presentOf(stack), ...stack.History];
}

function presentOf(stack: Stack): StackDeployment {
  const { Deployment, Source, UpdatedAt, History } = stack;
  if (Deployment) return { ...Deployment, Source };
  return { Number: History.length + 1, DeployedAt: UpdatedAt, Source };
}

/** A change of a stack that nobody recorded as one, for its services remember theirs. */
export interface ToldDeployment {
  readonly At: string;
  readonly By: string;
  readonly What: string;
}

/** Changes by one hand with no more than this between them are one: the docker CLI deploys service by service. */
const togetherMs = 10_000;

/** What the services of a stack that has no object of its own (the docker CLI's) remember, the newest first. */
export function toldByServices(services: readonly Service[]): ToldDeployment[] {
  const records = services.flatMap(({ Spec, Private }) =>
    (Private.History ?? []).map((record) => ({ ...record, name: Spec.Name, atMs: Date.parse(record.At) })),
  );
  records.sort((one, other) => one.atMs - other.atMs);
  const told: { At: string; By: string; whats: string[]; lastMs: number }[] = [];
  for (const { At, By, What, name, atMs } of records) {
    const last = told.at(-1);
    const what = `${name}: ${What}`;
    if (last && last.By === By && atMs - last.lastMs <= togetherMs) {
      last.whats.push(what);
      last.lastMs = atMs;
    } else told.push({ At, By, whats: [what], lastMs: atMs });
  }
  return told.reverse().map(({ At, By, whats }) => ({ At, By, What: whats.join('; ') }));
}
