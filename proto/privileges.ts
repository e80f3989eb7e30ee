/**
 * What a service's containers may have of their host that Docker's API has no field for in services. Managers read it
 * from the service's labels, check it against what the cluster allows, and tell the agent in a label of the task, which
 * no client writes: a label of the service alone gives nothing.
 */

/** Label of a task that carries Privileges as JSON. */
export const privilegesLabel = 'shoal.privileges';

export interface Device {
  readonly host: string;
  readonly container: string;
  /** Of r (read), w (write) and m (mknod). */
  readonly permissions: string;
}

export const ipcModes = ['none', 'private', 'shareable', 'host'] as const;
export type IpcMode = (typeof ipcModes)[number];

export interface Privileges {
  readonly privileged?: true;
  readonly devices?: readonly Device[];
  /** As the engine takes them: `seccomp=unconfined`. */
  readonly securityOpt?: readonly string[];
  readonly ipc?: IpcMode;
  readonly pid?: 'host';
  readonly shmBytes?: number;
  /** The generic resource whose values, as they were given to the task, are the ids of its graphics processors. */
  readonly gpu?: string;
}

const pathForm = /^\/dev(?:\/(?!\.{1,2}(?:\/|$))[\w.+@-]+)+$/;

/** `/dev/a`, `/dev/a:/dev/b` or `/dev/a:/dev/b:rw`; undefined when it is none. */
export function parseDevice(text: string): Device | undefined {
  const [host = '', second, third, ...more] = text.split(':');
  const isMode = (part: string | undefined) => part !== undefined && /^(?!.*(.).*\1)[rwm]{1,3}$/.test(part);
  const permissions = third ?? (isMode(second) ? second : undefined);
  const container = second !== undefined && !(third === undefined && isMode(second)) ? second : host;
  const isGood =
    more.length === 0 && pathForm.test(host) && container.startsWith('/') && container.length > 1;
  if (!isGood || (permissions !== undefined && !isMode(permissions))) return undefined;
  return { host, container, permissions: permissions ?? 'rwm' };
}

const securityForm =
  /^(?:no-new-privileges|(?:seccomp|systempaths)=unconfined|apparmor=[\w./-]+|label=(?:disable|(?:user|role|type|level):[\w.,:-]+))$/;

/** An option of docker's `--security-opt` as the engine takes it; undefined when it is none that a service can have. */
export function parseSecurityOption(text: string): string | undefined {
  const option = text.replace(/^(seccomp|systempaths|apparmor|label):/, '$1=').replace(/[=:]true$/, '');
  return securityForm.test(option) ? option : undefined;
}
