/**
 * What a seed's run is about. Most runs are small and about the managers alone, for consensus is where a fault costs
 * most and what a long run would say of everything, many short ones say sooner; each leaves some kinds of faults out,
 * so that a kind which hides another does not always stand in its way.
 */
import { returnWithinLabel } from '../../manager/ca/returning.ts';
import type { SwarmSpec } from '../../proto/docker.ts';
import { oldFormats } from '../manager/formats/formats.ts';
import { seededRandom } from './random.ts';

export interface Scope {
  readonly managers: number;
  /** Machines that begin as workers. */
  readonly workers: number;
  /** Clients ask for services, networks and stacks; else for the register and roles alone. */
  readonly hasServices: boolean;
  /** Services are never to have two tasks in a slot (`shoal.partition.stop-on-isolation`); networks are cut for long. */
  readonly isGuarded: boolean;
  /** Services are jobs, jobs with a schedule, and scaled by what their tasks use. */
  readonly isVaried: boolean;
  /** The first manager begins from what an earlier version wrote. */
  readonly oldFormat: string | undefined;
  /** Raft's messages are encoded and decoded on their way. */
  readonly isExact: boolean;
  readonly snapshotEntries: number;
  readonly flushMs: number;
  readonly clients: number;
  /** Services that clients have at a time. */
  readonly mostServices: number;
  /** Virtual time with faults. */
  readonly faultsMs: number;
  /** Between one fault and the next. */
  readonly meanGapMs: number;
  /** The parts of the cluster's spec that say how long certificates live, where not for ever. */
  readonly certificates: Partial<Pick<SwarmSpec, 'CAConfig' | 'Labels'>>;
  /** Whether faults of a kind happen. */
  readonly has: (kind: string) => boolean;
}

export interface ScopeOptions {
  readonly seed: number;
  /** Virtual seconds of faults, instead of as many as the seed draws. */
  readonly steps?: number | undefined;
  /** Services in every run. */
  readonly whole?: boolean | undefined;
  /** Runs about services of which there are never to be two. */
  readonly guarded?: boolean | undefined;
  /** Runs about jobs, schedules and scaling. */
  readonly varied?: boolean | undefined;
}

/**
 * What an agent is to withstand without two of its tasks: not that its engine hangs, that it stays dead itself, or that
 * what it wrote is lost while its containers run on.
 */
const faultsOfGuarded: ReadonlySet<string> = new Set([
  'crash-manager',
  'crash-leader',
  'crash-agent',
  'power-cut',
  'cut-one-way',
  'partition',
  'isolate-leader',
  'pause',
  'skew',
  'weather',
  'transfer',
]);

/** The scope that a seed draws. */
export function scopeOf(options: ScopeOptions): Scope {
  const drawn = draw(options);
  if (options.varied) {
    return {
      ...drawn,
      isVaried: true,
      oldFormat: undefined,
      mostServices: 4,
      clients: Math.min(2, drawn.clients),
      faultsMs: options.steps === undefined ? 10_000 + 2 * drawn.faultsMs : drawn.faultsMs,
    };
  }
  if (!options.guarded) return drawn;
  return {
    ...drawn,
    isGuarded: true,
    workers: Math.max(2, drawn.workers),
    oldFormat: undefined,
    mostServices: 2,
    clients: 1,
    faultsMs: options.steps === undefined ? 40_000 + 2 * drawn.faultsMs : drawn.faultsMs,
    has: (kind) => faultsOfGuarded.has(kind) && drawn.has(kind),
  };
}

function draw({ seed, steps, whole, guarded, varied }: ScopeOptions): Scope {
  const { integer, float } = seededRandom(seed + 0x40000000);
  const hasServices = integer(10) === 0 || whole === true || guarded === true || varied === true;
  const managers = [3, 3, 3, 3, 3, 3, 5, 1][integer(8)]!;
  const workers = hasServices ? 1 + integer(3) : integer(3);
  const isExact = integer(8) === 0;
  const snapshotEntries = [12, 25, 60, 10_000][integer(4)]! * (hasServices ? 2 : 1);
  const flushMs = integer(4) === 0 ? 4 : 0.3;
  const clients = 1 + integer(4);
  const faultsMs = (steps ?? (hasServices ? 4 + integer(10) : 3 + integer(6))) * 1000;
  const meanGapMs = (hasServices ? [600, 1_200, 2_500, 6_000] : [300, 600, 1_200, 2_500])[integer(4)]!;
  const oldFormat = integer(40) === 0 ? oldFormats[integer(oldFormats.length)] : undefined;
  const missing = new Map<string, boolean>();
  const has = (kind: string): boolean => {
    const known = missing.get(kind) ?? float() < 0.25;
    missing.set(kind, known);
    return !known;
  };
  const drawn = seededRandom(seed + 0x50000000);
  const lifeMs = [undefined, undefined, 2_000, 6_000, 20_000][drawn.integer(5)];
  // A manager that came back too late would take its vote with it: only where no worker becomes one.
  const isStrict = lifeMs !== undefined && drawn.integer(3) === 0 && !has('role');
  const certificates = {
    ...(lifeMs === undefined ? {} : { CAConfig: { NodeCertExpiry: lifeMs * 1e6 } }),
    ...(isStrict ? { Labels: { [returnWithinLabel]: '2s' } } : {}),
  };
  return {
    certificates,
    managers,
    workers,
    hasServices,
    isGuarded: false,
    isVaried: false,
    oldFormat,
    isExact,
    snapshotEntries,
    flushMs,
    clients,
    mostServices: 6,
    faultsMs,
    meanGapMs,
    has,
  };
}
