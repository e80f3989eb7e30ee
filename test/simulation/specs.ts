/** Services and networks of a simulated workload, drawn from chance. */
import { newMeta } from '../../manager/store/change.ts';
import type { Network, Secret, ServiceSpec, UpdateConfig } from '../../proto/docker.ts';
import type { NetworkId } from '../../proto/ids.ts';
import { isolationLabel } from '../../proto/isolation.ts';
import type { seededRandom } from './random.ts';

type Dice = ReturnType<typeof seededRandom>;

const second = 1e9;

/** Label of services that are not expected to come to rest as asked; the value says how. */
export const hopelessLabel = 'simulation.hopeless';
/** Their tasks never run: neither do their updates end. */
export const stuckHopes: ReadonlySet<string> = new Set(['nowhere', 'never healthy']);

/** What becomes of a hopeless service: its tasks fail, have no node, are not healthy, or have no image. */
function hopeOf(Name: string): 'fails' | 'nowhere' | 'never healthy' | 'no image' {
  const number = Number(Name.replace(/\D/g, ''));
  return (['nowhere', 'fails', 'never healthy', 'nowhere', 'no image'] as const)[number % 5]!;
}

/** A service as a client asks for it. */
export function serviceSpecOf(
  dice: Dice,
  Name: string,
  networks: readonly Network[],
  secrets: readonly Secret[],
  isGuarded = false,
): ServiceSpec {
  const spec = drawSpec(dice, Name, networks, secrets);
  if (!isGuarded) return spec;
  return {
    ...spec,
    Labels: { ...spec.Labels, [isolationLabel]: dice.integer(2) === 0 ? 'after:5s' : 'after:15s' },
    Mode: { Replicated: { Replicas: 1 + dice.integer(2) } },
  };
}

function drawSpec(
  dice: Dice,
  Name: string,
  networks: readonly Network[],
  secrets: readonly Secret[],
): ServiceSpec {
  const isGlobal = dice.integer(5) === 0;
  const isHopeless = dice.integer(10) < 2;
  const hope = isHopeless ? hopeOf(Name) : undefined;
  const labels: Record<string, string> =
    hope === 'never healthy' ? { 'shoal.simulated.health': 'starting' } : {};
  if (dice.integer(4) === 0) labels['shoal.simulated.stop-ms'] = String(dice.integer(3_000));
  const health = dice.integer(4) === 0;
  return {
    Name,
    Labels: hope ? { [hopelessLabel]: hope } : {},
    TaskTemplate: {
      ContainerSpec: {
        Image: hope === 'fails' ? 'fail:exit-1' : hope === 'no image' ? 'missing:1' : 'web:1',
        Labels: labels,
        StopGracePeriod: 2 * second,
        ...(health || hope === 'never healthy'
          ? { Healthcheck: { Test: ['CMD', 'true'], Interval: second } }
          : {}),
        ...(secrets.length > 0
          ? {
              Secrets: secrets.map(({ ID, Spec }) => ({
                SecretID: ID,
                SecretName: Spec.Name,
                File: { Name: Spec.Name, UID: '0', GID: '0', Mode: 0o444 },
              })),
            }
          : {}),
      },
      ...(hope === 'nowhere' ? { Placement: { Constraints: ['node.labels.room == none'] } } : {}),
      RestartPolicy: { Condition: 'any', Delay: isHopeless ? 3 * second : dice.integer(3) * 0.5 * second },
      ...(networks.length > 0 ? { Networks: networks.map(({ ID }) => ({ Target: ID })) } : {}),
    },
    Mode: isGlobal ? { Global: {} } : { Replicated: { Replicas: 1 + dice.integer(5) } },
    UpdateConfig: updateConfigOf(dice),
    RollbackConfig: updateConfigOf(dice),
  };
}

function updateConfigOf(dice: Dice): UpdateConfig {
  return {
    Parallelism: dice.integer(3),
    Delay: dice.integer(2) * 0.3 * second,
    FailureAction: (['pause', 'continue', 'pause'] as const)[dice.integer(3)]!,
    Monitor: second,
    MaxFailureRatio: 0.5,
    Order: dice.integer(2) === 0 ? 'start-first' : 'stop-first',
  };
}

/** An overlay network that awaits its subnet. */
export function networkOf(id: NetworkId, Name: string): Network {
  return {
    ...newMeta(id),
    Spec: { Name, Labels: {}, DriverConfiguration: { Name: 'overlay' }, Scope: 'swarm', Attachable: true },
    IPAMOptions: { Driver: { Name: 'default' }, Configs: [] },
  };
}
