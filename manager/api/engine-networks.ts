/**
 * The container engine's part of /networks. In: a client's request. Out: the engine's own networks, and its answers to
 * what concerns one of them. An engine's network that carries a network of the cluster on this node (it bears its
 * id, see networkIdLabel) is told apart: to clients the two are one.
 */
import type { Request, Response } from 'express';
import { networkIdLabel } from '../../proto/docker.ts';
import { isShoalError } from '../../proto/errors.ts';
import { localNetwork, predefinedNetworks } from './answers.ts';
import { type EngineAnswer, type LocalEngine, refusalOf } from './local-engine.ts';
import { askedVersion, textBody } from './request.ts';

/** A network as the engine tells it; more fields than are named here. */
export interface EngineNetwork {
  readonly Id: string;
  readonly Name: string;
  readonly Driver: string;
  readonly Scope: string;
  readonly Labels?: Readonly<Record<string, string>> | null;
  readonly Containers?: Readonly<Record<string, unknown>> | null;
}

/** The cluster's network that an engine's one carries; undefined for the engine's own. */
export function carriedNetworkId(network: EngineNetwork): string | undefined {
  return network.Labels?.[networkIdLabel];
}

/** Asks the engine in the version that the client speaks. */
export async function askFor(
  engine: LocalEngine,
  request: Request,
  method: 'GET' | 'POST' | 'DELETE',
  path: string,
): Promise<EngineAnswer> {
  const body = method === 'POST' ? textBody(request) : '';
  return engine.ask({
    method,
    path: await engine.spoken(askedVersion(request), path),
    ...(body === '' ? {} : { body }),
  });
}

/** Answers as the engine did. */
export function relay(answer: EngineAnswer, response: Response): void {
  response.status(answer.status);
  if (answer.json === undefined) response.end();
  else response.json(answer.json);
}

/**
 * The engine's networks that pass `filters` (its own JSON; empty: all). While no engine can be asked these are the
 * networks that every engine has. Throws the engine's refusal.
 */
export async function engineNetworks(
  engine: LocalEngine,
  request: Request,
  filters: string,
): Promise<readonly EngineNetwork[]> {
  const query = filters === '' ? '' : `?filters=${encodeURIComponent(filters)}`;
  let answer: EngineAnswer;
  try {
    answer = await askFor(engine, request, 'GET', `/networks${query}`);
  } catch (error) {
    if (!isShoalError(error)) throw error;
    return predefinedNetworks.map(
      ({ name, driver }) => localNetwork(name, driver) as unknown as EngineNetwork,
    );
  }
  if (answer.status !== 200) throw refusalOf(answer);
  return answer.json as EngineNetwork[];
}

/**
 * A network that an engine carries for its cluster, as a node that is no manager and knows no more of it shows it: the
 * cluster's id, without what tells how it is carried.
 */
export function carriedAnswer(network: EngineNetwork, id: string): EngineNetwork & Record<string, unknown> {
  const { [networkIdLabel]: _carried, ...Labels } = network.Labels ?? {};
  return { ...network, Id: id, Driver: 'overlay', Scope: 'swarm', Options: {}, Labels };
}
