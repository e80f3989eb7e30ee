/**
 * The flags of `service create` and `service update` for what Docker's API has no field for: each writes a label of
 * the service (manager/store/service-options.ts), an empty value takes it away. The managers check what it says.
 */
import type { ServiceSpec } from '../proto/docker.ts';
import { isolationLabel } from '../proto/isolation.ts';
import { rotateLabel } from '../proto/rotation.ts';
import type { ScalarFlag } from './service-flags.ts';

function labelFlag(flags: string, label: string, description: string): ScalarFlag {
  return { flags, description, apply: (spec, value) => withLabel(spec, label, value) };
}

function withLabel(spec: ServiceSpec, label: string, value: string): ServiceSpec {
  const { [label]: _before, ...Labels } = spec.Labels ?? {};
  return { ...spec, Labels: value === '' ? Labels : { ...Labels, [label]: value } };
}

export const optionFlags: readonly ScalarFlag[] = [
  labelFlag(
    '--rotate <how>',
    rotateLabel,
    'what a new version of a config or secret does: restart, signal:SIGHUP or none (default restart)',
  ),
  labelFlag(
    '--drain <order>',
    'shoal.drain',
    'how its tasks leave a drained node: start-first, stop-first or at-once (default: as its updates go)',
  ),
  labelFlag(
    '--rollout-share <percent>',
    'shoal.rollout.share',
    'how many of the new connections go to tasks of the new version while an update is under way, such as 10%',
  ),
  labelFlag(
    '--rebalance <how>',
    'shoal.rebalance',
    'move tasks by itself to nodes that have less to do: on, off, or how many at a time (default off)',
  ),
  labelFlag(
    '--partition <policy>',
    'shoal.partition',
    'tasks of a node that is lost are run elsewhere: replace (at once), wait:10m or never (default replace)',
  ),
  labelFlag(
    '--stop-on-isolation <how>',
    isolationLabel,
    'a node that is cut off stops its tasks before others are started: true, after:30s or false (default false)',
  ),
  labelFlag(
    '--cron <schedule>',
    'shoal.cron',
    "when a job runs: cron's five fields, or six with seconds first",
  ),
  labelFlag('--cron-timezone <name>', 'shoal.cron.timezone', 'time zone of the schedule (default UTC)'),
  labelFlag(
    '--cron-overlap <policy>',
    'shoal.cron.overlap',
    'while a run is not over the next is: forbid (skipped), replace or allow (default forbid)',
  ),
  labelFlag(
    '--device <list>',
    'shoal.devices',
    'devices of the host, with commas between: /dev/NAME[:/dev/NAME[:rwm]]',
  ),
  labelFlag(
    '--gpu <resource>',
    'shoal.gpu',
    'give it the graphics processors that it reserves as this resource',
  ),
  labelFlag(
    '--volume-sticky <true|false>',
    'shoal.volume.sticky',
    'a slot goes back to the node that it ran on, where its volumes are',
  ),
  labelFlag(
    '--autoscale-max <count>',
    'shoal.autoscale.max',
    'scale it by what its tasks use, to so many at most',
  ),
  labelFlag('--autoscale-min <count>', 'shoal.autoscale.min', 'to so many at least (default 1)'),
  labelFlag(
    '--autoscale-metric <metric>',
    'shoal.autoscale.metric',
    'what is measured: cpu, memory or prometheus:NAME (default cpu)',
  ),
  labelFlag(
    '--autoscale-target <amount>',
    'shoal.autoscale.target',
    'how much is for one task: 70% of what it reserves (cpu, memory), 200m (memory), 25 (a metric)',
  ),
  labelFlag(
    '--autoscale-up-window <duration>',
    'shoal.autoscale.up-window',
    'how long more has to be wanted (default 0s)',
  ),
  labelFlag(
    '--autoscale-down-window <duration>',
    'shoal.autoscale.down-window',
    'how long fewer have to be wanted (default 5m)',
  ),
  labelFlag(
    '--autoscale-cooldown <duration>',
    'shoal.autoscale.cooldown',
    'how long after a change there is no other (default 30s)',
  ),
  labelFlag(
    '--autoscale-source <service>',
    'shoal.autoscale.source',
    'whose tasks serve the metric, such as a queue: of all of them together',
  ),
  labelFlag('--autoscale-port <port>', 'shoal.autoscale.port', 'where a task serves its metrics'),
  labelFlag('--autoscale-path <path>', 'shoal.autoscale.path', 'and at which path (default /metrics)'),
  labelFlag('--shm-size <size>', 'shoal.shm-size', 'size of /dev/shm, such as 64m'),
  labelFlag('--security-opt <list>', 'shoal.security-opt', 'such as seccomp=unconfined, with commas between'),
  labelFlag('--ipc <mode>', 'shoal.ipc', 'none, private, shareable or host'),
  labelFlag('--pid <mode>', 'shoal.pid', 'host'),
  labelFlag('--privileged <true|false>', 'shoal.privileged', 'all of the host, if the cluster allows it'),
  labelFlag('--cron-history <count>', 'shoal.cron.history', 'runs to remember (default 10)'),
];
