/** What dockerode does with a daemon, case by case. Each begins outside of a swarm and ends there. */
import assert from 'node:assert/strict';
import type { Duplex, Readable } from 'node:stream';
import type Docker from 'dockerode';
import { waitFor } from '../../lab/lab.ts';

const image = 'busybox:lab';
const sleep = { Image: image, Command: ['sleep', '1000000'], StopGracePeriod: 200_000_000 };
const boundMs = 40_000;

interface Swarm {
  readonly Version: { readonly Index: number };
  readonly Spec: { readonly Orchestration: { readonly TaskHistoryRetentionLimit: number } };
  readonly JoinTokens: { readonly Worker: string };
}

type Case = (docker: Docker) => Promise<void>;

function init(docker: Docker): Promise<unknown> {
  const port = 10_000 + Math.floor(Math.random() * 15_000);
  return docker.swarmInit({
    ListenAddr: `0.0.0.0:${port}`,
    AdvertiseAddr: '127.0.0.1',
    ForceNewCluster: false,
  });
}

/** The status that an asked-for thing was refused with. */
async function statusOf(refused: Promise<unknown>): Promise<number | undefined> {
  try {
    await refused;
    return undefined;
  } catch (error) {
    return (error as { statusCode?: number }).statusCode;
  }
}

interface ListedTask {
  readonly ID: string;
  readonly Status: { readonly State: string };
}

async function running(docker: Docker, service: string): Promise<ListedTask[]> {
  const filters = JSON.stringify({ service: [service], 'desired-state': ['running'] });
  const tasks = (await docker.listTasks({ filters } as never)) as unknown as ListedTask[];
  return tasks.filter((task) => task.Status.State === 'running');
}

async function textOf(stream: Readable, until: RegExp): Promise<string> {
  let text = '';
  for await (const chunk of stream) {
    text += String(chunk);
    if (until.test(text)) break;
  }
  return text;
}

export const dockerodeCases: Record<string, Case> = {
  'inits, inspects, updates and leaves a swarm': async (docker) => {
    assert.equal(await statusOf(docker.swarmInspect()), 503);
    await init(docker);
    const swarm = (await docker.swarmInspect()) as Swarm;
    assert.match(swarm.JoinTokens.Worker, /^SWMTKN-1-/);
    const Spec = { ...swarm.Spec, Orchestration: { TaskHistoryRetentionLimit: 2 } };
    await docker.swarmUpdate({ ...Spec, version: swarm.Version.Index });
    const after = (await docker.swarmInspect()) as Swarm;
    assert.equal(after.Spec.Orchestration.TaskHistoryRetentionLimit, 2);
    assert.equal(await statusOf(docker.swarmLeave({})), 503);
    await docker.swarmLeave({ force: true });
    assert.equal(await statusOf(docker.listNodes()), 503);
  },

  'keeps secrets and configs': async (docker) => {
    await init(docker);
    const Data = Buffer.from('swordfish').toString('base64');
    for (const kind of ['Secret', 'Config'] as const) {
      const made = await docker[`create${kind}`]({ Name: 'one', Labels: {}, Data });
      const object = docker[`get${kind}`]((made as unknown as { id: string }).id);
      const { Version } = (await object.inspect()) as { Version: { Index: number } };
      await object.update({ version: Version.Index, Name: 'one', Labels: { tier: 'gold' }, Data } as never);
      const filters = JSON.stringify({ label: ['tier=gold'] });
      const listed: unknown = await docker[`list${kind}s`]({ filters } as never);
      assert.equal((listed as unknown[]).length, 1);
      await object.remove();
      assert.equal(await statusOf(object.inspect()), 404);
    }
  },

  'creates, updates, reads and removes a service': async (docker) => {
    await init(docker);
    const ContainerSpec = { ...sleep, Command: ['sh', '-c', 'echo hello; sleep 1000000'] };
    const spec = { Name: 'web', TaskTemplate: { ContainerSpec }, Mode: { Replicated: { Replicas: 1 } } };
    const service = await docker.createService(spec as never);
    await waitFor('the service to run', boundMs, async () => (await running(docker, 'web')).length === 1);
    const logs = await service.logs({ stdout: true, follow: true } as never);
    assert.match(await textOf(logs as unknown as Readable, /hello/), /hello/);
    const { Version } = (await service.inspect()) as { Version: { Index: number } };
    const Mode = { Replicated: { Replicas: 2 } };
    await service.update({ ...spec, Mode, version: Version.Index } as never);
    await waitFor('two tasks', boundMs, async () => (await running(docker, 'web')).length === 2);
    const [task] = await running(docker, 'web');
    assert.equal(((await docker.getTask(task!.ID).inspect()) as ListedTask).ID, task!.ID);
    const [node] = (await docker.listNodes()) as { ID: string }[];
    assert.equal(((await docker.getNode(node!.ID).inspect()) as { ID: string }).ID, node!.ID);
    const filters = JSON.stringify({ name: ['web'] });
    const listed: unknown = await docker.listServices({ filters } as never);
    assert.equal((listed as unknown[]).length, 1);
    await service.remove();
    assert.equal(await statusOf(service.inspect()), 404);
  },

  'hears events and runs a container of the engine through a hijacked connection': async (docker) => {
    await init(docker);
    const events = (await docker.getEvents({
      filters: JSON.stringify({ type: ['network'], scope: ['swarm'] }),
    })) as Readable;
    const network = await docker.createNetwork({ Name: 'heard', Driver: 'overlay' });
    assert.match(await textOf(events, /"create"/), /"create"/);
    await network.remove();
    const container = await docker.createContainer({
      Image: image,
      Cmd: ['cat'],
      OpenStdin: true,
      StdinOnce: true,
      Tty: true,
    });
    try {
      const stream = (await container.attach({
        stream: true,
        stdin: true,
        stdout: true,
        hijack: true,
      })) as Duplex;
      await container.start();
      stream.write('round and round\n');
      assert.match(await textOf(stream, /round and round\r\nround and round/), /round/);
      stream.destroy();
    } finally {
      await container.remove({ force: true });
    }
  },
};

/** Outside of a swarm, whatever was before. */
export async function leaveSwarm(docker: Docker): Promise<void> {
  await docker.swarmLeave({ force: true }).catch(() => undefined);
}
