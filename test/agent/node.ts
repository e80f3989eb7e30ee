/** A node under test: an agent on a simulated engine with a virtual clock, and managers that the test plays. */
import { Agent, type AgentOptions } from '../../agent/agent.ts';
import { SimulatedEngine, type SimulatedEngineOptions } from '../../agent/engine/simulated.ts';
import { MemoryJournal } from '../../agent/journal.ts';
import { RememberedFiles } from '../../agent/secrets.ts';
import type { WireTask } from '../../agent/wire.ts';
import { silentLog } from '../../proto/ports.ts';
import { VirtualClock } from '../simulation/clock.ts';
import { seededRandom } from '../simulation/random.ts';
import { FakeManagers } from './fake-dispatcher.ts';

export const nodeId = 'node0000000000000000000aa';

export interface TestNode {
  readonly clock: VirtualClock;
  readonly engine: SimulatedEngine;
  readonly managers: FakeManagers;
  readonly journal: MemoryJournal;
  readonly files: RememberedFiles;
  agent: Agent;
  /** A new agent on the same engine and journal, as after a restart of the daemon. */
  restart(): Promise<void>;
  /** Lets time pass until the condition holds. */
  until(condition: () => boolean, what?: string): Promise<void>;
  /** Lets time pass until the task's acknowledged state is this. */
  untilState(taskId: string, state: string): Promise<void>;
}

/** Starts a node with a session. */
export async function startNode(
  engineOptions: Partial<SimulatedEngineOptions> = {},
  addresses: readonly string[] = ['m1:2377'],
  over: Partial<AgentOptions> = {},
): Promise<TestNode> {
  const clock = new VirtualClock();
  const random = seededRandom(11);
  const engine = new SimulatedEngine({ clock, random, startMs: [5, 20], pullMs: [1, 5], ...engineOptions });
  const managers = new FakeManagers(clock, addresses);
  const journal = new MemoryJournal();
  const files = new RememberedFiles();
  const make = (): Agent => {
    const options: AgentOptions = {
      identity: {
        current: () => ({
          identity: { certificatePem: '', keyPem: '', rootsPem: '' },
          certificate: { nodeId },
        }),
        tlsInfo: () => undefined,
        onChange: () => () => {},
      },
      engine,
      clock,
      random,
      log: silentLog,
      hostname: 'host-1',
      managers: addresses.slice(0, 1),
      dataDir: '/nowhere',
      runDir: '/nowhere',
      connect: managers.connect,
      journal,
      files,
      ...over,
    };
    return new Agent(options);
  };
  const node: TestNode = {
    clock,
    engine,
    managers,
    journal,
    files,
    agent: make(),
    async restart() {
      await node.agent.stop();
      node.agent = make();
      await clock.runFor(node.agent.start(), 10_000);
    },
    until: (condition, what) => clock.runUntil(condition, 120_000, what),
    untilState: (taskId, state) =>
      clock.runUntil(() => managers.last(taskId)?.state === state, 120_000, `task ${taskId} ${state}`),
  };
  await clock.runFor(node.agent.start(), 10_000);
  await node.until(() => node.agent.session.kind === 'established', 'a session');
  return node;
}

/** A task as a manager sends it; `over` replaces whole fields. */
export function wireTask(id: string, image = 'web:1', over: Partial<WireTask> = {}): WireTask {
  return {
    id,
    service_id: 'service1',
    slot: '1',
    node_id: nodeId,
    service_annotations: { name: 'web' },
    spec: { container: { image } },
    status: { state: 'ASSIGNED' },
    desired_state: 'RUNNING',
    ...over,
  };
}
