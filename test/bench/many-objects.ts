/** Objects as a large cluster has them. Pure. */
import type { Config, Task } from '../../proto/docker.ts';

const time = '2026-11-22T00:00:00.000Z';
const services = 1_000;
const nodes = 500;

/** As long as the ids that are given out, and as unlike each other. */
function idOf(kind: string, at: number): string {
  const mixed = Math.imul(at + 1, 2_654_435_761) >>> 0;
  return `${kind}${mixed.toString(36).padStart(7, '0')}${String(at).padStart(17, '0')}`;
}

export function configOf(at: number): Config {
  return {
    ID: idOf('c', at),
    Version: { Index: 1 + at },
    CreatedAt: time,
    UpdatedAt: time,
    Spec: { Name: `config-${at}`, Labels: {}, Data: 'c29tZSBkYXRh' },
  } as unknown as Config;
}

/** One of a thousand services, on one of 500 nodes, with an address of its own. */
export function taskOf(at: number): Task {
  const address = `10.${(at >> 16) & 255}.${(at >> 8) & 255}.${at & 255}/8`;
  const Status = {
    Timestamp: time,
    State: 'running',
    Message: 'started',
    ContainerStatus: { ContainerID: String(at).padStart(64, '0'), PID: at },
  };
  return {
    ID: idOf('t', at),
    Version: { Index: 1 + at },
    CreatedAt: time,
    UpdatedAt: time,
    Labels: {},
    ServiceID: idOf('s', at % services),
    RevisionID: idOf('r', at % services),
    Slot: 1 + Math.floor(at / services),
    NodeID: idOf('n', at % nodes),
    DesiredState: 'running',
    Status,
    NetworksAttachments: [{ NetworkID: idOf('e', 0), Addresses: [address] }],
    Private: { RunningSince: Date.parse(time) },
  } as unknown as Task;
}
