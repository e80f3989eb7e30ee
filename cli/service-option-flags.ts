/**
 * The flags of `service create` and `service update` for what Docker's API has no field for: each writes a label of
 * the service (manager/store/service-options.ts), an empty value takes it away. The managers check what it says.
 */
import type { ServiceSpec } from '../proto/docker.ts';
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
  labelFlag('--cron-history <count>', 'shoal.cron.history', 'runs to remember (default 10)'),
];
