/** The daemon on which clusters are made, joined and left: brought into the state that a case needs, and back. */
import {
  docker,
  effect,
  type FlagCase,
  inspect,
  type Json,
  type Result,
  tryDocker,
  type World,
  waitFor,
} from './case.ts';

export function own(command: string, flag: string, run: FlagCase['run'], names?: RegExp): FlagCase {
  return { command: `docker ${command}`, flag, run, ...(names ? { names } : {}) };
}

export const other = (world: World) => ({ socket: world.otherSocket });

export async function swarmInfo(world: World, socket: string): Promise<Json> {
  const { stdout } = await docker(world, ['info', '--format', '{{json .Swarm}}'], { socket });
  return JSON.parse(stdout);
}

export async function leave(world: World): Promise<void> {
  await tryDocker(world, ['swarm', 'leave', '--force'], other(world));
}

/** Makes a cluster of the other daemon, looks at it, and ends it. */
export async function withSwarm(
  world: World,
  flags: readonly string[],
  check: (swarm: Json, output: string) => Promise<Result> | Result,
): Promise<Result> {
  const address = flags.some((flag) => flag.startsWith('--advertise-addr'))
    ? []
    : ['--advertise-addr', world.otherAddress];
  try {
    const { stdout } = await docker(world, ['swarm', 'init', ...address, ...flags], other(world));
    return await check(await swarmInfo(world, world.otherSocket), stdout);
  } finally {
    await leave(world);
  }
}

export async function tokenFor(world: World, role: 'worker' | 'manager'): Promise<string> {
  return (await docker(world, ['swarm', 'join-token', '--quiet', role])).stdout.trim();
}

/** The other daemon joins the first's cluster, is looked at, leaves and is forgotten. */
export async function withJoined(
  world: World,
  flags: readonly string[],
  check: (nodeId: string) => Promise<Result>,
): Promise<Result> {
  const token = flags.includes('--token') ? [] : ['--token', await tokenFor(world, 'worker')];
  const address = flags.includes('--advertise-addr') ? [] : ['--advertise-addr', world.otherAddress];
  try {
    await docker(
      world,
      ['swarm', 'join', ...token, ...address, ...flags, `${world.address}:2377`],
      other(world),
    );
    const { NodeID } = await swarmInfo(world, world.otherSocket);
    return await check(NodeID);
  } finally {
    await forget(world);
  }
}

/** Takes the other daemon out of the first's cluster. */
export async function forget(world: World): Promise<void> {
  const { NodeID } = await swarmInfo(world, world.otherSocket);
  if (!NodeID) return;
  await tryDocker(world, ['node', 'demote', NodeID]);
  await leave(world);
  await waitFor('the node to be forgotten', 30_000, async () => {
    await tryDocker(world, ['node', 'rm', '--force', NodeID]);
    return (await tryDocker(world, ['node', 'inspect', NodeID])).status !== 0;
  });
}

export async function dataPathIsLoopback(world: World, socket: string, node: string): Promise<Result> {
  await waitFor('the node to say where its data path is', 30_000, async () => {
    const { Labels } = (await inspect(world, 'node', node, socket)).Description.Engine;
    return Labels?.['shoal.data-path.address'] === '127.0.0.1';
  });
  return effect('`Description.Engine.Labels` of the node (`shoal.data-path.address`)');
}
