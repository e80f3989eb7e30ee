/**
 * Templates are filled in by the agent, for each task. What none could be filled in with is refused here, when
 * the service, config or secret is made, with the place where it stands.
 */
import type { ConfigSpec, SecretSpec, ServiceSpec } from '../../proto/docker.ts';
import { messageOf } from '../../proto/errors.ts';
import { anyLabels, checkTemplate, exampleValues, type TemplateFunctions } from '../../proto/template.ts';
import type { View } from '../store/store.ts';
import { swarmError } from './request.ts';

/** Checks the templates in a service's host name, environment and mounts. Throws ShoalError. */
export function checkSpecTemplates(spec: ServiceSpec): void {
  const { Hostname = '', Env = [], Mounts = [] } = spec.TaskTemplate.ContainerSpec;
  const values = exampleValues({ Name: spec.Name, Labels: spec.Labels });
  const check = (place: string, text: string): void =>
    attempt(`ContainerSpec.${place}`, text, () => {
      checkTemplate(text, values);
    });
  check('Hostname', Hostname);
  for (const [index, entry] of Env.entries()) check(`Env[${index}]`, entry);
  for (const [index, mount] of Mounts.entries()) {
    check(`Mounts[${index}].Source`, mount.Source ?? '');
    check(`Mounts[${index}].Target`, mount.Target);
    for (const [name, value] of Object.entries(mount.VolumeOptions?.DriverConfig?.Options ?? {})) {
      check(`Mounts[${index}].VolumeOptions.DriverConfig.Options.${name}`, value);
    }
  }
}

function attempt(place: string, text: string, fill: () => void): void {
  if (!text.includes('{{')) return;
  try {
    fill();
  } catch (error) {
    throw swarmError('invalid-argument', `${place}: ${messageOf(error)}`);
  }
}

/** Checks the data of a templated secret or config, of which it is not known yet which service uses it. */
export function checkDataTemplate(what: 'secret' | 'config', spec: SecretSpec | ConfigSpec): void {
  if (!spec.Templating) return;
  const text = textOf(spec);
  const nothing = () => '';
  const values = exampleValues({ Name: 'service', Labels: anyLabels });
  attempt(`${what} ${spec.Name}`, text, () => {
    checkTemplate(text, values, { env: nothing, secret: nothing, config: nothing });
  });
}

/** Checks that the templated secrets and configs of a service can be filled in with what it has. */
export function checkDataTemplates(view: View, spec: ServiceSpec): void {
  const { Secrets = [], Configs = [] } = spec.TaskTemplate.ContainerSpec;
  const used = [
    ...Secrets.map((ref) => ({
      what: `secret ${ref.SecretName}`,
      spec: view.get('secret', ref.SecretID)?.Spec,
    })),
    ...Configs.map((ref) => ({
      what: `config ${ref.ConfigName}`,
      spec: view.get('config', ref.ConfigID)?.Spec,
    })),
  ];
  const values = exampleValues({ Name: spec.Name, Labels: spec.Labels });
  for (const { what, spec: data } of used) {
    if (!data?.Templating) continue;
    const text = textOf(data);
    attempt(what, text, () => {
      checkTemplate(text, values, functionsOf(spec));
    });
  }
}

function functionsOf(spec: ServiceSpec): TemplateFunctions {
  const { Secrets = [], Configs = [] } = spec.TaskTemplate.ContainerSpec;
  const among = (what: string, targets: readonly (string | undefined)[]) => (target: string) => {
    if (targets.includes(target)) return '';
    throw new Error(`the service has no ${what} with the target ${JSON.stringify(target)}`);
  };
  return {
    env: () => '',
    secret: among(
      'secret',
      Secrets.map((ref) => ref.File?.Name),
    ),
    config: among(
      'config',
      Configs.map((ref) => ref.File?.Name),
    ),
  };
}

function textOf(spec: SecretSpec | ConfigSpec): string {
  return Buffer.from(spec.Data ?? '', 'base64').toString('utf8');
}
