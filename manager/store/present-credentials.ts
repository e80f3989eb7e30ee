/**
 * Credentials of a registry run out, in some within hours: an image of a revision from before is pulled with those that the
 * service has now, where they are for the same registry. What a task is made of is none of their business (revision.ts).
 */
import type { Service, ServiceSpec } from '../../proto/docker.ts';
import { registryOf } from '../../proto/image-registry.ts';

/** `spec`, which is or was `service`'s, with the credentials of now, unless they are for another registry. */
export function withPresentCredentials(service: Pick<Service, 'Spec'>, spec: ServiceSpec): ServiceSpec {
  const { Image, PullOptions } = service.Spec.TaskTemplate.ContainerSpec;
  const { TaskTemplate } = spec;
  const { ContainerSpec } = TaskTemplate;
  const isSame = PullOptions === undefined || PullOptions === ContainerSpec.PullOptions;
  if (isSame || registryOf(Image) !== registryOf(ContainerSpec.Image)) return spec;
  return { ...spec, TaskTemplate: { ...TaskTemplate, ContainerSpec: { ...ContainerSpec, PullOptions } } };
}
